"""An ablation file: what it expands to, and every mistake in it where it was written."""

import itertools
import re

import pytest
import torch

from hsi_se.ablation.file import Ablation, load_ablation
from hsi_se.errors import ConfigError
from hsi_se.models import build_model
from hsi_se.sampling.splits import make_split
from hsi_se.scene.loading import load_ground_truth
from tests.conftest import ROOT

SHIPPED = sorted((ROOT / "configs" / "ablations").glob("*.yaml"))
HEAD = f"base: {ROOT / 'configs' / 'demo.yaml'}\nseeds: 0-1\n"
PAIR = "variants:\n  none: {model.attention: {}}\n  se: {model.attention: {fold: {kind: se}}}\n"


@pytest.fixture
def load(tmp_path):
    def load(text: str, *overrides: str) -> Ablation:
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return load_ablation(path, overrides)

    return load


def test_every_variant_meets_every_seed_under_the_bases_settings(load):
    ablation = load(HEAD + "set: {patch.size: 9, train: {epochs: 3}}\n" + PAIR)
    assert [(run.variant, run.seed) for run in ablation.runs] == [("none", 0), ("se", 0), ("none", 1), ("se", 1)]
    for run in ablation.runs:
        assert run.config.seed == run.seed
        assert (run.config.patch.size, run.config.train.epochs) == (9, 3)
        assert set(run.config.model.attention) == ({"fold"} if run.variant == "se" else set())
    assert (ablation.name, ablation.baseline, ablation.threads) == ("study", "none", 1)


def test_a_grid_has_every_set_of_points_up_to_its_size_for_every_kind(load):
    grid = "grid: {points: [conv3d_3, fold, conv2d], kinds: [se, eca, cbam], up_to: 2}\n"
    ablation = load(HEAD + grid)
    assert len(ablation.variants) == 1 + 3 * (3 + 3)
    found = {
        (frozenset(run.config.model.attention), frozenset(b.kind for b in run.config.model.attention.values()))
        for run in ablation.runs
    }
    expected = {(frozenset[str](), frozenset[str]())} | {
        (frozenset(points), frozenset([kind]))
        for kind in ("se", "eca", "cbam")
        for size in (1, 2)
        for points in itertools.combinations(("conv3d_3", "fold", "conv2d"), size)
    }
    assert found == expected
    assert load(HEAD + grid + "variants: {wide: {model.width: 2.0}}\nbaseline: wide\n").baseline == "wide"


@pytest.mark.parametrize("split", ["{kind: random, train: 0.2}", "{kind: fields, train: 0.3}"])
def test_all_variants_of_a_seed_share_the_split_and_the_initial_base_weights(load, split):
    small = "scene: {synthetic: 0, rows: 32, cols: 32, bands: 16}, patch.size: 9, reduction.components: 13"
    kinds = "[se, eca, cbam, nonlocal, gather_excite, simam]"
    shared = f"{HEAD}set: {{{small}, split: {split}}}\n"
    ablation = load(f"{shared}grid: {{points: [fold, conv2d], kinds: {kinds}, up_to: 2}}\n")
    for seed, group in itertools.groupby(ablation.runs, key=lambda run: run.seed):
        runs = list(group)
        assert len(runs) == 1 + 6 * 3
        states, digests = [], set()
        for run in runs:
            truth = load_ground_truth(run.config.scene)
            digests.add(make_split(truth, run.config.split, seed=run.config.seed).digest)
            torch.manual_seed(len(states))  # what torch's own generator holds must not matter
            model = build_model(run.config.model, num_bands=13, patch_size=9, num_classes=9, seed=seed)
            states.append(model.state_dict())
        assert len(digests) == 1
        base = states[0]
        assert not any(name.startswith("attention.") for name in base)
        for state in states[1:]:
            assert all(torch.equal(state[name], weight) for name, weight in base.items())


def test_scenes_are_laid_over_the_base_and_each_has_every_run(load):
    scenes = "scenes: {a: {}, b: {scene.synthetic: 1}}\n"
    ablation = load(HEAD + scenes + PAIR)
    assert ablation.scenes == ("a", "b")
    assert {(run.scene, run.config.scene.synthetic) for run in ablation.runs} == {("a", 0), ("b", 1)}
    assert len(ablation.runs) == 8


def test_a_scene_on_the_command_line_is_refused_where_the_file_names_scenes(load):
    with pytest.raises(ConfigError) as caught:
        load(HEAD + PAIR + "scenes:\n  a: {scene.synthetic: 1}\n", "scene={synthetic: 2}")
    problem = "scenes: has no effect with scene=, which takes their place; leave one of them out"
    assert str(caught.value).endswith(f"study.yaml: {problem}")
    load(HEAD + PAIR, "scene={synthetic: 2}")


def test_set_on_the_command_line_lies_under_the_variants(load):
    ablation = load(HEAD + PAIR, "train.epochs=7", "model.attention={conv2d: {kind: eca}}")
    assert {run.config.train.epochs for run in ablation.runs} == {7}
    assert [set(run.config.model.attention) for run in ablation.runs[:2]] == [set(), {"fold"}]


def test_seeds_and_variants_do_not_change_whose_folder_it_is_and_the_base_does(load):
    first = load(HEAD + PAIR)
    more = load(HEAD.replace("0-1", "0-9") + PAIR + "  eca: {model.attention: {fold: {kind: eca}}}\n")
    assert more.digest == first.digest
    assert load(HEAD + PAIR, "train.epochs=7").digest != first.digest
    assert load(HEAD + "threads: 2\n" + PAIR).digest != first.digest


def test_the_accuracy_to_reach_is_a_setting_and_does_not_change_whose_folder_it_is(load):
    first, given = load(HEAD + PAIR), load(HEAD + "reach: 0.95\n" + PAIR)
    assert (first.reach, given.reach) == (None, 0.95)
    assert given.digest == first.digest


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("95", "95: an accuracy is a fraction above 0 and up to 1; write 0.95 for 95 %"),
        ("0", "0: an accuracy is a fraction above 0"),
        ("high", "'high': write a number"),
    ],
)
def test_an_accuracy_to_reach_that_is_no_fraction_is_refused(load, value, message):
    with pytest.raises(ConfigError, match=rf"study\.yaml:3:1: reach = {message}"):
        load(f"{HEAD}reach: {value}\n{PAIR}")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_ablation_opens_with_its_purpose_what_to_expect_and_its_command(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert comment[0].startswith(f"# configs/ablations/{path.name}: ")
    assert any("Expect" in line for line in comment)
    assert any(f"hsi-se ablate configs/ablations/{path.name}" in line for line in comment)
    assert load_ablation(path).runs


def test_the_placement_ablation_has_each_point_alone_the_papers_pair_and_all():
    runs = load_ablation(ROOT / "configs" / "ablations" / "placement.yaml").runs
    points = ("conv3d_1", "conv3d_2", "conv3d_3", "fold", "conv2d")
    expected = [set(), *({point} for point in points), {"fold", "conv2d"}, set(points)]
    for seed in range(5):
        assert [set(run.config.model.attention) for run in runs if run.seed == seed] == expected


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (HEAD + PAIR + "  x: {model.atention: {}}\n", "6:7", "variants.x: model.atention.*did you mean 'attention'"),
        (HEAD + PAIR + "  x: {model.attention: {foldd: {kind: se}}}\n", "6:25", "variants.x: .*foldd: unknown point"),
        (HEAD + PAIR + "  x:\n    model.attention:\n      fold: {kind: see}\n", "8:14", "variants.x: .*choose from"),
        (HEAD + PAIR + "  x: {nonsense: 1}\n", "6:7", "variants.x: nonsense.*unknown setting"),
        (HEAD + PAIR + "  x: {model.attention: {conv3d_1: {kind: coordinate}}}\n", "6:36", "variants.x: .*spectral"),
        (HEAD + PAIR + "  x: {model.attention: {}}\n", "6:3", "variants.x: has the same settings as none"),
        (HEAD + PAIR + "  x: {split.train: 0.2}\n", "6:7", "variants.x: changes split, which all variants"),
        (HEAD + PAIR + "  x: {seed: 3}\n", "6:7", "variants.x: seed: has no effect; write seeds: in the "),
        (HEAD + "set: {seed: 3}\n" + PAIR, "3:7", "set: seed: has no effect; write seeds: in the "),
        (HEAD + PAIR + "  x: {name: y}\n", "6:7", "variants.x: name: has no effect; a run has the name "),
        (HEAD + PAIR + "  x: {scene.synthetic: 3}\n", "6:7", "variants.x: changes scene"),
        (HEAD + PAIR + "  x: 3\n", "6:3", "variants.x = 3: should be a section"),
        (HEAD + PAIR + "  ../x: {model.width: 2}\n", "6:3", r"variants.\.\./x"),
        (HEAD + PAIR + "set: {train.epochs: none}\n", "6:7", "set: train.epochs = 'none'"),
        (HEAD + PAIR + "scenes: {a: {}, b: {scene.rows: 3}}\n", "6:21", "scenes.b: scene.rows = 3"),
        (HEAD + PAIR + "baseline: nome\n", "6:1", "did you mean 'none'"),
        (HEAD + PAIR + "threads: 0\n", "6:1", "threads = 0"),
        (HEAD + PAIR + "threads: 1000\n", "6:1", "threads = 1000: must be at most 256"),
        (HEAD + PAIR + "set: {.epochs: 1}\n", "6:7", r"set: \.epochs: write a dotted key"),
        (
            HEAD + PAIR + "  x: {reduction.kind: none}\n",
            "6:7",
            r"variants.x: reduction.*; or replace the section: reduction: \{kind: none\}",
        ),
        (HEAD + PAIR + "wariants: {}\n", "6:1", "did you mean 'variants'"),
        (HEAD + "grid: {points: [fold], kinds: [see]}\n", "3:1", "grid: fold see: model.attention.fold"),
        (
            HEAD + "grid: {points: [conv3d_1], kinds: [coordinate]}\n",
            "3:1",
            "grid: conv3d_1 coordinate: .*spectral axis",
        ),
        (HEAD + "variants: {none: {}}\n", "3:1", "give at least two variants"),
        (HEAD.replace("0-1", "3-1") + PAIR, "2:1", "seeds = '3-1': 3-1 contains 0 seeds"),
        (HEAD.replace("0-1", "[1, 1]") + PAIR, "2:1", "names a seed twice"),
        (HEAD.replace("0-1", "[-1]") + PAIR, "2:1", "must be at least 0"),
        (HEAD.replace("demo.yaml", "dem.yaml") + PAIR, "1:1", "no such config beside this file"),
        ("seeds: 0-1\n" + PAIR, "1:1", "base: is missing"),
        ("- a\n", "1:1", "contains no settings"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(load, tmp_path, text, place, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(text)
    assert str(error.value).startswith(f"{tmp_path / 'study.yaml'}:{place}: ")
    assert "\n" not in str(error.value)


def test_a_mistake_in_the_base_is_placed_in_the_base(load, tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text((ROOT / "configs" / "demo.yaml").read_text().replace("size: 11", "size: 12"))
    with pytest.raises(ConfigError, match=re.escape(f"{base}:9:9: patch.size = 12")):
        load("base: base.yaml\nseeds: 0\n" + PAIR)


def test_a_mistake_in_set_is_named_as_such(load):
    with pytest.raises(ConfigError, match=r"^--set train.epochs=x: train.epochs = 'x'"):
        load(HEAD + PAIR, "train.epochs=x")


def test_a_variant_of_the_users_wins_over_the_grids_of_the_same_name(load):
    found = load(HEAD + "variants: {none: {train.epochs: 5}}\ngrid: {points: [fold], kinds: [se], up_to: 1}\n")
    assert next(iter(found.variants)) == "none"
    assert found.variants["none"] == {"train.epochs": 5}
    assert len(found.variants) == 2
