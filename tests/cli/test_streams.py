"""Output that cannot be written: one line, or another letter, and never half a file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hsi_se.cli.terminal import say
from hsi_se.runs.folder import RunFolder
from hsi_se.system.files import to_csv
from tests.conftest import ROOT, TINY, set_options
from tests.processes import Command

DEMO = ROOT / "configs" / "demo.yaml"


def run(command: str, **environment: str) -> tuple[int, bytes, str]:
    done = subprocess.run(
        ["sh", "-c", command.replace("hsi-se", f"{sys.executable} -m hsi_se")],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment}, capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
@pytest.mark.parametrize("command", ["schema", "--version", "scene list"])
def test_a_full_standard_output_is_one_line(command):
    code, _, said = run(f"hsi-se {command} > /dev/full")
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith("hsi-se: standard output, or a temporary file: No space left on device; ")


def test_a_closed_stream_is_harmless():
    assert run("hsi-se scene list >&-") == (0, b"", "")
    assert run("hsi-se info missing.yaml 2>&-")[0] == 2
    assert run("hsi-se schema | head -1")[::2] == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_the_output_lacks_are_similar_ones(encoding):
    code, written, said = run("hsi-se scene show indian-pines", PYTHONIOENCODING=encoding)
    assert (code, said) == (0, "")
    assert {"ascii": b"145 * 145 * 200", "latin-1": "145 × 145 × 200".encode("latin-1")}[encoding] in written


def test_a_message_has_no_control_characters(capsys):
    say("a file named \x1b[2J\nb")
    assert capsys.readouterr().out == "a file named  [2J b\n"


@pytest.mark.parametrize(
    ("text", "cell"), [("=1+1", "'=1+1"), ("+a", "'+a"), ("-a", "'-a"), ("@a", "'@a"), ("a=", "a=")]
)
def test_a_cell_is_never_a_formula(text, cell):
    assert to_csv(["name"], [[text]]) == f"name\n{cell}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("streams")
    changes = (*TINY, "model.width=0.125", "model.attention={fold: {kind: se}}")
    for words in (("train", DEMO, *set_options(*changes), "--out", path / "run"), ("eval", path / "run")):
        assert Command(*words, log=path / "log").wait() == 0
    return path


COMMANDS = (
    ("export", "RUN", "--format", "torch", "--out", "OUT/model.pt2"),
    ("eval", "RUN"),
    ("report", "RUN", "--out", "OUT/page.html"),
    ("report", "RUN", "--figures", "png"),
    ("explain", "RUN"),
    ("map", "RUN", "--out", "OUT/map"),
    ("export", "RUN", "--format", "onnx", "--out", "OUT/model.onnx"),
    ("split", DEMO, "--out", "OUT/split.png"),
    ("train", DEMO, *set_options(*TINY), "--out", "OUT/run"),
    ("gap", DEMO, *set_options(*TINY, "model={name: lda}"), "--out", "OUT/gap"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [COMMANDS[0], *(pytest.param(command, marks=pytest.mark.exhaustive) for command in COMMANDS[1:])],
    ids=lambda command: " ".join(map(str, command[:1])),
)
def test_a_full_disk_is_one_line_and_leaves_no_half_of_a_file(folder, tmp_path, command):
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "out").mkdir()
    words = [str(word).replace("RUN", str(tmp_path / "run")).replace("OUT", str(tmp_path / "out")) for word in command]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    full = Command(*words, log=tmp_path / "log", max_file_size=4096)
    assert full.wait() == 2, full.log.read_text()
    assert ": File too large; " in full.last_line()
    assert "Traceback" not in full.log.read_text()
    kept = {path: path.read_bytes() for path in before}
    assert kept == before or command[0] == "explain"  # whose facts fit
    written = {path for path in (tmp_path / "out").rglob("*") if path.is_file() and ".unfinished" not in path.parts}
    assert not written


@pytest.mark.slow
def test_a_run_is_replaced_through_a_link_to_it(folder, tmp_path, call):
    shutil.copytree(folder / "run", tmp_path / "real")
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    code, _, said = call(
        "train", DEMO, *set_options(*TINY, "model={name: lda}"), "--out", tmp_path / "link", "--overwrite"
    )
    assert code == 0, said
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}
    assert RunFolder(tmp_path / "real").read_config().model.name == "lda"
