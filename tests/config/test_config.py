"""A config is read as written, and a mistake is reported where it was typed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hsi_se.config import nearest
from hsi_se.config.experiment import Config, NoReduction, PcaReduction
from hsi_se.config.model import HybridSN, SqueezeExcite, list_blocks, list_models
from hsi_se.config.scene import SceneFiles, SyntheticScene
from hsi_se.config.split import PerClass
from hsi_se.config.yaml_file import dump_config, list_settings, load_config
from hsi_se.errors import ConfigError

GOOD = """\
seed: 3
scene: {synthetic: 0, rows: 24, cols: 25, bands: 16}
split: {kind: random, train: 0.1, validation: 0.2}
reduction: {kind: pca, components: 15, whiten: false, fit_on: train}
patch: {size: 11, padding: reflect}
model:
  name: hybridsn
  attention:
    fold: {kind: se, reduction: 8}
train:
  epochs: 40
  learning_rate: 1e-3
"""
SCENE = "{synthetic: 0, rows: 24, cols: 25, bands: 16}"
PCA = "{kind: pca, components: 15, whiten: false, fit_on: train}"
TRAIN_SETTINGS = (
    "epochs, start_from, batch_size, learning_rate, weight_decay, schedule, label_smoothing, flips, shift, noise, "
    "spectral_jitter, band_dropout, vary_by, precision, weight_averaging, norm_statistics, "
    "class_weights, early_stopping, max_minutes, checkpoint_every_s"
)
SECTIONS = "name, seed, scene, split, reduction, patch, model, train, prediction"
POINTS = "conv3d_1, conv3d_2, conv3d_3, fold, conv2d"
FRACTION = "a fraction must lie in (0, 1); write 0.1, or {per_class: 50} for counts"
SECTION = "should be a section; give its settings as a mapping, {…}"
TOO_SHALLOW = "spectral kernels 7, 5 and 3 deep need at least 13; keep more bands, or write model.order: 2d-3d"
OWN = "; for one of your own, add --plugin FILE"
KINDS = ", ".join(repr(block.kind) for block in list_blocks()) + OWN
MODELS = ", ".join(repr(name) for name in list_models()) + OWN
NO_BAND_AXIS = "'band' needs a 3-D point, and this one has no spectral axis; write axis: feature"

Load = Callable[..., Config]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "experiment.yaml"


@pytest.fixture
def load(path: Path) -> Load:
    """Loads a config from text, with overrides."""

    def load_text(text: str = GOOD, *overrides: str) -> Config:
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load_text


@pytest.fixture
def refuse(load: Load) -> Callable[..., str]:
    """Returns the message with which a config is refused; it is one line."""

    def refuse_text(text: str = GOOD, *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse_text


def _change(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} is not once in the good config"
    return GOOD.replace(old, new)


# ------------------------------------------------------------------------------- what is read


def test_good_config_is_read_as_written(load: Load) -> None:
    config = load()
    assert config.seed == 3
    assert config.scene == SyntheticScene(synthetic=0, rows=24, cols=25, bands=16)
    assert (config.split.kind, config.split.train, config.split.validation) == ("random", 0.1, 0.2)
    assert config.reduction == PcaReduction(kind="pca", components=15, whiten=False, fit_on="train")
    assert (config.patch.size, config.patch.padding) == (11, "reflect")
    assert config.model.attention == {"fold": SqueezeExcite(kind="se", reduction=8)}
    assert (config.train.epochs, config.train.learning_rate) == (40, 0.001)


def test_settings_left_out_take_their_documented_defaults(load: Load) -> None:
    config = load(
        "scene: IP\nsplit: {kind: random, train: 0.3}\n"
        "reduction: {kind: pca, components: 30, fit_on: scene}\n"
        "patch: {size: 25}\nmodel: {name: hybridsn}\ntrain: {epochs: 1}\n"
    )
    assert config.seed == 0
    assert config.split.model_dump() == {"kind": "random", "train": 0.3, "validation": 0.05, "seed": None}
    assert isinstance(config.reduction, PcaReduction)
    assert config.reduction.whiten
    assert config.patch.padding == "reflect"
    assert config.model.model_dump(exclude={"name"}) == {
        "order": "3d-2d",
        "width": 1.0,
        "norm": "batch",
        "pool": "none",
        "dropout": 0.4,
        "dense_relu": True,
        "attention": {},
    }
    assert config.train.model_dump(exclude={"epochs"}) == {
        "start_from": None,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "weight_decay": 1e-2,
        "schedule": "one-cycle",
        "label_smoothing": 0.0,
        "flips": True,
        "class_weights": "none",
        "shift": 0,
        "noise": 0.0,
        "spectral_jitter": 0.0,
        "band_dropout": 0.0,
        "vary_by": "patch",
        "checkpoint_every_s": 60.0,
        "precision": "auto",
        "weight_averaging": 0.0,
        "norm_statistics": "train",
        "early_stopping": None,
        "max_minutes": None,
    }


def test_squeeze_excite_defaults_to_the_linear_form_over_features() -> None:
    assert SqueezeExcite(kind="se").model_dump() == {
        "kind": "se",
        "reduction": 16,
        "bias": True,
        "form": "linear",
        "squeeze": "mean",
        "axis": "feature",
        "start": "drawn",
    }


def test_config_without_a_name_takes_the_one_of_its_file(load: Load) -> None:
    assert load().name == "experiment"
    assert load("name: mine\n" + GOOD).name == "mine"


def test_file_name_with_odd_signs_still_makes_a_name(tmp_path: Path) -> None:
    path = tmp_path / "my première (1).yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert load_config(path).name == "my_première__1_"


@pytest.mark.parametrize(
    ("written", "value"), [("1e-3", 0.001), ("1E+0", 1.0), (".5", 0.5), ("0o10", 8.0), ("0x10", 16.0), ("010", 10.0)]
)
def test_numbers_are_read_as_yaml_1_2(load: Load, written: str, value: float) -> None:
    assert load(_change("1e-3", written)).train.learning_rate == value


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "n", "y"])
def test_words_that_yaml_1_1_takes_for_booleans_are_strings(load: Load, word: str) -> None:
    assert load(_change("seed: 3", f"name: {word}")).name == word


def test_scene_may_be_a_name_a_pair_of_files_or_synthetic(load: Load) -> None:
    assert load(_change(SCENE, "indian-pines")).scene == "indian-pines"
    assert load(_change(SCENE, "{cube: a.mat, labels: b.mat}")).scene == SceneFiles(cube="a.mat", labels="b.mat")
    assert isinstance(load().scene, SyntheticScene)


def test_training_share_may_be_a_fraction_or_a_count_per_class(load: Load) -> None:
    assert load().split.train == 0.1
    assert load(_change("train: 0.1", "train: {per_class: 50}")).split.train == PerClass(per_class=50)


def test_no_reduction_stands_for_all_bands(load: Load) -> None:
    assert load(_change(PCA, "{kind: none}")).reduction == NoReduction(kind="none", standardize=True)


@pytest.mark.parametrize("order", ["3d-2d", "2d-3d"])
def test_thirteen_components_and_patch_nine_are_enough_in_either_order(load: Load, order: str) -> None:
    config = load(GOOD, "reduction.components=13", "patch.size=9", f"model.order={order}")
    assert config.model.order == order


def test_band_after_2d_convolutions_may_be_alone(load: Load) -> None:
    assert load(GOOD, "model.order=2d-3d", "reduction.components=1").model.order == "2d-3d"


@pytest.mark.parametrize("point", HybridSN.points_3d)
def test_band_axis_is_accepted_at_a_3d_point(load: Load, point: str) -> None:
    config = load(_change("fold: {kind: se, reduction: 8}", f"{point}: {{kind: se, axis: band}}"))
    assert config.model.attention[point].axis == "band"


# -------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("patch.size=15", _change("size: 11", "size: 15")),
        (" patch.size = 15", _change("size: 11", "size: 15")),
        ("train.learning_rate=3e-4", _change("1e-3", "0.0003")),
        ("model.attention={}", _change("  attention:\n    fold: {kind: se, reduction: 8}\n", "")),
        ("model.attention.fold.reduction=4", _change("reduction: 8", "reduction: 4")),
        ("reduction={kind: none}", _change(PCA, "{kind: none}")),
        ("split.train={per_class: 5}", _change("train: 0.1", "train: {per_class: 5}")),
        ("scene=IP", _change(SCENE, "IP")),
        ("model.attention.conv2d={kind: se}", _change("    fold:", "    conv2d: {kind: se}\n    fold:")),
        ("model.attention.conv2d.kind=se", _change("    fold:", "    conv2d: {kind: se}\n    fold:")),
    ],
)
def test_override_does_what_the_same_edit_of_the_file_does(load: Load, override: str, changed: str) -> None:
    assert load(GOOD, override) == load(changed)
    assert load(GOOD, override) != load()


def test_override_creates_a_section_that_the_file_lacks(load: Load) -> None:
    without_patch = _change("patch: {size: 11, padding: reflect}\n", "")
    assert load(without_patch, "patch.size=11") == load()


def test_later_override_wins(load: Load) -> None:
    assert load(GOOD, "seed=1", "seed=2").seed == 2
    config = load(GOOD, "train.epochs=7", "train={epochs: 5, batch_size: 8}", "train.batch_size=16")
    assert (config.train.epochs, config.train.batch_size) == (5, 16)
    assert config.train.learning_rate == load(GOOD).train.learning_rate


def test_override_may_repair_what_is_wrong_in_the_file(load: Load) -> None:
    assert load(_change("size: 11", "size: 12"), "patch.size=13").patch.size == 13


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("patch.size=12", "patch.size = 12: a patch needs a centre pixel, so its size must be odd; write 11 or 13"),
        ("patch.size=", "patch.size = None: write a whole number"),
        ("patch={size: 4}", "patch.size = 4: a patch needs a centre pixel, so its size must be odd; write 3 or 5"),
        ("patch=11", f"patch = 11: {SECTION}"),
        ("train={batch_size: 8}", "train.epochs: is missing; add it"),
        ("train.epoch=3", f"train.epoch = 3: unknown setting; did you mean 'epochs'? choose from {TRAIN_SETTINGS}"),
        (
            "model.attention.fould={kind: se}",
            f"model.attention.fould: unknown point; did you mean 'fold'? choose from {POINTS}",
        ),
        ("model.attention.conv3d_1.reduction=4", "model.attention.conv3d_1.kind: is missing; add it"),
        ("model.attention.fold.axis=band", f"model.attention.fold.axis = 'band': {NO_BAND_AXIS}"),
        (
            "model.attention.fold.kind=bam",
            f"model.attention.fold.kind = 'bam': did you mean 'cbam'? choose from {KINDS}",
        ),
        ("reduction.components=12", f"reduction.components = 12: {TOO_SHALLOW}"),
        ("train.epochs.first=3", 'train.epochs = 40 is a value, not a section; replace it: --set "train.epochs={…}"'),
        ("patch.size", "write key=value with a dotted key, such as patch.size=15"),
        ("=15", "write key=value with a dotted key, such as patch.size=15"),
        ("patch..size=15", "write key=value with a dotted key, such as patch.size=15"),
    ],
)
def test_mistake_in_an_override_is_reported_as_that_override(
    refuse: Callable[..., str], override: str, problem: str
) -> None:
    assert refuse(GOOD, "seed=5", override, "train.batch_size=64") == f"--set {override}: {problem}"


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.lr=0.1", "train.learning_rate"),
        ("lr=0.1", "train.learning_rate"),
        ("model.lr=0.1", "train.learning_rate"),
        ("train.bs=8", "train.batch_size"),
        ("train.wd=0", "train.weight_decay"),
        ("epochs=3", "train.epochs"),
        ("train.order=2d-3d", "model.order"),
        ("model.components=20", "reduction.components"),
        ("train.n_components=20", "reduction.components"),
        ("model.window_size=9", "patch.size"),
        ("split.random_state=1", "split.seed"),
        ("train.optimizer=adam", None),
        ("model.attention.fold.learning_rate=1", None),
    ],
)
def test_setting_of_another_section_or_another_tools_name_is_answered_with_ours(
    refuse: Callable[..., str], override: str, meant: str | None
) -> None:
    message = refuse(GOOD, override)
    key = override.partition("=")[0]
    assert message.startswith(f"--set {override}: {key} = ")
    assert "unknown setting; " in message
    if meant is None:
        assert "did you mean" not in message
    else:
        assert f"unknown setting; did you mean {meant}? choose from " in message


def test_suggested_setting_is_reported_where_the_file_has_the_other(refuse: Callable[..., str], path: Path) -> None:
    assert refuse(_change("learning_rate: 1e-3", "lr: 1e-3")) == (
        f"{path}:12:3: train.lr = 0.001: unknown setting; did you mean train.learning_rate? "
        f"choose from {TRAIN_SETTINGS}"
    )


def test_every_setting_that_a_hint_names_exists() -> None:
    settings = list_settings(Config)
    assert {"train.learning_rate", "split.train.per_class", "prediction.smoothing.range"} <= set(settings)
    assert set(nearest.read_other_words()["settings"].values()) <= set(settings)


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("reduction.kind=MNF", "mnf"),
        ("reduction.kind=minimum-noise-fraction", "mnf"),
        ("model.name=HybridSN", "hybridsn"),
        ("model.name=hybrid-sn", "hybridsn"),
        ("model.attention.fold.kind=SE", "se"),
        ("train={epochs: 1, schedule: OneCycle}", "one-cycle"),
        ("train={epochs: 1, precision: bf16}", "bfloat16"),
        ("patch.padding=zeros", "zero"),
        ("patch.padding=mirror", None),
    ],
)
def test_misspelt_value_is_answered_with_the_nearest_choice(
    refuse: Callable[..., str], override: str, near: str | None
) -> None:
    message = refuse(GOOD, override)
    assert message.startswith(f"--set {override}: ")
    assert f": did you mean {near!r}? choose from '" in message if near else "did you mean" not in message


def test_override_that_is_no_yaml_is_reported_with_its_column(refuse: Callable[..., str]) -> None:
    message = refuse(GOOD, "patch.size=[1, ]]")
    assert message.startswith("--set patch.size=[1, ]]:1:6: ")
    assert message.endswith("; correct the YAML")


def test_mistake_in_the_file_is_not_blamed_on_an_override(refuse: Callable[..., str], path: Path) -> None:
    text = _change("size: 11", "size: 12")
    assert refuse(text, "patch.padding=zero", "seed=1").startswith(f"{path}:5:9: patch.size = 12: ")


@pytest.mark.parametrize(
    ("override", "problem", "whole"),
    [
        (
            "reduction.kind=none",
            "reduction.components = 15: unknown setting; choose from kind, standardize",
            "reduction={kind: none}",
        ),
        ("model.name=svm", "model.attention: unknown setting; choose from name, penalty, gamma", "model={name: svm}"),
        ("split.kind=masks", "split.train = 0.1: write the name of a file", "split={kind: masks, partition: FILE}"),
        (
            "model.attention.fold.kind=eca",
            "model.attention.fold.reduction = 8: unknown setting; choose from kind, start, axis, kernel_size",
            "model.attention.fold={kind: eca}",
        ),
    ],
)
def test_override_that_changes_a_sections_kind_is_blamed_for_what_no_longer_fits(
    refuse: Callable[..., str], load: Load, override: str, problem: str, whole: str
) -> None:
    assert refuse(GOOD, override) == f'--set {override}: {problem}; or replace the section: --set "{whole}"'
    if "masks" not in whole:  # which need their files too
        load(GOOD, whole)


def test_setting_that_a_new_kind_needs_is_asked_of_the_override(refuse: Callable[..., str]) -> None:
    message = refuse(GOOD.replace(PCA, "{kind: none}"), "reduction.kind=pca")
    assert message == "--set reduction.kind=pca: reduction.components: is missing; add it"


def test_override_that_changes_no_kind_is_not_blamed_for_the_file(refuse: Callable[..., str], path: Path) -> None:
    text = GOOD.replace("whiten", "witen")
    for override in ("reduction.kind=pca", "name=pca", "model.name=svm"):
        assert refuse(text, override).startswith(f"{path}:4:40: reduction.witen = False: unknown setting; ")


def test_files_of_a_synthetic_scene_are_refused_with_the_section_to_write(refuse: Callable[..., str]) -> None:
    assert refuse(GOOD, "scene.cube=a.mat") == (
        "--set scene.cube=a.mat: scene.cube = 'a.mat': a synthetic scene has no files; "
        "write scene: {cube: …, labels: …}"
    )


def test_mistake_in_what_a_section_merges_is_placed_at_the_section(refuse: Callable[..., str], path: Path) -> None:
    text = GOOD.replace("train:\n  epochs: 40\n  learning_rate: 1e-3\n", "train: {<<: {epoch: 1}}\n")
    assert refuse(text).startswith(f"{path}:10:1: train.epoch = 1: unknown setting; did you mean 'epochs'? ")


def test_patch_may_be_shifted_as_far_as_it_holds_its_pixel(refuse: Callable[..., str], load: Load) -> None:
    load(GOOD, "train.shift=5")
    assert refuse(GOOD, "train.shift=6").endswith(
        "train.shift = 6: shifts patches of 11 pixels past their centre pixel; use at most 5"
    )


def test_only_the_override_that_had_the_last_word_is_blamed(refuse: Callable[..., str]) -> None:
    assert refuse(GOOD, "patch.size=12", "patch.size=14").startswith("--set patch.size=14: ")
    assert refuse(GOOD, "patch.size=12", "patch={size: 14}").startswith("--set patch={size: 14}: ")


# ------------------------------------------------------------------------ mistakes in the file


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        # unknown and misspelt
        ("seed: 3", "sede: 3", f"1:1: sede = 3: unknown setting; did you mean 'seed'? choose from {SECTIONS}"),
        ("seed: 3", "7: 3", f"1:1: 7 = 3: unknown setting; choose from {SECTIONS}"),
        (
            "epochs: 40",
            "epoch: 40",
            f"11:3: train.epoch = 40: unknown setting; did you mean 'epochs'? choose from {TRAIN_SETTINGS}",
        ),
        (
            "rows: 24",
            "row: 24",
            "2:23: scene.row = 24: unknown setting; did you mean 'rows'? choose from synthetic, rows, cols, bands",
        ),
        (
            "train: 0.1",
            "train: {perclass: 5}",
            "3:31: split.train.perclass = 5: unknown setting; did you mean 'per_class'? choose from per_class",
        ),
        (
            PCA,
            "{kind: none, components: 15}",
            "4:25: reduction.components = 15: unknown setting; choose from kind, standardize",
        ),
        (
            "reduction: 8}",
            "ratio: 8}",
            "9:22: model.attention.fold.ratio = 8: unknown setting; "
            "choose from kind, start, axis, reduction, bias, form, squeeze",
        ),
        # missing
        ("patch: {size: 11, padding: reflect}\n", "", "1:1: patch: is missing; add it"),
        ("  epochs: 40\n", "", "10:1: train.epochs: is missing; add it"),
        ("train: 0.1, ", "", "3:1: split.train: is missing; add it"),
        ("kind: random, ", "", "3:1: split.kind: is missing; add it"),
        (", fit_on: train", "", "4:1: reduction.fit_on: is missing; add it"),
        ("kind: pca, ", "", "4:1: reduction.kind: is missing; add it"),
        ("{kind: se, reduction: 8}", "{reduction: 8}", "9:5: model.attention.fold.kind: is missing; add it"),
        (SCENE, "{cube: a.mat}", "2:1: scene.labels: is missing; add it"),
        # the wrong type
        ("size: 11", "size: big", "5:9: patch.size = 'big': write a whole number"),
        ("size: 11", "size: 11.5", "5:9: patch.size = 11.5: write a whole number"),
        ("size: 11", "size: [11]", "5:9: patch.size: write a whole number"),
        ("epochs: 40", "epochs:", "11:3: train.epochs = None: write a whole number"),
        ("1e-3", "no", "12:3: train.learning_rate = 'no': write a number"),
        ("{size: 11, padding: reflect}", "11", f"5:1: patch = 11: {SECTION}"),
        ("{kind: se, reduction: 8}", "8", f"9:5: model.attention.fold = 8: {SECTION}"),
        (SCENE, "7", "2:1: scene = 7: write the name of a known scene, or {cube: FILE, labels: FILE}"),
        (
            SCENE,
            "{cube: a.mat, labels: b.mat, class_names: [corn, 1]}",
            "2:37: scene.class_names.1 = 1: write text, in quotes if it looks like a number",
        ),
        # out of range, or no choice
        ("seed: 3", "seed: -1", "1:1: seed = -1: must be at least 0"),
        ("seed: 3", "seed: 9223372036854775808", "1:1: seed = 9223372036854775808: must be below 9223372036854775808"),
        ("rows: 24", "rows: 23", "2:23: scene.rows = 23: must be at least 24"),
        ("validation: 0.2", "validation: 1", "3:35: split.validation = 1: must be below 1"),
        ("epochs: 40", "epochs: 0", "11:3: train.epochs = 0: must be above 0"),
        ("1e-3", "0", "12:3: train.learning_rate = 0: must be above 0"),
        ("1e-3", ".nan", "12:3: train.learning_rate = nan: write a finite number"),
        ("1e-3", ".inf", "12:3: train.learning_rate = inf: write a finite number"),
        (
            "kind: random",
            "kind: block",
            "3:9: split.kind = 'block': did you mean 'blocks'? choose from 'random', 'blocks', 'fields', 'folds', "
            "'images', 'masks', 'all'",
        ),
        ("kind: pca", "kind: lda", "4:13: reduction.kind = 'lda': choose from 'pca', 'mnf', 'none'"),
        (
            "kind: pca",
            "kind: mfn",
            "4:13: reduction.kind = 'mfn': did you mean 'mnf'? choose from 'pca', 'mnf', 'none'",
        ),
        ("padding: reflect", "padding: mirror", "5:19: patch.padding = 'mirror': choose from 'zero', 'reflect'"),
        ("name: hybridsn", "name: resnet", f"7:3: model.name = 'resnet': did you mean 'res2net'? choose from {MODELS}"),
        ("name: hybridsn", "name: hybridsn\n  order: 2d", "8:3: model.order = '2d': choose from '3d-2d', '2d-3d'"),
        ("seed: 3", "name: a/b", "1:1: name = 'a/b': use letters, digits, '.', '_', '+' and '-' only"),
        # a fraction that is none
        *(
            ("train: 0.1", f"train: {written}", f"3:23: split.train = {shown}: {FRACTION}")
            for written, shown in (("1.4", "1.4"), ("0", "0"), ("1", "1"), ("-0.1", "-0.1"), ("50", "50"))
        ),
        # attention where it cannot be
        (
            "fold: {",
            "folds: {",
            f"9:5: model.attention.folds: unknown point; did you mean 'fold'? choose from {POINTS}",
        ),
        ("fold: {", "dense: {", f"9:5: model.attention.dense: unknown point; choose from {POINTS}"),
        *(
            (
                "fold: {kind: se, reduction: 8}",
                f"{point}: {{kind: se, axis: band}}",
                f"9:{17 + len(point) + 1}: model.attention.{point}.axis = 'band': " + NO_BAND_AXIS,
            )
            for point in HybridSN.points
            if point not in HybridSN.points_3d
        ),
        # the network has nothing left to work on
        (
            "size: 11",
            "size: 12",
            "5:9: patch.size = 12: a patch needs a centre pixel, so its size must be odd; write 11 or 13",
        ),
        (
            "size: 11",
            "size: 7",
            "5:9: patch.size = 7: four 3 × 3 convolutions without padding need at least 9; write patch.size: 9 or more",
        ),
        ("components: 15", "components: 12", f"4:24: reduction.components = 12: {TOO_SHALLOW}"),
    ],
)
def test_mistake_is_reported_with_its_place_its_value_and_the_remedy(
    refuse: Callable[..., str], path: Path, old: str, new: str, problem: str
) -> None:
    assert refuse(_change(old, new)) == f"{path}:{problem}"


def test_mistake_that_a_merge_brings_in_is_reported_at_the_section_that_merges(
    refuse: Callable[..., str], path: Path
) -> None:
    text = _change(
        "    fold: {kind: se, reduction: 8}\n",
        "    conv3d_1: &gate {kind: se, axis: band}\n    fold: {<<: *gate, bias: false}\n",
    )
    assert refuse(text).startswith(f"{path}:10:5: model.attention.fold.axis = 'band': ")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        (_change("seed: 3", "seed: [3"), "2:6", "expected ',' or ']', but got ':'"),
        (_change("seed: 3", "seed: 3: 4"), "1:8", "mapping values are not allowed here"),
        (_change("seed: 3", "\tseed: 3"), "1:1", "found character '\\t' that cannot start any token"),
        (_change("seed: 3", "seed: *other"), "1:7", "found undefined alias 'other'"),
        (
            _change("seed: 3", "seed: 3\nseed: 4"),
            "2:1",
            'found duplicate key "seed" with value "4" (original value: "3")',
        ),
        (
            _change("epochs: 40", "epochs: 40\n  epochs: 50"),
            "12:3",
            'found duplicate key "epochs" with value "50" (original value: "40")',
        ),
        (GOOD + "---\nseed: 4\n", "13:1", "but found another document"),
    ],
)
def test_broken_yaml_is_reported_with_its_place(
    refuse: Callable[..., str], path: Path, text: str, place: str, problem: str
) -> None:
    assert refuse(text) == f"{path}:{place}: {problem}; correct the YAML"


@pytest.mark.parametrize("text", ["[" * 1000, "seed: " + "9" * 5000, "seed: !!int three", "seed: \0"])
def test_yaml_that_breaks_the_parser_is_refused_by_the_name_of_the_file(
    refuse: Callable[..., str], path: Path, text: str
) -> None:
    message = refuse(text)
    assert message.startswith(f"{path}: ")
    assert message.endswith("; correct the YAML")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- list\n", "a sentence", "3"])
def test_file_that_is_no_mapping_is_refused(refuse: Callable[..., str], path: Path, text: str) -> None:
    assert refuse(text) == f"{path}:1:1: contains no settings; a config is a YAML mapping, see configs/demo.yaml"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (": 3\n", "1:1"),
        ('"": 3\n', "1:1"),
        ("~: 3\n", "1:1"),
        ("? [1, 2]\n: 3\n", "1:3"),
        ("2020-01-01: 3\n", "1:1"),
        ('seed: 1\ntrain: {epochs: 1, "": 3}\n', "2:20"),
        ('<<: {"": 3}\n', "1:1"),
    ],
)
def test_key_that_is_no_name_is_said_so_where_it_stands(
    refuse: Callable[..., str], path: Path, text: str, place: str
) -> None:
    assert refuse(text) == f"{path}:{place}: a key must be a name; write name: value"


def test_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}: no such config file; check the path"


def test_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; give a YAML config file in it"


def test_what_no_file_can_be_called_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read as text \(.*too long.*\); give a YAML"):
        load_config(tmp_path / f"{'a' * 300}.yaml")


def test_binary_file_is_no_config(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(.*\); if it is a scene's data, write "):
        load_config(path)


# ------------------------------------------------------------------- digest, YAML, the model

CHANGES = (
    "seed=4",
    "scene=IP",
    "scene.synthetic=1",
    "scene.rows=26",
    "scene.cols=26",
    "scene.bands=17",
    "scene={cube: a.mat, labels: b.mat}",
    "split.train=0.2",
    "split.train={per_class: 5}",
    "split.validation=0.1",
    "split.seed=3",
    "reduction.components=14",
    "reduction.whiten=true",
    "reduction.fit_on=scene",
    "reduction={kind: none}",
    "reduction={kind: none, standardize: false}",
    "patch.size=13",
    "patch.padding=zero",
    "model.order=2d-3d",
    "model.width=0.5",
    "model.norm=none",
    "model.pool=mean",
    "model.dropout=0.3",
    "model.dense_relu=false",
    "model.attention={}",
    "model.attention.conv2d={kind: se}",
    "model.attention.fold.reduction=4",
    "model.attention.fold.bias=false",
    "model.attention.fold.form=conv",
    "model.attention.fold.squeeze=max",
    "model.attention.fold.start=identity",
    "model.attention={conv3d_1: {kind: se, reduction: 8}}",
    "model.attention={conv3d_1: {kind: se, reduction: 8, axis: band}}",
    "train.epochs=41",
    "train.batch_size=64",
    "train.learning_rate=2e-3",
    "train.weight_decay=0",
    "train.schedule=cosine",
    "train.label_smoothing=0.1",
    "train.flips=false",
    "train.class_weights=balanced",
    "train.shift=1",
    "train.noise=0.5",
    "train.spectral_jitter=0.1",
    "train.band_dropout=0.1",
    "train.vary_by=batch",
    "train.precision=bfloat16",
    "train.precision=tf32",
    "train.weight_averaging=0.9",
    "train.norm_statistics=scene",
    "train.early_stopping={patience: 5}",
    "train.early_stopping={patience: 6}",
    "train.early_stopping={patience: 5, monitor: accuracy}",
    "train.max_minutes=5",
    "prediction.symmetries=true",
    "prediction.smoothing={}",
    "prediction.smoothing={spatial: 2}",
    "prediction.smoothing={range: 0.2}",
    "prediction.smoothing={components: 3}",
    "prediction.calibration=none",
    "prediction.precision=tf32",
    "train.start_from=runs/other",
)


def test_varying_by_batch_needs_something_to_vary(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"train\.vary_by.*has no effect without flips"):
        load(GOOD, "train.vary_by=batch", "train.flips=false")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["train.early_stopping={patience: 39}"],
            "train.early_stopping.patience = 39: cannot end a training of epochs: 40 early; use at most 38, or leave "
            "early_stopping out",
        ),
        (
            ["train={epochs: 2, early_stopping: {patience: 1}}"],
            "train.early_stopping.patience = 1: cannot end a training of epochs: 2 early; leave early_stopping out",
        ),
        (
            ["train.early_stopping={patience: 5}", "split.validation=0"],
            "train.early_stopping: needs validation pixels, and the split sets none aside; set some aside with "
            "split.validation (in a partition map, number them 2), or leave early_stopping out",
        ),
        (
            ["train.early_stopping={patience: 5}", "model={name: svm}"],
            "train.early_stopping: model.name = svm is not trained in epochs; leave early_stopping out",
        ),
        (
            ["train.max_minutes=5", "model={name: svm}"],
            "train.max_minutes = 5: model.name = svm is not trained in epochs; leave max_minutes out",
        ),
    ],
)
def test_what_cannot_end_a_training_early_is_refused(
    refuse: Callable[..., str], changes: list[str], message: str
) -> None:
    assert refuse(GOOD, *changes).endswith(f": {message}")


def test_the_remedies_of_a_refused_early_stopping_work(load: Load) -> None:
    load(GOOD, "train.early_stopping={patience: 38}")
    load(GOOD, "train.early_stopping={patience: 5}", "split={kind: masks, partition: a.png, validation: 0}")
    load(GOOD, "train.early_stopping={patience: 5}", "model={name: svm}", "train.early_stopping=null")


def test_any_changed_setting_changes_the_digest(load: Load) -> None:
    digests = {change: load(GOOD, change).digest for change in CHANGES} | {"none": load().digest}
    assert len(set(digests.values())) == len(digests)


def test_every_setting_takes_part_in_the_changes_above(load: Load) -> None:
    """So that a new setting is added to the list, and thereby to the digest's test."""

    def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in section.items():
            path = f"{prefix}{key}"
            flat |= flatten(value, f"{path}.") if isinstance(value, dict) else {path: value}
        return flat

    written = flatten(load().model_dump())
    changed: set[str] = set()
    for change in CHANGES:
        others = flatten(load(GOOD, change).model_dump())
        changed |= {key for key, value in written.items() if others.get(key, value) != value}
    have_one_value_here = {"name", "split.kind", "model.name"}
    have_one_value_here |= {"train.checkpoint_every_s"}  # decides nothing of the result: see below
    have_one_value_here |= {"prediction.smoothing", "train.early_stopping"}  # None, or a section of its own
    have_one_value_here |= {f"model.attention.fold.{key}" for key in ("kind", "axis")}
    assert changed == written.keys() - have_one_value_here


FILES = "scene={cube: a.mat, labels: b.mat}"
FILE_CHANGES = {
    "cube": "c.mat",
    "labels": "c.mat",
    "cube_key": "x",
    "labels_key": "x",
    "class_names": "[corn, woods]",
    "palette": "[[255, 0, 0], [0, 0, 255]]",
    "unlabelled": "255",
    "axes": "bands-first",
    "shape": "[30, 40]",
    "drop_bands": "[104-108, 150, 1340-1450 nm]",
    "wavelengths": "[0.4, 0.5]",
    "nodata": "-9999",
    "scale": "10000",
    "byte_order": "big",
    "name": "mine",
}


def test_every_setting_of_the_users_own_scene_changes_the_digest_and_is_written(load: Load) -> None:
    assert {*FILE_CHANGES, "images"} == set(SceneFiles.model_fields)
    configs = [load(GOOD, FILES), load(GOOD, "scene={images: [{cube: c.mat, labels: g.mat, name: mine}]}")]
    configs += [load(GOOD, "scene={cube: [a.tif, b.tif], labels: '*.tif'}")]
    configs += [load(GOOD, FILES, f"scene.{key}={value}") for key, value in FILE_CHANGES.items()]
    assert len({config.digest for config in configs}) == len(configs)
    for config in configs:
        assert load(dump_config(config)) == config


def test_bands_to_drop_are_counted_from_one(load: Load) -> None:
    scene = load(GOOD, FILES, "scene.drop_bands=[104-106, 150, '7 - 8']").scene
    assert isinstance(scene, SceneFiles)
    assert scene.list_dropped_bands(200) == [103, 104, 105, 149, 6, 7]
    assert scene.list_dropped_ranges() == []


@pytest.mark.parametrize("text", ["1340-1450 nm", "1340 – 1450nm", "1.34-1.45 µm", "1.34-1.45um"])
def test_bands_to_drop_may_be_ranges_of_wavelengths(load: Load, text: str) -> None:
    scene = load(GOOD, FILES, f"scene.drop_bands=[2, {text}]").scene
    assert isinstance(scene, SceneFiles)
    assert scene.list_dropped_bands(200) == [1]
    assert scene.list_dropped_ranges() == [(1340, 1450)]


@pytest.mark.parametrize("bands", ["0", "108-104", "a-b", "-3", "true", "1.5", "1450-1340 nm", "1400 nm", "1-2 km"])
def test_bands_that_are_none_are_refused(refuse: Callable[..., str], bands: str) -> None:
    message = refuse(GOOD, FILES, f"scene.drop_bands=[{bands}]")
    assert message.endswith("write bands as 150 or 104-108, counted from 1, or as a range of wavelengths, 1340-1450 nm")


@pytest.mark.parametrize("value", [".nan", "nan"])
def test_nodata_may_be_nan(load: Load, value: str) -> None:
    config = load(GOOD, FILES, f"scene.nodata={value}")
    assert load(dump_config(config)) == config
    assert isinstance(config.scene, SceneFiles)
    assert config.scene.nodata == "nan"


@pytest.mark.parametrize("change", ["name=another", "train.checkpoint_every_s=5"])
def test_digest_does_not_depend_on_the_name_and_on_the_pace_of_checkpoints(load: Load, change: str) -> None:
    assert load(GOOD, change).digest == load().digest


def test_digest_does_not_depend_on_how_the_settings_are_spelt(load: Load) -> None:
    respelt = (
        "train: {learning_rate: 0.001, epochs: 4_0, batch_size: 256}\n"
        "patch:\n  padding: 'reflect'\n  size: 0xB\n"
        "model: {attention: {fold: {reduction: 8, kind: se, bias: true}}, name: hybridsn}\n"
        "reduction: {fit_on: train, whiten: False, components: 15, kind: pca}\n"
        "split: {validation: 2e-1, train: .1, kind: random}\n"
        "scene: {bands: 16, cols: 25, rows: 24, synthetic: 0}\n"
        "seed: 99\n"
    )
    assert load(respelt, "seed=3").digest == load().digest


_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
_positive_floats = st.floats(min_value=1e-12, max_value=1e12)
_shares = st.floats(min_value=0, max_value=1, exclude_max=True)
_seeds = st.integers(min_value=0, max_value=2**63 - 1)
_scenes = st.one_of(
    _texts,
    st.fixed_dictionaries(
        {"cube": _texts, "labels": _texts},
        optional={
            "cube_key": _texts,
            "labels_key": _texts,
            "name": _texts,
            "class_names": st.one_of(_texts, st.lists(_texts.filter(bool), unique=True)),
            "palette": st.lists(st.tuples(*[st.integers(0, 255)] * 3)),
            "unlabelled": st.integers(-9999, 9999),
            "drop_bands": st.lists(st.one_of(st.integers(1, 999), st.just("3-17"))),
            "wavelengths": st.one_of(_texts, st.lists(_positive_floats)),
            "nodata": st.one_of(st.just("nan"), st.floats(-1e9, 1e9)),
            "scale": _positive_floats,
            "byte_order": st.sampled_from(["little", "big"]),
        },
    ),
    st.fixed_dictionaries(
        {"synthetic": _seeds},
        optional={"rows": st.integers(24, 99), "cols": st.integers(24, 99), "bands": st.integers(16, 99)},
    ),
)
_blocks = st.fixed_dictionaries(
    {"kind": st.just("se")},
    optional={
        "reduction": st.integers(1, 64),
        "bias": st.booleans(),
        "form": st.sampled_from(["linear", "conv"]),
        "squeeze": st.sampled_from(["mean", "max"]),
    },
)
_experiments = st.fixed_dictionaries(
    {
        "scene": _scenes,
        "split": st.fixed_dictionaries(
            {
                "kind": st.just("random"),
                "train": st.one_of(
                    st.floats(0, 1, exclude_min=True, exclude_max=True),
                    st.fixed_dictionaries({"per_class": st.integers(1, 999)}),
                ),
            },
            optional={"validation": _shares, "seed": _seeds},
        ),
        "reduction": st.one_of(
            st.fixed_dictionaries(
                {
                    "kind": st.sampled_from(["pca", "mnf"]),
                    "components": st.integers(13, 300),
                    "fit_on": st.sampled_from(["train", "scene"]),
                },
                optional={"whiten": st.booleans()},
            ),
            st.fixed_dictionaries({"kind": st.just("none")}, optional={"standardize": st.booleans()}),
        ),
        "patch": st.fixed_dictionaries(
            {"size": st.integers(4, 30).map(lambda half: 2 * half + 1)},
            optional={"padding": st.sampled_from(["zero", "reflect"])},
        ),
        "model": st.fixed_dictionaries(
            {"name": st.just("hybridsn")},
            optional={
                "order": st.sampled_from(["3d-2d", "2d-3d"]),
                "width": st.floats(min_value=0.21, max_value=1e6),
                "norm": st.sampled_from(["batch", "none"]),
                "pool": st.sampled_from(["none", "mean"]),
                "dropout": _shares,
                "dense_relu": st.booleans(),
                "attention": st.dictionaries(st.sampled_from(HybridSN.points), _blocks),
            },
        ),
        "train": st.fixed_dictionaries(
            {"epochs": st.integers(1, 10**6)},
            optional={
                "learning_rate": _positive_floats,
                "weight_decay": st.floats(min_value=0, max_value=1e9),
                "label_smoothing": _shares,
                "flips": st.booleans(),
                "shift": st.integers(0, 4),  # the smallest patch is of 9
                "noise": st.floats(min_value=0, max_value=1e9),
                "spectral_jitter": st.floats(min_value=0, max_value=1e9),
                "band_dropout": _shares,
            },
        ),
    },
    optional={"seed": _seeds, "name": st.from_regex(r"\A[a-zA-Z0-9_.+-]*\Z")},
)


def _smallest(scene: dict[str, Any]) -> dict[str, Any]:
    return {
        "scene": scene,
        "split": {"kind": "random", "train": 0.5},
        "reduction": {"kind": "none"},
        "patch": {"size": 9},
        "model": {"name": "hybridsn"},
        "train": {"epochs": 1},
    }


@settings(deadline=None)
@given(experiment=_experiments)
@example(experiment=_smallest(scene={"cube": "0", "labels": "?0"}))
@example(experiment=_smallest(scene={"cube": "0", "labels": "0", "class_names": ["?0", "a: b", "\x85"]}))
def test_every_config_survives_being_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, experiment: dict[str, Any]
) -> None:
    config = Config.model_validate(experiment)
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert again.digest == config.digest


@pytest.mark.parametrize("name", ["no", "null", "1e-3", "0x1F", "12", "true", "2020-01-01", "-", "1_000"])
def test_name_that_looks_like_another_type_is_written_as_a_string(load: Load, name: str) -> None:
    config = load(f"name: '{name}'\n" + GOOD)
    assert load(dump_config(config)) == config
    assert config.name == name


def test_written_yaml_holds_the_defaults_too(load: Load) -> None:
    written = " ".join(dump_config(load()).split())  # long lines are wrapped
    for setting in ("weight_decay: 0.01", "batch_size: 256", "order: 3d-2d", "squeeze: mean"):
        assert setting in written


@pytest.mark.parametrize(
    ("section", "setting"), [(None, "seed"), ("train", "epochs"), ("patch", "size"), ("scene", "rows")]
)
def test_config_cannot_be_changed(load: Load, section: str | None, setting: str) -> None:
    config = load()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(getattr(config, section) if section else config, setting, 99)


def test_json_schema_lists_every_section_and_closes_it_to_others() -> None:
    schema = Config.model_json_schema()
    assert list(schema["properties"]) == SECTIONS.split(", ")
    assert schema["required"] == ["scene", "split", "reduction", "patch", "model", "train"]
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False


def _list_undescribed(schema: dict[str, Any]) -> list[str]:
    """Returns every section and property of a JSON schema that has no description."""
    undescribed = []
    for name, section in {"Config": schema, **schema["$defs"]}.items():
        parts = {name: section, **{f"{name}.{key}": part for key, part in section["properties"].items()}}
        undescribed += [part for part, contents in parts.items() if not contents.get("description")]
    return undescribed


def test_every_section_and_setting_in_the_json_schema_has_a_description() -> None:
    assert _list_undescribed(Config.model_json_schema()) == []


def test_what_tells_the_kind_of_a_section_is_described_by_the_sections_own_first_paragraph() -> None:
    schema = Config.model_json_schema()["$defs"]
    assert schema["Cbam"]["properties"]["kind"]["description"] == f"cbam: {schema['Cbam']['description']}"
    mnf = schema["MnfReduction"]
    assert mnf["properties"]["kind"]["description"] == f"mnf: {mnf['description'].splitlines()[0]}"
    assert schema["Forest"]["properties"]["name"]["description"].startswith("random_forest or extra_trees ")


def test_the_search_for_missing_descriptions_finds_them_at_every_level() -> None:
    schema = Config.model_json_schema()
    del schema["properties"]["seed"]["description"]
    del schema["$defs"]["SqueezeExcite"]["properties"]["kind"]["description"]
    schema["$defs"]["Smoothing"]["properties"]["range"]["description"] = ""
    del schema["$defs"]["TrainSettings"]["description"]
    assert sorted(_list_undescribed(schema)) == [
        "Config.seed",
        "Smoothing.range",
        "SqueezeExcite.kind",
        "TrainSettings",
    ]


@pytest.mark.parametrize("names", ["[a, a, b]", "['', b, c]"])
def test_classes_have_names_of_their_own(refuse: Callable[..., str], names: str) -> None:
    scene = f"scene={{cube: a.npy, labels: b.npy, class_names: {names}}}"
    assert "is empty or used twice; give every class its own name" in refuse(GOOD, scene)
