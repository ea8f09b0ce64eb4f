"""A mistake in a config is reported where it was typed, with the setting, its value and the remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hsi_se.config.model import HybridSN
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from tests.config.conftest import (
    FILES,
    FRACTION,
    GOOD,
    MODELS,
    NO_BAND_AXIS,
    PCA,
    POINTS,
    SCENE,
    SECTION,
    SECTIONS,
    TOO_SHALLOW,
    TRAIN_SETTINGS,
    Load,
    change_good,
)


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
    assert refuse(change_good(old, new)) == f"{path}:{problem}"


def test_mistake_that_a_merge_brings_in_is_reported_at_the_section_that_merges(
    refuse: Callable[..., str], path: Path
) -> None:
    text = change_good(
        "    fold: {kind: se, reduction: 8}\n",
        "    conv3d_1: &gate {kind: se, axis: band}\n    fold: {<<: *gate, bias: false}\n",
    )
    assert refuse(text).startswith(f"{path}:10:5: model.attention.fold.axis = 'band': ")


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        (change_good("seed: 3", "seed: [3"), "2:6", "expected ',' or ']', but got ':'"),
        (change_good("seed: 3", "seed: 3: 4"), "1:8", "mapping values are not allowed here"),
        (change_good("seed: 3", "\tseed: 3"), "1:1", "found character '\\t' that cannot start any token"),
        (change_good("seed: 3", "seed: *other"), "1:7", "found undefined alias 'other'"),
        (
            change_good("seed: 3", "seed: 3\nseed: 4"),
            "2:1",
            'found duplicate key "seed" with value "4" (original value: "3")',
        ),
        (
            change_good("epochs: 40", "epochs: 40\n  epochs: 50"),
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


@pytest.mark.parametrize("bands", ["0", "108-104", "a-b", "-3", "true", "1.5", "1450-1340 nm", "1400 nm", "1-2 km"])
def test_bands_that_are_none_are_refused(refuse: Callable[..., str], bands: str) -> None:
    message = refuse(GOOD, FILES, f"scene.drop_bands=[{bands}]")
    assert message.endswith("write bands as 150 or 104-108, counted from 1, or as a range of wavelengths, 1340-1450 nm")


@pytest.mark.parametrize("names", ["[a, a, b]", "['', b, c]"])
def test_classes_have_names_of_their_own(refuse: Callable[..., str], names: str) -> None:
    scene = f"scene={{cube: a.npy, labels: b.npy, class_names: {names}}}"
    assert "is empty or used twice; give every class its own name" in refuse(GOOD, scene)


@pytest.mark.parametrize(
    ("changes", "message", "remedy"),
    [
        (
            ["model={name: svm}", "prediction.calibration=validation"],
            "prediction.calibration = 'validation': model.name = svm is trained on the validation pixels too; "
            "use cross-fit",
            ["model={name: svm}", "prediction.calibration=cross-fit"],
        ),
        (
            ["model={name: hybridsn, order: 2d-3d, width: 0.1}"],
            "model.width = 0.1: with order 2d-3d the spectral kernels (7, 5 and 3 deep) need at least 13 features of "
            "the 2-D convolution; write model.width: 0.2 or more",
            ["model={name: hybridsn, order: 2d-3d, width: 0.2}"],
        ),
        (
            ["model={name: spectralformer, group: 17}"],
            "model.group = 17: reduction.components = 15, fewer than the bands of a group; write 15 or less",
            ["model={name: spectralformer, group: 15}"],
        ),
        (
            ["split={kind: folds, by: groups, groups_key: k}"],
            "split.groups_key = 'k': has no effect without groups: FILE; leave it out",
            ["split={kind: folds, by: groups, groups: a.png, groups_key: k}"],
        ),
        (
            [FILES, "scene.unlabelled=true"],
            "scene.unlabelled = True: write the label of unlabelled pixels: a whole number, nan, a class name or a "
            'colour "#rrggbb"',
            [FILES, "scene.unlabelled='#ff0000'"],
        ),
    ],
)
def test_what_does_not_fit_another_setting_is_refused_and_the_remedy_works(
    refuse: Callable[..., str], load: Load, changes: list[str], message: str, remedy: list[str]
) -> None:
    assert refuse(GOOD, *changes).endswith(f": {message}")
    load(GOOD, *remedy)
