"""The configs that ship: each says what it is for, loads, runs, and promises what a stored result holds."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hsi_se
from benchmarks.summarize_runs import list_settings
from hsi_se.ablation.file import load_ablation
from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.statistics import summarize
from tests.conftest import CPU, ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
ABLATIONS = sorted((ROOT / "configs" / "ablations").glob("*.yaml"))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
NAMES = {
    "demo",
    "indian_pines",
    "indian_pines_se",
    "indian_pines_se_50",
    "indian_pines_se_fixed",
    "indian_pines_new_ground",
    "indian_pines_demo",
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


# ------------------------------------------------------------------- promises and stored results
#
# A result belongs to a config if all settings that it was made with are those of the config. A setting that
# did not exist at the time must have its default, which leaves results as they were. A digest of the whole
# config would change with every new setting.

KEYS = {
    "OA": "overall_accuracy",
    "AA": "average_accuracy",
    "location floor": "location_floor",
    "SVM on single pixels": "spectral_baseline",  # until the baseline was the best of several classifiers
    "spectral baseline": "spectral_baseline",
}
PROMISE = re.compile(rf"(?P<what>{'|'.join(KEYS)})(?: is| reaches)? (?P<mean>[\d.]+)(?: ± (?P<spread>[\d.]+))? %")
SEEDS = re.compile(r"\(seeds (\d+)-(\d+)\)")
TIME = re.compile(r"(?P<amount>\d+) (?P<unit>second|minute)s? on one core")


def read_promise(path: Path) -> str:
    """The text of a config's head from "Expect" to the command."""
    text = path.read_text(encoding="utf-8").partition("# Expect")[2].partition("#   hsi-se ")[0]
    return " ".join(text.replace("#", " ").split())


def find_difference(made_with: dict[str, Any], config: Config) -> str:
    """Names a setting of a config that a result was not made with; empty if there is none."""
    current, changed = list_settings(config), list_settings(config, only_changed=True)
    wrong = [key for key, value in made_with.items() if current.get(key, "-") != value]
    return ", ".join([*wrong, *(changed.keys() - made_with.keys())])


@dataclass
class Stored:
    """The runs of all stored results that were made with a config."""

    files: list[str]
    runs: list[dict[str, Any]]


def list_variants() -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Yields file, settings and runs of each variant in the results that know their settings."""
    for path in RESULTS:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "settings" in content and "variants" in content:
            for variant in content["variants"].values():
                settings = {**content["settings"], **variant["differs"]}
                yield path.name, settings, variant["runs"]


def find_stored(config: Config) -> Stored:
    found = [(file, runs) for file, settings, runs in list_variants() if not find_difference(settings, config)]
    return Stored(sorted({file for file, _ in found}), [run for _, runs in found for run in runs])


def check_promise(promise: str, stored: Stored, *, seed: int) -> None:
    assert len(stored.files) == 1, f"one file holds the result, not {stored.files}"
    seeds = SEEDS.search(promise)
    first, last = (seed, seed) if seeds is None else map(int, seeds.groups())
    assert sorted(run["seed"] for run in stored.runs) == list(range(first, last + 1))
    promised = list(PROMISE.finditer(promise))
    assert {KEYS[match["what"]] for match in promised} == set(KEYS.values())
    assert len(promised) == promise.count(" %"), "a percentage that no result is compared with"
    for match in promised:
        summary = summarize([run[KEYS[match["what"]]] for run in stored.runs])
        decimals = len(match["mean"].partition(".")[2])
        assert match["mean"] == f"{100 * summary.mean:.{decimals}f}", match["what"]
        if match["spread"] is not None:
            assert match["spread"] == f"{100 * summary.std:.{decimals}f}", match["what"]
        elif seeds is not None and match["what"] in ("OA", "AA"):
            raise AssertionError("a mean over seeds without its spread")
    if "Every test patch contains training pixels" in promise:
        assert {run["test_patches_with_train_pixels"] for run in stored.runs} == {1.0}
    for count in re.findall(r"(\d+) training pixels", promise):
        assert {run["num_train"] for run in stored.runs} == {int(count)}
    time = TIME.search(promise)
    assert time is not None, "no time, as in `2 minutes on one core`"
    seconds = int(time["amount"]) * (60 if time["unit"] == "minute" else 1)
    assert 0.5 <= seconds / summarize([run["training_s"] for run in stored.runs]).mean <= 2


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_promises_what_a_stored_result_of_its_own_settings_says(path):
    config = load_config(path)
    check_promise(read_promise(path), find_stored(config), seed=config.seed)


@pytest.mark.parametrize(
    "change",
    ["train.learning_rate=1e-3", "patch.size=9", "model.attention={}", "prediction.symmetries=true",
     "model.width=0.5", "split.validation=0.2"],
)  # fmt: skip
def test_a_changed_config_has_no_stored_result(change):
    assert find_stored(load_config(ROOT / "configs" / "demo.yaml")).files == ["demo.json"]
    assert find_stored(load_config(ROOT / "configs" / "demo.yaml", [change])).files == []


@pytest.mark.parametrize("setting", ["train.noise", "prediction.symmetries", "model.pool"])
def test_a_setting_that_a_result_does_not_know_must_have_its_default(setting):
    changed = {
        "train.noise": "0.5", "prediction.symmetries": "true", "model.pool": "mean",
    }  # fmt: skip
    config = load_config(ROOT / "configs" / "demo.yaml")
    older = {key: value for key, value in list_settings(config).items() if key != setting}
    assert find_difference(older, config) == ""
    other = load_config(ROOT / "configs" / "demo.yaml", [f"{setting}={changed[setting]}"])
    assert find_difference(older, other) == setting


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (r"OA (\d\d)", "OA 1"), ("floor is [0-9.]+", "floor is 1.0"), (r"\(seeds 0-9\)", ""),
        ("± 0.2", "± 0.9"), (r"\d+ minutes? on", "50 minutes on"), ("695", "696"),
        (", AA 99.0 ± 0.1 %", ""), ("AA 99.0", "kappa 99.0"),
    ],
)  # fmt: skip
def test_a_promise_that_no_result_holds_is_noticed(right, wrong):
    path = ROOT / "configs" / "indian_pines_mnf20_se.yaml"
    promise = read_promise(path)
    changed = re.sub(right, wrong, promise, count=1)
    assert changed != promise
    with pytest.raises(AssertionError):
        check_promise(changed, find_stored(load_config(path)), seed=0)


# ----------------------------------------------------------------------------------- ablations

OF_ABLATION = {
    "placement": "placement.json",
    "conv2d": "placement_conv2d.json",
    "new_ground": "new_ground.json",
    "indian_pines_reduction": "indian_pines_reduction.json",
    "field_networks": "field_networks.json",
}


def read_ablation(name: str) -> dict[str, Any]:
    text = (ROOT / "benchmarks" / "results" / OF_ABLATION[name]).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_has_a_stored_result_of_its_own_settings_and_as_many_runs_as_it_promises(path):
    stored, ablation = read_ablation(path.stem), load_ablation(path)
    assert find_difference(stored["settings"], ablation.runs[0].config) == ""
    (scene,) = stored["scenes"]
    assert {variant["name"]: variant["settings"] for variant in scene["variants"]} == dict(ablation.variants)
    assert {tuple(run["seed"] for run in variant["runs"]) for variant in scene["variants"]} == {ablation.seeds}
    promise = read_promise(path)
    ((count, minutes),) = re.findall(r"(\d+) runs of about (a|\d+) minutes? on one core", promise)
    runs = [run for variant in scene["variants"] for run in variant["runs"]]
    assert len(runs) == int(count) == len(ablation.runs)
    expected = 60 * int(minutes.replace("a", "1"))
    assert expected / 2 <= summarize([run["training_s"] for run in runs]).mean <= 2 * expected


def test_the_second_ablation_repeats_the_best_variant_of_the_first_on_new_seeds():
    first, second = read_ablation("placement"), read_ablation("conv2d")
    means = {
        variant["name"]: summarize([run["overall_accuracy"] for run in variant["runs"]]).mean
        for variant in first["scenes"][0]["variants"]
    }
    baseline = means.pop("none")
    assert len(means) == 7
    best = max(means, key=lambda name: means[name])
    assert [variant["name"] for variant in second["scenes"][0]["variants"]] == ["none", best]
    assert means[best] > baseline
    assert not set(first["seeds"]) & set(second["seeds"])


# ------------------------------------------------------------------------------------------ runs


@pytest.mark.slow
@pytest.mark.usefixtures("quick_baseline")
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
        small.append("patch.size=11")
    run = hsi_se.train(load_config(path, small), out=tmp_path / "run", session=CPU)
    assert hsi_se.evaluate(run).num_test > 0
    assert not any("the loss jumped" in note for note in run.read_record().notes)
