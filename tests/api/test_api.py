"""The public functions from Python: configs of any kind, scenes in memory, and the words of their mistakes."""

import inspect
import pkgutil
import re
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 - gives arrays their attribute `rio`
import xarray
from rasterio.errors import NotGeoreferencedWarning

import hsi_se
from hsi_se.config.yaml_file import dump_config, load_config
from hsi_se.errors import ConfigError, HsiError, RunError, SceneError
from hsi_se.reports.explorer import Explorer
from hsi_se.runs.report import RunReport
from hsi_se.scene.synthetic import make_synthetic_scene
from tests.api.conftest import CONFIG
from tests.conftest import CPU, ROOT, TINY

pytestmark = [pytest.mark.usefixtures("quick_baseline"), pytest.mark.filterwarnings("ignore:Use .@. matmul")]


@pytest.fixture(scope="module")
def arrays():
    made = make_synthetic_scene(seed=0, rows=24, cols=26, bands=20)
    return made.cube, made.labels, made.class_names


@pytest.fixture(scope="module")
def scene(arrays):
    cube, labels, names = arrays
    return hsi_se.Scene.from_arrays(cube, labels, name="field", class_names=names)


# -------------------------------------------------------------------------------------------- public names


def test_the_public_names_are_listed_without_importing_anything():
    code = "import hsi_se, sys; print(*dir(hsi_se)); print(*sys.modules)"
    names, modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {
        "Scene", "Split", "Run", "Evaluation", "ClassMap", "Config", "Session", "train", "evaluate", "map_scene",
        "make_split", "ablate", "gap", "explain", "report", "resume", "load_config", "load_scene", "build_model",
        "insert_attention",
    } <= {*names.split()}  # fmt: skip
    assert not {"torch", "numpy", "pydantic"} & {*modules.split()}


def test_every_public_name_can_be_had_and_has_a_docstring():
    for name in hsi_se.__all__:
        found = getattr(hsi_se, name)
        assert name == "__version__" or inspect.getdoc(found), name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = hsi_se.trian


def test_no_module_of_the_package_hides_a_public_name():
    modules = {module.name for module in pkgutil.iter_modules(hsi_se.__path__)}
    assert "api" in modules
    assert not modules & {*hsi_se.__all__}


# --------------------------------------------------------------------------------------- scenes in memory


def test_the_config_of_a_run_records_the_scene_and_its_digest(run, scene):
    section = run.read_config().scene
    assert (section.arrays, section.digest) == ("field", scene.digest)
    assert run.read_record().scene_digest == scene.digest
    assert run.read_record().data is None
    assert run.scene is scene
    assert load_config(run.config) == run.read_config()


def test_a_config_is_a_mapping_an_object_or_a_file(scene, run, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(dump_config(run.read_config(), is_named=False))
    demo = load_config(ROOT / "configs" / "demo.yaml", [*TINY, "model={name: lda}", "split={kind: random, train: 0.2}"])
    digests = [
        hsi_se.train(config, scene=scene, out=tmp_path / str(number), session=CPU).read_record().config_digest
        for number, config in enumerate((CONFIG, path, str(path), run.read_config()))
    ]
    assert {*digests} == {run.read_record().config_digest}
    assert hsi_se.train(demo, scene=scene, out=tmp_path / "demo", session=CPU).read_config().scene.arrays == "field"


def test_a_mapping_may_hold_objects_tuples_and_numbers_of_numpy(scene, run):
    config = {**CONFIG, "split": run.read_config().split, "patch": {"size": np.int64(9)}, "seed": np.int32(0)}
    assert hsi_se.make_split(scene, config).digest == run.read_split().digest


def test_a_changed_patch_size_of_a_config_changes_the_buffer_that_follows_from_it():
    from hsi_se.config.yaml_file import read_config

    blocks = {**CONFIG, "scene": {"synthetic": 0}, "split": {"kind": "blocks", "train": 0.5}}
    config = read_config(blocks)
    assert read_config(config, ["patch.size=15"]).split.buffer == config.split.buffer + 6
    kept = read_config({**blocks, "split": {"kind": "blocks", "train": 0.5, "buffer": 2}})
    assert read_config(kept, ["patch.size=15"]).split.buffer == 2


def test_make_split_takes_a_section_a_config_and_a_seed(scene, run):
    split = run.read_split().digest
    assert hsi_se.make_split(scene, CONFIG).digest == split
    assert hsi_se.make_split(scene, CONFIG["split"], seed=0).digest == split
    assert hsi_se.make_split(scene, run.read_config().split).digest == split
    seeded = {**CONFIG, "seed": 3}
    assert hsi_se.make_split(scene, seeded).digest == hsi_se.make_split(scene, CONFIG, seed=3).digest != split


def test_evaluate_returns_everything_that_the_report_says(run, evaluation):
    assert isinstance(evaluation, hsi_se.Evaluation)
    assert evaluation == RunReport.model_validate_json(run.report.read_bytes())
    assert 0 < evaluation.overall_accuracy < 1
    assert evaluation.location_floor.overall_accuracy > 0
    assert evaluation.spectral_baseline.chosen.classifier in ("svm", "lda")
    assert 0 <= evaluation.leakage.test_patches_with_train_pixels <= 1
    assert evaluation.calibration.about
    assert [row.name for row in evaluation.area] == list(run.read_facts().class_names)
    assert evaluation.verdict
    assert "hsi-se" not in evaluation.next_step, "no command can read arrays"


def test_a_run_that_is_opened_again_needs_its_scene_and_checks_it(run, evaluation, arrays):
    again = hsi_se.Scene.from_arrays(arrays[0].copy(), arrays[1])
    assert hsi_se.evaluate(str(run), scene=again, session=CPU).overall_accuracy == evaluation.overall_accuracy
    with pytest.raises(SceneError, match=r"scene.arrays = field: its arrays were in the memory"):
        hsi_se.evaluate(str(run), session=CPU)
    other = hsi_se.Scene.from_arrays(arrays[0] + 1, arrays[1], name="other")
    for function in (hsi_se.evaluate, hsi_se.explain):
        with pytest.raises(SceneError, match="scene = other: differs from the arrays of field"):
            function(run, scene=other, session=CPU)


def test_the_command_line_refuses_such_a_run_in_one_line(run, call):
    for command in ("eval", "map"):
        code, _, errors = call(command, run)
        assert code == 2
        assert errors.count("\n") == 1
        assert "give the scene again from Python, as in hsi_se.evaluate(run, scene=scene)" in errors
    code, _, errors = call("train", run.config)
    assert (code, errors.count("\n")) == (2, 1)


def test_the_page_of_such_a_run_says_how_python_trains_it_again(run, evaluation):
    del evaluation
    page = hsi_se.report(run).read_text()
    assert "hsi_se.train(" in page
    assert "hsi-se train" not in page


def test_a_map_of_a_numpy_scene_is_a_class_map_and_equals_that_of_the_report(run, scene):
    found = hsi_se.map_scene(run, session=CPU)
    assert isinstance(found, hsi_se.ClassMap)
    np.testing.assert_array_equal(found.labels, hsi_se.map_scene(str(run), scene, session=CPU).labels)
    np.testing.assert_array_equal(found.labels, hsi_se.map_scene(str(run), scene.cube, session=CPU).labels)
    mapped = run.read_arrays(Explorer, run.explorer)
    np.testing.assert_array_equal(found.labels, scene.class_ids[mapped.prediction.astype(int) - 1])


@pytest.mark.parametrize(("y", "x"), [("y", "x"), ("lat", "lon")])
def test_a_map_of_a_data_array_is_one_with_its_coordinates_and_its_crs(run, scene, arrays, tmp_path, y, x):
    cube = arrays[0]
    rows, cols = cube.shape[:2]
    coords = {y: 100.0 - np.arange(rows), x: 5.0 + np.arange(cols)}
    given = xarray.DataArray(cube, dims=(y, x, "band"), coords=coords)
    given = given.rio.set_spatial_dims(x_dim=x, y_dim=y).rio.write_crs("EPSG:32633")
    transform, given = given.rio.transform(), given.transpose("band", y, x)
    for name in (y, x):
        given[name].attrs.clear()
    found = hsi_se.map_scene(run, given, session=CPU)
    assert isinstance(found, xarray.DataArray)
    assert found.dims == (y, x)
    np.testing.assert_array_equal(found.values, hsi_se.map_scene(run, session=CPU).labels)
    xarray.testing.assert_equal(found[y], given[y])
    xarray.testing.assert_equal(found[x], given[x])
    assert found.rio.crs == "EPSG:32633"
    assert found.attrs["class_names"].startswith(f"1: {scene.class_names[1]}; 2: ")
    np.testing.assert_array_equal(given.transpose(y, x, "band").values, cube)
    found.rio.to_raster(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.crs, file.nodata) == ("EPSG:32633", 0)
        assert file.transform == transform
        np.testing.assert_array_equal(file.read(1), found.values)
    found.to_netcdf(tmp_path / "map.nc")
    as_labels = hsi_se.Scene.from_arrays(given, found)
    assert as_labels.class_names[1] == scene.class_names[1]


def test_a_scene_in_memory_is_mapped_into_files(run, scene, tmp_path):
    """The run's own, remembered or given again, and another one, at the place that it was given."""
    labels = hsi_se.map_scene(run, session=CPU).labels
    hsi_se.write_map(run, out=tmp_path / "own", session=CPU)
    hsi_se.write_map(hsi_se.Run(run.path), scene=scene, out=tmp_path / "again", session=CPU)
    place = {"crs": 32633, "transform": (30.0, 0.0, 500_000.0, 0.0, -30.0, 5_600_000.0)}
    other = hsi_se.Scene.from_arrays(scene.cube[:20], None, **place)
    hsi_se.write_map(run, scene=other, out=tmp_path / "other", session=CPU)
    for name in ("own", "again", "other"):
        warns = pytest.warns(NotGeoreferencedWarning) if name != "other" else nullcontext()
        with warns, rasterio.open(tmp_path / name / "map.tif") as file:
            expected = labels if name != "other" else hsi_se.map_scene(run, other, session=CPU).labels
            np.testing.assert_array_equal(file.read(1), expected)
            assert (file.crs is None) == (name != "other")
    assert (file.crs, tuple(file.transform)[:6]) == ("EPSG:32633", place["transform"])


@pytest.mark.slow
def test_a_network_in_memory_is_trained_resumed_and_explained(scene, tmp_path):
    from hsi_se.progress import Silent
    from hsi_se.system.session import Session

    class Stops(Silent):
        def epoch(self, record):
            if record.epoch == 2:
                raise KeyboardInterrupt

    model = {"name": "hybridsn", "width": 0.125, "attention": {"fold": {"kind": "se", "reduction": 2}}}
    config = {**CONFIG, "model": model, "train": {"epochs": 3, "batch_size": 32, "checkpoint_every_s": 0}}
    with pytest.raises(BaseException, match=r"`hsi_se.resume\('.*run', scene=scene\)`"):
        hsi_se.train(config, scene=scene, out=tmp_path / "run", session=Session(device="cpu", observer=Stops()))
    unfinished = hsi_se.Run(tmp_path / "run")
    assert "epoch 2 of 3" in repr(unfinished)
    assert "<td" in unfinished._repr_html_()
    with pytest.raises(SceneError, match="its arrays were in the memory"):
        hsi_se.resume(unfinished, session=CPU)
    finished = hsi_se.resume(unfinished, scene=scene, session=CPU)
    assert finished.scene is scene
    whole = hsi_se.train(config, scene=scene, out=tmp_path / "whole", session=CPU)
    assert finished.bundle_arrays.read_bytes() == whole.bundle_arrays.read_bytes()
    assert [gate.point for gate in hsi_se.explain(finished, session=CPU).gates] == ["fold"]


FOLDS = {**CONFIG, "split": {"kind": "folds", "by": "blocks", "block_size": 6, "buffer": 2, "folds": 3}}


@pytest.mark.slow
def test_gap_and_train_take_folds_and_pool_them(scene, tmp_path):
    found = hsi_se.gap(FOLDS, scene=scene, out=tmp_path / "gap", session=CPU)
    assert found.random.evaluation.num_test > 0
    assert -1 < found.optimism < 1
    run = hsi_se.train(FOLDS, scene=scene, out=tmp_path / "gap" / "folds", session=CPU)
    assert run.read_report().fold_accuracies == tuple(each.overall_accuracy for each in found.folds.folds)
    assert run.read_report().num_test == (scene.labels > 0).sum()
    for change, name in (({"overwrite": True}, "overwrite"), ({}, "split.repeats")):
        config = FOLDS if change else {**FOLDS, "split": {**FOLDS["split"], "repeats": 2}}
        with pytest.raises(ConfigError, match=f"{name}: has no effect on folds"):
            hsi_se.train(config, scene=scene, out=tmp_path / "folds", session=CPU, **change)


@pytest.mark.slow
def test_ablate_takes_a_mapping_and_a_scene_in_memory(scene, tmp_path):
    svm = {"model.name": "svm", "model.penalty": 10, "model.gamma": 0.1}
    ablation = {"base": CONFIG, "seeds": [0, 1], "variants": {"lda": {}, "svm": svm}}
    notes = _Notes()
    folder, found = hsi_se.ablate(ablation, scene=scene, out=tmp_path / "ablation", session=notes.session)
    assert [(row.name, len(row.runs)) for row in found.scenes[0].variants] == [("lda", 2), ("svm", 2)]
    assert notes.done == notes.total == 4
    assert [note for note in notes.notes if note.startswith("svm, seed 1: OA ")]
    assert hsi_se.report(folder) == folder.page
    with pytest.raises(ConfigError, match="workers: other processes do not have a scene in memory"):
        hsi_se.ablate(ablation, scene=scene, workers=2)
    with pytest.raises(ConfigError, match=r"ablation: variants\.svm: modl: unknown setting; did you"):
        hsi_se.ablate({**ablation, "variants": {"lda": {}, "svm": {"modl.name": "svm"}}}, scene=scene)
    with pytest.raises(ConfigError, match="ablation: base: is missing; add it"):
        hsi_se.ablate({"seeds": [0], "variants": {"lda": {}, "svm": svm}}, scene=scene)
    with pytest.raises(ConfigError, match="ablation: scenes: has no effect with scene="):
        hsi_se.ablate({**ablation, "scenes": {"a": {}}}, scene=scene)


def test_an_ablation_whose_runs_fail_is_an_error_that_names_the_first(scene, tmp_path):
    few = {"split.train": {"per_class": 1}}
    ablation = {"base": CONFIG, "set": few, "seeds": [0], "variants": {"a": {}, "b": {"patch.size": 7}}}
    problem = r"2 of 2 runs failed, the first of a, seed 0: .*; correct this, and call hsi_se.ablate"
    with pytest.raises(RunError, match=problem):
        hsi_se.ablate(ablation, scene=scene, out=tmp_path / "failing", session=CPU)


class _Notes(hsi_se.Silent):
    """Counts what is done, and keeps the notes."""

    def __init__(self) -> None:
        self.notes, self.total, self.done = [], 0, 0
        self.session = hsi_se.Session(device="cpu", observer=self)

    def start(self, task, *, total, unit):
        del task, unit
        self.total = total

    def advance(self, count):
        self.done += count

    def note(self, text):
        self.notes.append(text)


# ---------------------------------------------------------------------------------------- wrong arguments


def list_mistakes(run, scene):
    def train(change, **options):
        return lambda: hsi_se.train({**CONFIG, **change}, **{"scene": scene, **options})

    no_labels, tpu = hsi_se.Scene.from_arrays(scene.cube, None), hsi_se.Session(device="tpu")
    yield lambda: hsi_se.evaluate(3), RunError, "run = 3: is not a run; give what hsi_se.train returned"
    yield lambda: hsi_se.evaluate("nowhere"), RunError, "nowhere: no such run folder"
    yield lambda: hsi_se.resume(run), RunError, "is finished; evaluate it with `hsi_se.evaluate("
    yield train({}, out=run.path), RunError, "choose another with out=DIR, or set overwrite=True"
    yield lambda: hsi_se.train(3), ConfigError, "config = 3: is not a config; give a YAML file, a mapping or a Config"
    yield lambda: hsi_se.train("no.yaml"), ConfigError, "no.yaml: no such config file"
    yield lambda: hsi_se.train(CONFIG), ConfigError, "config: scene: is missing; add it"
    yield train({"patch": {"sise": 9}}), ConfigError, "config: patch.sise = 9: unknown setting; did you mean 'size'?"
    yield train({"patch": {"size": 8}}), ConfigError, "config: patch.size = 8: a patch needs a centre pixel"
    yield train({"train": {"epochs": "many"}}), ConfigError, "config: train.epochs = 'many': write a whole number"
    yield train({}, scene=scene.cube), SceneError, "scene: ndarray is not a Scene; make one with hsi_se.Scene.from_arr"
    yield train({}, scene=no_labels), SceneError, "scene: has no labels"
    yield train({}, session=tpu), HsiError, "tpu"
    yield lambda: hsi_se.make_split(scene, {"kind": "randm"}), ConfigError, "split: split.kind = 'randm': did you mean"
    yield lambda: hsi_se.make_split(scene.labels, CONFIG), SceneError, "scene: ndarray is not a Scene"
    yield lambda: hsi_se.map_scene(run, 3), SceneError, "scene = 3: is not a scene; write a known name"
    yield lambda: hsi_se.write_map(3), RunError, "run = 3: is not a run"
    opened = hsi_se.Run(run.path)
    yield lambda: hsi_se.write_map(opened), HsiError, "and are in no file; give the scene again from Python"
    yield lambda: hsi_se.write_map(run, min_probability=2), ConfigError, "min_probability = 2: must lie between 0 and 1"
    yield lambda: hsi_se.write_map(run, polygons="a.txt"), ConfigError, "polygons = a.txt: name a file that ends in"
    bands = "the scene has 4 bands, but the model was trained on 20"
    yield lambda: hsi_se.map_scene(run, scene.cube[..., :4]), SceneError, bands
    yield (
        lambda: hsi_se.map_scene(hsi_se.load_bundle(run)),
        SceneError,
        "scene = None: a bundle has no scene of its own",
    )
    yield lambda: hsi_se.load_scene({"cube": "a.mat"}), ConfigError, "scene: scene.labels: is missing; add it"
    yield lambda: hsi_se.ablate(3), ConfigError, "ablation = 3: is not an ablation; give a YAML file or a mapping"
    yield train({}, session="cpu"), ConfigError, "session = 'cpu': must be an instance of Session"
    yield train({}, out=3), ConfigError, "out = 3: must be a valid string or "
    yield lambda: hsi_se.Session(observer=None), ConfigError, "observer = None: is not an observer; leave it out, or "
    bundle = hsi_se.load_bundle(run)
    yield lambda: hsi_se.evaluate(bundle), RunError, "run = a value of type ModelBundle: is not a run"
    yield lambda: hsi_se.map_scene(run, scene.cube.tolist()), SceneError, "scene = a value of type list: is not a scene"
    yield lambda: hsi_se.map_scene(run, tile_rows=0), ConfigError, "tile_rows = 0: must be greater than 0"
    for seed, problem in ((-1, "greater than or equal to 0"), ("x", "a valid integer")):
        message = f"seed = {seed!r}: must be {problem}"
        yield lambda seed=seed: hsi_se.make_split(scene, CONFIG, seed=seed), ConfigError, message
    yield lambda: hsi_se.ablate({}, workers="a"), ConfigError, "workers = 'a': must be a valid integer"
    yield lambda: hsi_se.load_config(3), ConfigError, "path = 3: must be a valid string or "
    yield lambda: hsi_se.load_bundle(3), ConfigError, "run = 3: must be a valid string or "
    yield lambda: hsi_se.load_plugin(3), ConfigError, "path = 3: must be a valid string or "
    yield lambda: hsi_se.load_scene("demo", data=3), ConfigError, "data = 3: must be a valid string or "
    sizes, size = {"num_bands": 20, "patch_size": 9, "num_classes": 3}, "(rows, cols, 20)"
    problem = "is not the section `model` of a config; give hsi_se.load_config(FILE).model"
    yield lambda: hsi_se.build_model("hybridsn", **sizes), ConfigError, f"settings = 'hybridsn': {problem}"
    network = hsi_se.build_model(load_config(ROOT / "configs" / "demo.yaml").model, **sizes)
    for cube in (scene.cube[0], scene.cube[..., :4]):
        message = f"cube = {cube.shape}: must be {size}, as the classifier was built"
        yield lambda cube=cube: hsi_se.predict_logits(network, cube), ConfigError, message
    cube = np.zeros((9, 9, 20), np.float32)
    yield lambda: hsi_se.predict_logits(network, cube, padding="no"), ConfigError, "padding = 'no': must be 'zero' or "
    yield lambda: hsi_se.predict_logits(3, cube), ConfigError, "model = 3: is not a classifier of hsi_se; give one of "
    example = np.zeros(3)
    yield (lambda: hsi_se.insert_attention(3, {}, example=example), ConfigError, "network = 3: must be an instance of ")
    yield lambda: hsi_se.insert_attention(network, ["a"], example=example), ConfigError, "blocks = ('a'): write the set"
    other = {"scene": no_labels, "overrides": ["scene.scale=2"]}
    yield lambda: hsi_se.write_map(run, **other), ConfigError, "overrides = ('scene.scale=2'): have no effect on a"


def test_a_wrong_argument_is_an_error_of_one_line_in_the_words_of_python(run, scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for function, error, message in list_mistakes(run, scene):
        with pytest.raises(error) as caught:
            function()
        text = str(caught.value)
        assert message in text
        assert "\n" not in text
        assert not re.search(r"(?<!\w)--\w", text), f"options are of the command line: {text}"
        assert caught.value._render_traceback_() == [f"{type(caught.value).__name__}: {text}"], "as a notebook shows it"
        assert not list(tmp_path.iterdir()), message


def test_load_scene_takes_a_mapping_a_config_and_a_name():
    config = load_config(ROOT / "configs" / "demo.yaml", TINY)
    digest = hsi_se.load_scene(config).digest
    assert hsi_se.load_scene(config.scene).digest == digest
    assert hsi_se.load_scene({"synthetic": 0, "rows": 24, "cols": 24, "bands": 16}).digest == digest
    with pytest.raises(SceneError, match="unknown scene"):
        hsi_se.load_scene("no-such-scene")
