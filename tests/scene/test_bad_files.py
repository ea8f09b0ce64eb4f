"""Damaged files: every one loads, or ends in one line, within ten seconds and a gigabyte.

`make test` opens 300 of them, `make exhaustive` all 2,100.
"""

import subprocess
import sys

import pytest

from hsi_se.cli.main import main
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from tests.conftest import ROOT
from tests.scene.bad_files import CONFIG, LIMIT_S, count_outcomes, open_corpus, write_originals
from tests.scene.damaged_content import KINDS, make_bad


@pytest.mark.parametrize(
    "num_files",
    [pytest.param(300, marks=pytest.mark.slow), pytest.param(2100, marks=[pytest.mark.slow, pytest.mark.exhaustive])],
)
def test_every_damaged_file_loads_or_ends_in_one_line(tmp_path, num_files):
    answers = list(open_corpus(-(-num_files // len(KINDS)), tmp_path))
    counts = count_outcomes(answers)
    assert sum(sum(outcomes.values()) for outcomes in counts.values()) >= num_files
    wrong = [answer for answer in answers if answer["outcome"] not in ("loaded", "refused")]
    assert not wrong, wrong[:5]
    assert max(float(str(answer["seconds"])) for answer in answers) < LIMIT_S
    for kind, outcomes in counts.items():
        assert outcomes["refused"] > 0.3 * sum(outcomes.values()), (kind, outcomes)
    assert sum(outcomes.get("loaded", 0) for outcomes in counts.values()) > num_files / 20


def test_the_corpus_is_the_same_each_time(tmp_path):
    write_originals(tmp_path)
    for kind in KINDS:
        assert make_bad(kind, 7, tmp_path) == make_bad(kind, 7, tmp_path)
    assert len({make_bad("mat-v5", index, tmp_path) for index in range(50)}) > 45


@pytest.mark.slow
def test_the_workers_notice_a_traceback_and_a_death(tmp_path):
    """So that the corpus can fail."""
    code = (
        "import os, sys, tests.scene.bad_files as bad\n"
        "from pathlib import Path\n"
        "originals = Path(sys.argv[1])\n"
        "good = bad.open_bad\n"
        "def broken(kind, content, folder):\n"
        "    good(kind, (originals / kind).read_bytes(), folder)\n"
        "    if content == bad.make_bad('npy', 1, originals): raise KeyError('ours')\n"
        "    if content == bad.make_bad('npy', 2, originals): os.abort()\n"
        "bad.open_bad = broken\n"
        "bad.work(originals, Path(sys.argv[2]))\n"
    )
    (tmp_path / "originals").mkdir()
    write_originals(tmp_path / "originals")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "originals", tmp_path / "home"],
        input="npy 1\nnpy 2\nnpy 3\n", capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    ready, first = done.stdout.splitlines()
    assert ready == "ready"
    assert '"outcome": "traceback"' in first
    assert "ours" in first
    assert done.returncode != 0


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("bcdefg", "cdefgh", strict=True)
        ),
        "scene: &self [*self]\n",
        "{" * 100_000,
        "[" * 1000,
        "seed: " + "9" * 5000 + "\n" + CONFIG,
        "x" * 200_000,
    ],
    ids=["aliases", "itself", "braces", "brackets", "digits", "long"],
)
def test_a_config_that_would_exhaust_the_machine_is_one_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_memory_that_is_not_there_is_one_line(monkeypatch, capsys):
    def exhaust(**_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("hsi_se.cli.main.app", exhaust)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("hsi-se: out of memory; use a smaller scene, patch or batch")
