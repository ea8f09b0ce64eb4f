"""The exported splits of Indian Pines: whoever replays one has the digest by which `hsi-se split` knows it."""

import re

import numpy as np
import pytest

from benchmarks.export_splits import KNOWN as KNOWN_FILE
from benchmarks.export_splits import SPLITS, export
from hsi_se.config.yaml_file import load_config
from hsi_se.system.files import read_facts
from hsi_se.workflows.preview import audit_config
from tests.conftest import REAL_SCENES, ROOT, needs_real_scenes

KNOWN = read_facts("hsi_se.sampling", "known_splits.toml")
BASE = ROOT / "configs" / "indian_pines_new_ground.yaml"


def replay(text: str) -> str:
    """The setting of the split that a known split's description names."""
    found = re.search(r"\(configs/splits/(\S+), (.+)\)", text)
    assert found is not None
    file, key = SPLITS / found[1], found[2]
    if key == "train and test":
        kind = f"kind: masks, train: {file}, train_key: train, test: {file}, test_key: test, validation: 0"
    elif "folds" in found[1]:
        kind = f"kind: folds, by: groups, folds: 5, buffer: 6, groups: {file}, groups_key: {key}, validation: 0"
    else:
        kind = f"kind: masks, partition: {file}, partition_key: {key}"
    return f"split={{{kind}}}"


@needs_real_scenes
@pytest.mark.parametrize(("digest", "text"), KNOWN.items(), ids=lambda value: str(value)[:40])
def test_an_exported_split_has_the_digest_of_its_protocol(digest, text):
    _, audit, _ = audit_config(load_config(BASE, [replay(text)]), data=REAL_SCENES)
    assert audit.digest == digest


@needs_real_scenes
def test_split_says_which_one_it_is(call, tmp_path):
    split = replay(next(iter(KNOWN.values())))
    code, out, _ = call("split", BASE, "--set", split, "--data", REAL_SCENES, "--out", tmp_path / "split.png")
    assert code == 0
    assert "known split: Indian Pines, 10 % at random, seed 0 (configs/splits/" in out


@needs_real_scenes
@pytest.mark.slow
def test_the_files_are_what_the_script_exports():
    files, known = export(REAL_SCENES)
    assert known == KNOWN_FILE.read_text(encoding="utf-8")
    for name, maps in files.items():
        stored = np.load(SPLITS / f"{name}.npz")
        assert {key: value.tobytes() for key, value in stored.items()} == {k: v.tobytes() for k, v in maps.items()}


def test_every_exported_file_is_named():
    named = {name for text in KNOWN.values() for name in re.findall(r"configs/splits/(\S+),", text)}
    assert {path.name for path in SPLITS.iterdir()} == named
