"""The form of the command line: help, examples, hints, and prose that fits the terminal."""

import os
import re
import shlex
import subprocess
import sys
from io import StringIO

import pytest
import typer.main
from rich.console import Console

import hsi_se
from hsi_se.cli.main import app
from hsi_se.cli.terminal import print_prose
from hsi_se.reports.finding import describe_finding
from hsi_se.runs.folder import RunFolder
from hsi_se.scene.catalogue import list_known_scenes
from tests.conftest import ROOT, TINY

DEMO = str(ROOT / "configs" / "demo.yaml")
PANELS = {
    "Data": ["scene", "split"],
    "Train": ["quickstart", "train", "resume", "eval", "gap"],
    "Look": ["info", "report", "watch", "explain", "schema"],
    "Compare": ["ablate", "tune"],
    "Deliver": ["map", "export"],
}


def list_commands():
    """Every command and group by its words, `hsi-se` itself as ()."""
    root = typer.main.get_command(app)
    commands = {(): root, **{(name,): command for name, command in root.commands.items()}}
    groups = [(words, command) for words, command in commands.items() if words and hasattr(command, "commands")]
    commands |= {(*words, name): command for words, group in groups for name, command in group.commands.items()}
    return commands


COMMANDS = list_commands()


def words_of(help_text: str) -> str:
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", help_text).split())


# ------------------------------------------------------------------------------------------------ help


def test_the_version_is_the_packages(call):
    assert call("--version") == (0, f"hsi-se {hsi_se.__version__}\n", "")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "hsi-se")
def test_help_fits_80_columns_names_no_type_and_ends_with_an_example(call, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = call(*words, "-h")
    assert (code, err) == (0, "")
    assert call(*words, "--help")[1] == out
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(r"<\w+(\[\w+\])?>|\{[A-Z|.]+\}", out), "types in place of a meaning"
    last = out.strip().splitlines()[-1].strip()
    assert last == COMMANDS[words].epilog
    assert last.startswith("Example: hsi-se ")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "hsi-se")
def test_the_example_of_a_command_parses_and_is_its_own(words):
    _, example = COMMANDS[words].epilog.split("Example: hsi-se ")
    arguments = shlex.split(example.partition(" > ")[0])
    depth = max(depth for depth in (1, 2) if tuple(arguments[:depth]) in COMMANDS)
    named = tuple(arguments[:depth])
    assert named[: len(words)] == words
    COMMANDS[named].make_context(named[-1], arguments[depth:])  # raises what parsing raises


def test_an_example_that_does_not_parse_is_found():
    with pytest.raises(hsi_se.cli.usage.UsageError):
        COMMANDS[("train",)].make_context("train", ["demo.yaml", "--nonsense"])


def test_commands_are_grouped_in_the_order_of_work(call):
    out = call("--help")[1]
    found, panel = {}, ""
    for line in out.splitlines():
        if line.startswith("╭"):
            panel = line.strip("╭─╮ ")
        elif (row := re.match(r"│ (\w+)  ", line)) and panel != "Options":
            found.setdefault(panel, []).append(row[1])
    assert found == PANELS
    assert list(found) == list(PANELS)
    assert re.findall(r"│ (inspect|list|show|fetch) ", call("scene", "--help")[1]) == [
        "inspect", "list", "show", "fetch",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "choices"),
    [
        ("train", "--device [auto|cpu|cuda]"), ("gap", "--device [auto|cpu|cuda]"),
        ("export", "--format [onnx|torch]"), ("map", "--engine [dense|patches]"),
        ("report", "--figures [png|pdf|svg]"),
    ],
)  # fmt: skip
def test_choices_are_shown_as_choices(call, command, choices):
    assert choices in words_of(call(command, "--help")[1])


def test_completion_offers_commands_options_and_choices_without_torch():
    code = (
        "import sys\nfrom hsi_se.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "    assert not heavy, heavy"
    )
    for words, offered in (("hsi-se re", "resume"), ("hsi-se train --o", "--out"), ("hsi-se eval --device c", "cuda")):
        environment = {
            **os.environ, "_HSI_SE_COMPLETE": "complete_bash", "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert offered in done.stdout.split(), (words, done.stdout, done.stderr)
        assert "AssertionError" not in done.stderr


# --------------------------------------------------------------------------------------- what was meant


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["evaluate", "x"], "hsi-se eval"),
        (["reprot", "x"], "hsi-se report"),
        (["inspect", "x"], "hsi-se scene inspect"),
        (["scene", "lst"], "hsi-se scene list"),
        (["--verson"], "--version"),
        (["train", DEMO, "--sett", "a=b"], "--set"),
        (["train", DEMO, "--seed", "1"], "--seeds"),
        (["train", DEMO, "--run", "x"], "--out"),
        (["train", "--resume", "x"], "hsi-se resume RUN"),
        (["train", DEMO, "--epochs", "3"], "--set train.epochs=…"),
        (["train", DEMO, "--batch-size=3"], "--set train.batch_size=…"),
        (["split", DEMO, "--png", "x.png"], "--out FILE.png"),
        (["eval", "x", "--gpu"], "--device cuda"),
        (["scene", "fetch", "salinas-a", "--to", "x"], "--out"),
        (["fly"], None),
        (["train", DEMO, "--zzz"], None),
        (["watch", "x", "--run"], None),
    ],
)
def test_a_misspelt_command_or_option_is_answered_with_the_one_that_was_meant(call, arguments, hint):
    code, out, err = call(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert ": unknown " in err
    assert (f"; did you mean `{hint}`? see `hsi-se" in err) if hint else ("did you mean" not in err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", DEMO, "--device", "gpu"], "--device gpu: did you mean 'cuda'? choose from auto, cpu, cuda"),
        (["train", DEMO, "--device", "CUDA"], "--device CUDA: did you mean 'cuda'? choose from auto, cpu, cuda"),
        (["train", DEMO, "--device", "nan"], "--device nan: choose from auto, cpu, cuda"),
        (["map", "x", "--engine", "patch"], "--engine patch: did you mean 'patches'? choose from dense, patches"),
        (["export", "x", "--format", "onx"], "--format onx: did you mean 'onnx'? choose from onnx, torch"),
        (["report", "x", "--figures", "jpg"], "--figures jpg: did you mean 'png'? choose from png, pdf, svg"),
        (["report", "x", "--figures", "folder"], "--figures folder: choose from png, pdf, svg"),
    ],
)
def test_a_wrong_choice_is_one_line_that_ends_in_the_choices(call, arguments, message):
    assert call(*arguments) == (2, "", f"hsi-se: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", DEMO, "--out", ""], "--out:"), (["train", DEMO, "--set", " "], "--set:"),
        (["train", DEMO, "--data="], "--data:"), (["eval", ""], "an argument"),
        (["map", "x", "--scene", ""], "--scene:"), (["ablate", "x", "--workers", ""], "--workers:"),
    ],
)  # fmt: skip
def test_an_empty_word_is_named(call, arguments, named):
    assert call(*arguments) == (2, "", f"hsi-se: {named} is empty; give it a value or leave it out\n")


@pytest.mark.parametrize(
    "words",
    [["train", DEMO], ["resume", "x"], ["eval", "x"], ["map", "x"], ["explain", "x"], ["ablate", DEMO]],
    ids=str,
)
def test_a_data_folder_that_is_none_is_refused_by_every_command(call, tmp_path, words):
    (tmp_path / "file").touch()
    remedy = "give the folder that contains the scenes\n"
    for name, problem in (("file", "is a file"), ("nan", "no such folder")):
        message = f"hsi-se: --data {tmp_path / name}: {problem}; {remedy}"
        assert call(*words, "--data", tmp_path / name) == (2, "", message)


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        *((wrong, "hsi-se ablate: invalid value for '--workers': write a whole number;") for wrong in ("nan", "1.5")),
        *((wrong, f"hsi-se: --workers {wrong}: use 1 to 1024") for wrong in ("0", "-1", "100000000")),
    ],
)
def test_workers_that_cannot_be_started_are_refused(call, tmp_path, workers, message):
    file = ROOT / "configs" / "ablations" / "placement.yaml"
    code, out, err = call("ablate", file, "--out", tmp_path / "out", "--workers", workers)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(message)


def test_a_config_and_an_ablation_are_told_apart(call):
    ablation = ROOT / "configs" / "ablations" / "placement.yaml"
    assert call("train", ablation)[2] == (
        f"hsi-se: {ablation}: is an ablation, not a config; run it with `hsi-se ablate {ablation}`\n"
    )
    assert call("ablate", DEMO)[2] == (
        f"hsi-se: {DEMO}: is a config, not an ablation; train it with `hsi-se train {DEMO}`, or name it as "
        "base: in an ablation\n"
    )


# ------------------------------------------------------------------------------------ prose and tables

SENTENCE = "The network is worse than the location floor, so nothing has been shown about the use of its spectra."


def test_prose_on_a_terminal_breaks_between_words_and_keeps_long_paths_whole():
    stream = StringIO()
    path = "/a/folder/" + 60 * "x"
    print_prose(Console(file=stream, force_terminal=True, width=40, color_system=None), f"{SENTENCE} {path}")
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in stream.getvalue().splitlines()]
    assert " ".join(lines) == f"{SENTENCE} {path}"
    assert len(lines) > 3
    assert all(len(line) <= 40 for line in lines if line != path)


def test_redirected_prose_is_one_line_and_plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = StringIO()
    print_prose(Console(file=stream), SENTENCE, style="bold")
    assert stream.getvalue() == f"{SENTENCE}\n"


def test_the_verdict_stands_out_on_a_terminal_and_mistakes_break_between_words(call, tmp_path):
    options = [part for override in TINY for part in ("--set", override)]
    run = tmp_path / "run"
    assert call("train", DEMO, *options, "--set", "train.epochs=1", "--out", run)[0] == 0
    assert call("eval", run)[0] == 0
    verdict = RunFolder(run).read_report().verdict
    screen = on_terminal("eval", str(run))
    finding = describe_finding(RunFolder(run).read_report(), RunFolder(run).read_config())
    first = " ".join(finding.split()[:4])
    assert re.search(rf"\x1b\[1;3[123]m{re.escape(first)}", screen)
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in screen.splitlines()]
    assert " ".join(verdict.split()) in " ".join(plain)
    refusal = on_terminal("train", DEMO, "--set", "train.lr=1").splitlines()
    assert len(refusal) > 1
    assert max(map(len, refusal)) <= 80
    assert " ".join(line.strip() for line in refusal).endswith("checkpoint_every_s")


def on_terminal(*arguments: str) -> str:
    """What a command writes to a terminal of 80 columns."""
    command = "import os, pty, sys\nos.environ.update(TERM='xterm', COLUMNS='80', LINES='30')\npty.spawn(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", command, sys.executable, "-m", "hsi_se", *arguments],
        capture_output=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout.decode().replace("\r", "")


def test_the_list_of_scenes_fits_80_columns_and_says_which_must_be_requested(call):
    code, out, _ = call("scene", "list")
    assert code == 0
    *table, last = out.splitlines()
    assert max(map(len, table)) <= 80
    names = [line.split("  ")[0] for line in table if line[:1].islower() and not line.startswith("name")]
    known = list_known_scenes()
    assert names == [scene.name + ("" if scene.registration is None else " *") for scene in known]
    assert last.startswith("* to be requested from its owners")
    assert "145 × 145 × 200" in out
    assert "400-2500" in out


def test_the_next_command_is_quoted_for_the_shell(call, tmp_path):
    options = [part for override in TINY for part in ("--set", override)]
    run = tmp_path / "my run's"
    code, out, _ = call("train", DEMO, *options, "--set", "train.epochs=1", "--out", run)
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("next: "))
    assert shlex.split(line.removeprefix("next: ")) == ["hsi-se", "eval", str(run)]
    resume = RunFolder(run).how_to_resume.split("`")[1]
    assert shlex.split(resume) == ["hsi-se", "resume", str(run)]
