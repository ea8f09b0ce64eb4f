"""A good config is read as written, with the documented defaults, and its JSON schema describes every setting."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hsi_se.config.experiment import Config, NoReduction, PcaReduction
from hsi_se.config.model import HybridSN, SqueezeExcite
from hsi_se.config.scene import SceneFiles, SyntheticScene
from hsi_se.config.split import PerClass
from hsi_se.config.yaml_file import dump_config, load_config
from hsi_se.errors import ConfigError
from tests.config.conftest import FILES, GOOD, PCA, SCENE, SECTIONS, Load, change_good


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
    assert load(change_good("1e-3", written)).train.learning_rate == value


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "n", "y"])
def test_words_that_yaml_1_1_takes_for_booleans_are_strings(load: Load, word: str) -> None:
    assert load(change_good("seed: 3", f"name: {word}")).name == word


def test_scene_may_be_a_name_a_pair_of_files_or_synthetic(load: Load) -> None:
    assert load(change_good(SCENE, "indian-pines")).scene == "indian-pines"
    assert load(change_good(SCENE, "{cube: a.mat, labels: b.mat}")).scene == SceneFiles(cube="a.mat", labels="b.mat")
    assert isinstance(load().scene, SyntheticScene)


def test_training_share_may_be_a_fraction_or_a_count_per_class(load: Load) -> None:
    assert load().split.train == 0.1
    assert load(change_good("train: 0.1", "train: {per_class: 50}")).split.train == PerClass(per_class=50)


def test_no_reduction_stands_for_all_bands(load: Load) -> None:
    assert load(change_good(PCA, "{kind: none}")).reduction == NoReduction(kind="none", standardize=True)


@pytest.mark.parametrize("order", ["3d-2d", "2d-3d"])
def test_thirteen_components_and_patch_nine_are_enough_in_either_order(load: Load, order: str) -> None:
    config = load(GOOD, "reduction.components=13", "patch.size=9", f"model.order={order}")
    assert config.model.order == order


def test_band_after_2d_convolutions_may_be_alone(load: Load) -> None:
    assert load(GOOD, "model.order=2d-3d", "reduction.components=1").model.order == "2d-3d"


@pytest.mark.parametrize("point", HybridSN.points_3d)
def test_band_axis_is_accepted_at_a_3d_point(load: Load, point: str) -> None:
    config = load(change_good("fold: {kind: se, reduction: 8}", f"{point}: {{kind: se, axis: band}}"))
    assert config.model.attention[point].axis == "band"


def test_varying_by_batch_needs_something_to_vary(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"train\.vary_by.*has no effect without flips"):
        load(GOOD, "train.vary_by=batch", "train.flips=false")


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


@pytest.mark.parametrize("value", [".nan", "nan"])
def test_nodata_may_be_nan(load: Load, value: str) -> None:
    config = load(GOOD, FILES, f"scene.nodata={value}")
    assert load(dump_config(config)) == config
    assert isinstance(config.scene, SceneFiles)
    assert config.scene.nodata == "nan"


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
