"""The tables of networks in the results page are those of their files."""

import json
import re

import pytest
from pydantic import TypeAdapter

from benchmarks import network_costs
from hsi_se.config.model import ModelSettings
from hsi_se.config.yaml_file import load_config
from hsi_se.evaluation.statistics import summarize
from hsi_se.models import build_model
from hsi_se.models.cost import count_macs, count_parameters
from tests.conftest import ROOT
from tests.docs.pages import read

RESULTS = read(ROOT / "docs" / "results.md")
PAGE = RESULTS.partition("## Networks and blocks")[2].partition("\n## ")[0]
LINES = [line for line in PAGE.splitlines() if line.startswith("|")]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES[2:]]
STORED = json.loads(read(ROOT / "benchmarks" / "results" / "networks_fixed.json"))["variants"]


def test_every_stored_network_has_a_row():
    assert sorted(row[0].replace("`", "") for row in ROWS) == sorted(STORED)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_gives_the_means_and_spreads_of_its_runs(row):
    variant = STORED[row[0].replace("`", "")]
    assert int(row[1]) == variant["n"] == len(variant["seeds"])
    for cell, measure in zip(row[2:5], ("overall_accuracy", "average_accuracy", "kappa"), strict=True):
        summary = summarize([100 * value for value in variant[measure]])
        assert cell == f"{summary.mean:.2f} ± {summary.std:.2f}"
        assert summary.n == variant["n"]
    parameters, macs = variant["num_parameters"], variant["macs_per_patch"]
    assert row[5] == ("–" if parameters is None else f"{parameters:,}")
    assert row[6] == ("–" if macs is None else f"{macs / 1e6:.1f}")


@pytest.mark.parametrize("name", [name for name, each in STORED.items() if each["macs_per_patch"]])
def test_stored_sizes_and_costs_are_those_of_the_network(name):
    changes = re.split(r" (?=\w+\.\w+=)", STORED[name]["model"])
    config = load_config(ROOT / "configs" / "indian_pines_mnf20_se.yaml", [*changes, "patch.size=15"])
    network = build_model(config.model, num_bands=20, patch_size=15, num_classes=16, seed=0)
    assert STORED[name]["num_parameters"] == count_parameters(network)
    assert STORED[name]["macs_per_patch"] == count_macs(network)


MEASURES = (
    "overall_accuracy", "unsmoothed_overall_accuracy", "average_accuracy", "kappa", "location_floor",
    "spectral_baseline",
)  # fmt: skip
FROM_BANDS = {
    "10 % at random, one split per seed": "indian_pines_se",
    "50 pixels a class at random, half of smaller classes": "indian_pines_se_50",
    "fixed split of the literature, 695 training pixels": "indian_pines_se_fixed",
}


@pytest.mark.parametrize(("split", "name"), FROM_BANDS.items())
def test_a_row_of_the_200_bands_gives_the_means_of_its_ten_runs(split, name):
    table = RESULTS.partition("## Indian Pines\n")[2].partition("\n### ")[0]
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {split} |")]
    _, count, *cells = [cell.strip() for cell in line.strip("|").split("|")]
    runs = next(iter(json.loads(read(ROOT / "benchmarks" / "results" / f"{name}.json"))["variants"].values()))["runs"]
    assert int(count) == len(runs) == 10
    for cell, measure in zip(cells, MEASURES, strict=True):
        summary = summarize([100 * run[measure] for run in runs])
        assert cell == f"{summary.mean:.2f}" + (f" ± {summary.std:.2f}" if summary.std > 1e-9 else "")


def test_the_runs_on_200_bands_are_those_of_their_files():
    row = r"\| `configs/(indian_pines\w*)\.yaml` \| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|"
    rows = re.findall(row, RESULTS)
    assert [row[0] for row in rows] == ["indian_pines", "indian_pines_2d_first"]
    for name, patch_size, epochs, *accuracies in rows:
        stored = json.loads(read(ROOT / "benchmarks" / "results" / f"{name}.json"))
        run = next(iter(stored["variants"].values()))["runs"][0]
        assert stored["settings"]["patch.size"] == int(patch_size)
        assert stored["settings"]["train.epochs"] == int(epochs)
        expected = [f"{100 * run[measure]:.1f}" for measure in ("overall_accuracy", "average_accuracy")]
        assert accuracies == expected
        assert f"{100 * run['location_floor']:.1f} %" in RESULTS


def test_the_orders_are_compared_over_the_same_five_seeds():
    one, other = STORED["HybridSN"], STORED["HybridSN, 2-D first, mean pooling"]
    assert one["seeds"] == other["seeds"] == [0, 1, 2, 3, 4]
    pairs = zip(other["overall_accuracy"], one["overall_accuracy"], strict=True)
    gain = summarize([100 * (new - old) for new, old in pairs])
    pattern = r"([−+\d.]+) points \(95 % interval over five seeds ([−+\d.]+) to ([−+\d.]+)\)"
    (said,) = re.findall(pattern, " ".join(PAGE.split()))
    assert [float(value.replace("−", "-")) for value in said] == pytest.approx(
        [gain.mean, gain.low, gain.high], abs=0.005
    )
    assert gain.low > -0.5  # the 2-D convolution first is not worse


def test_the_speed_ups_of_the_other_networks_are_those_measured():
    stored = json.loads((ROOT / "benchmarks/results/dense_map_networks.json").read_text())["results"]
    page = (ROOT / "docs/results.md").read_text()
    for result in stored:
        case, ratio = result["case"], result["ratio"]
        attention = ", ".join(f"`se` at `{point}`" for point in case["attention"]) or "none"
        scene = f"{case['rows']} × {case['cols']} × {case['bands']}"
        speed = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
        assert f"| `{case['network']}` | {attention} | {scene} | {speed} times |" in page
        assert ratio > case["least"]
        assert result["logit_difference"] < 1e-6
    assert len(stored) == 9


def test_the_reading_without_patches_is_what_was_measured():
    stored = json.loads((ROOT / "benchmarks/results/patch_free.json").read_text())
    text = " ".join(RESULTS.split())
    first, second, third = (f"{100 * share:.1f}" for share in stored["exact_share_of_macs"].values())
    assert list(stored["exact_share_of_macs"]) == ["se_resnet", "res2net", "se_inception"]
    assert f"have only {first}, {second} and {third} % of the MACs of a patch with 13 × 13 pixels" in text
    before, after = (f"{100 * stored['overall_accuracy'][each]:.1f}" for each in ("patches", "patch_free"))
    assert f"OA falls from {before} to {after} %" in text
    assert f"{100 * stored['same_class']:.1f} % of the pixels get the same class" in text
    assert f"that is {stored['ratio']:.1f} times as fast" in text
    assert (stored["network"], stored["patch_size"]) == ("se_resnet", 13)


def test_the_row_of_the_enmap_tiles_gives_the_means_of_its_draws():
    (line,) = [line for line in RESULTS.splitlines() if line.startswith("| SVM on 218 bands |")]
    _, count, *cells = [cell.strip() for cell in line.strip("|").split("|")]
    runs = json.loads(read(ROOT / "benchmarks" / "results" / "enmap_points.json"))["variants"]["SVM on bands"]["runs"]
    assert int(count) == len(runs)
    for cell, measure in zip(cells, [name for name in MEASURES if not name.startswith("unsmoothed")], strict=True):
        summary = summarize([100 * run[measure] for run in runs])
        assert cell == f"{summary.mean:.2f} ± {summary.std:.2f}"


def show(values: list[float]) -> str:
    summary = summarize([100 * value for value in values])
    return f"{summary.mean:.2f}" + (f" ± {summary.std:.2f}" if summary.n > 1 else "")


def test_the_table_of_the_fields_networks_is_that_of_its_files():
    stored, costs = (
        json.loads(read(ROOT / "benchmarks" / "results" / f"{name}.json"))
        for name in ("field_networks", "field_network_costs")
    )
    accuracies = ("overall_accuracy", "average_accuracy", "kappa")
    expected = []
    for variant in stored["scenes"][0]["variants"]:
        runs, cost = variant["runs"], costs["networks"][variant["name"]]
        assert (variant["num_parameters"], variant["macs_per_patch"]) == (cost["parameters"], cost["macs_per_patch"])
        cells = [variant["name"], str(len(runs)), *(show([run[key] for run in runs]) for key in accuracies)]
        cells += [f"{cost['parameters']:,}", f"{cost['macs_per_patch'] / 1e6:.1f}"]
        expected.append([*cells, f"{cost['training_ms_per_patch']:.1f}"])
    for name in ("location_floor", "spectral_baseline"):  # the same for all networks
        cells = [name.replace("_", " "), str(len(runs))]
        cells += [show([run[name][key] for run in runs]) for key in accuracies]
        expected.append([*cells, "", "", ""])
    section = RESULTS.partition("## The field's networks\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]] == expected


def test_the_costs_of_the_fields_networks_are_those_of_the_networks_themselves():
    costs = json.loads(read(ROOT / "benchmarks" / "results" / "field_network_costs.json"))
    for name, settings in network_costs.FIELD.items():
        sizes = {key: costs[key] for key in ("num_bands", "patch_size", "num_classes")}
        network = build_model(TypeAdapter(ModelSettings).validate_python(settings), **sizes)
        assert costs["networks"][name]["parameters"] == count_parameters(network)
        assert costs["networks"][name]["macs_per_patch"] == count_macs(network)
