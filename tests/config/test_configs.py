"""The configs that ship: each says what it is for, loads, and runs."""

import pytest

import hsi_se
from hsi_se.config.yaml_file import load_config
from tests.conftest import CPU, ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NAMES = {
    "demo",
    "indian_pines",
    "indian_pines_se",
    "indian_pines_2d_first",
    "indian_pines_mnf20_se",
    "indian_pines_mnf20_se_random10",
    "indian_pines_mnf20_se_random30",
    "salinas_a_se",
}


def test_the_promised_configs_ship():
    assert {path.stem for path in CONFIGS} >= NAMES


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_its_purpose_what_to_expect_and_its_command(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert comment[0].startswith(f"# configs/{path.name}: ")
    assert any("Expect" in line for line in comment)
    assert any(f"hsi-se train configs/{path.name}" in line for line in comment)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_runs_for_an_epoch_on_a_small_scene(path, tmp_path):
    small = [
        "scene={synthetic: 0, rows: 24, cols: 24, bands: 32}",
        "split={kind: random, train: 0.1, validation: 0}",  # masks are of another scene
        "train.epochs=1",
        "train.batch_size=16",
    ]
    config = load_config(path, small)
    if config.patch.size > 11:
        small.append("patch.size=11")  # the 2-D-first network at 25 is 123 M parameters
    run = hsi_se.train(load_config(path, small), out=tmp_path / "run", session=CPU)
    assert hsi_se.evaluate(run).num_test > 0
