"""Overrides: each does what the same edit of the file does, and a mistake is reported as that override's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hsi_se.config import nearest
from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import list_settings
from tests.config.conftest import (
    GOOD,
    KINDS,
    NO_BAND_AXIS,
    PCA,
    POINTS,
    SCENE,
    SECTION,
    TOO_SHALLOW,
    TRAIN_SETTINGS,
    Load,
    change_good,
)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("patch.size=15", change_good("size: 11", "size: 15")),
        (" patch.size = 15", change_good("size: 11", "size: 15")),
        ("train.learning_rate=3e-4", change_good("1e-3", "0.0003")),
        ("model.attention={}", change_good("  attention:\n    fold: {kind: se, reduction: 8}\n", "")),
        ("model.attention.fold.reduction=4", change_good("reduction: 8", "reduction: 4")),
        ("reduction={kind: none}", change_good(PCA, "{kind: none}")),
        ("split.train={per_class: 5}", change_good("train: 0.1", "train: {per_class: 5}")),
        ("scene=IP", change_good(SCENE, "IP")),
        ("model.attention.conv2d={kind: se}", change_good("    fold:", "    conv2d: {kind: se}\n    fold:")),
        ("model.attention.conv2d.kind=se", change_good("    fold:", "    conv2d: {kind: se}\n    fold:")),
    ],
)
def test_override_does_what_the_same_edit_of_the_file_does(load: Load, override: str, changed: str) -> None:
    assert load(GOOD, override) == load(changed)
    assert load(GOOD, override) != load()


def test_override_creates_a_section_that_the_file_lacks(load: Load) -> None:
    without_patch = change_good("patch: {size: 11, padding: reflect}\n", "")
    assert load(without_patch, "patch.size=11") == load()


def test_later_override_wins(load: Load) -> None:
    assert load(GOOD, "seed=1", "seed=2").seed == 2
    config = load(GOOD, "train.epochs=7", "train={epochs: 5, batch_size: 8}", "train.batch_size=16")
    assert (config.train.epochs, config.train.batch_size) == (5, 16)
    assert config.train.learning_rate == load(GOOD).train.learning_rate


def test_override_may_repair_what_is_wrong_in_the_file(load: Load) -> None:
    assert load(change_good("size: 11", "size: 12"), "patch.size=13").patch.size == 13


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
    assert refuse(change_good("learning_rate: 1e-3", "lr: 1e-3")) == (
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
    text = change_good("size: 11", "size: 12")
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
