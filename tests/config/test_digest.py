"""The digest of a config, and the YAML that is written of it: every setting takes part."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hsi_se.config.experiment import Config
from hsi_se.config.model import HybridSN
from hsi_se.config.scene import SceneFiles
from hsi_se.config.yaml_file import dump_config, load_config
from tests.config.conftest import FILES, GOOD, Load

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
