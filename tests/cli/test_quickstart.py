"""`hsi-se quickstart`: the config that it writes suits the files, trains, and leads to a page."""

import shlex

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from hsi_se.config.split import FoldsSplit
from hsi_se.config.yaml_file import load_config
from hsi_se.sampling.splits import make_split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.scene.synthetic import make_synthetic_scene

FAST = ("--set", "model={name: svm, penalty: 1, gamma: 0.1}", "--set", "prediction.calibration=none", "--device", "cpu")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes a scene of some size and returns the paths of its cube and labels; below a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def write(rows: int = 30, cols: int = 30, *, bands: int = 16, labels: np.ndarray | None = None) -> tuple[str, str]:
        scene = make_synthetic_scene(seed=0, rows=rows, cols=cols, bands=bands)
        np.save("cube.npy", scene.cube)
        np.save("labels.npy", scene.labels if labels is None else labels)
        return "cube.npy", "labels.npy"

    return write


def test_from_two_files_to_a_page_and_nothing_is_trained_twice(call, files, tmp_path):
    arguments = (*files(24, 24), "--out", "first", *FAST, "--set", "split={kind: random, train: {per_class: 6}}")
    code, out, err = call("quickstart", *arguments)
    assert code == 0, err
    assert out.startswith("config: first.yaml\n")
    assert "\npage:   first/report.html\n" in out
    assert (tmp_path / "first" / "report.html").is_file()
    bundle = tmp_path / "first" / "bundle.safetensors"
    time = bundle.stat().st_mtime_ns
    code, again, _ = call("quickstart", *arguments)
    assert (code, bundle.stat().st_mtime_ns) == (0, time)
    assert "\npage:   first/report.html\n" in again
    code, _, err = call("quickstart", *arguments, "--set", "patch.size=3")
    assert code == 2
    assert err == (
        "hsi-se: first.yaml: exists with other settings; choose another folder with --out DIR, "
        "or run `hsi-se train first.yaml --out first`\n"
    )


@pytest.mark.slow
def test_folds_are_pooled_in_one_page(call, files, tmp_path):
    code, out, err = call("quickstart", *files(24, 24), *FAST, "--set", "split.folds=2")
    assert code == 0, err
    (page,) = [line.removeprefix("page:   ") for line in out.splitlines() if line.startswith("page:")]
    assert (tmp_path / page).is_file()
    assert page.startswith("runs/quickstart-cube/")
    words = shlex.split(out.splitlines()[-1].removeprefix("next: "))
    code, _, err = call(*words[1:], "--device", "cpu")
    assert code == 0, err
    code, out, err = call("eval", "runs/quickstart-cube-all", "--device", "cpu")
    assert code == 0, err
    assert "The accuracies are those of the folds in runs/quickstart-cube" in out


def test_a_dry_run_writes_what_inspect_writes_and_no_more(call, files, tmp_path):
    paths = files()
    code, out, err = call("quickstart", *paths, "--dry-run")
    assert (code, err) == (0, "")
    path = "runs/quickstart-cube.yaml"
    assert out == f"config: {path}\nnext: hsi-se train {path} --out runs/quickstart-cube\n"
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["quickstart-cube.yaml"]
    call("scene", "inspect", *paths, "--write-config", "by-hand.yaml")
    assert (tmp_path / "by-hand.yaml").read_text() == (tmp_path / path).read_text()
    code, _, err = call("quickstart", *paths, "--dry-run", "--device", "cpu")
    assert (code, err) == (2, "hsi-se: --device: has no effect with --dry-run; leave one of them out\n")


def suggest(call, paths, *, out: str = "x"):
    code, _, err = call("quickstart", *paths, "--out", out, "--dry-run")
    assert code == 0, err
    return load_config(f"{out}.yaml")


@pytest.mark.parametrize(
    ("rows", "cols", "bands", "patch"), [(24, 24, 16, 9), (40, 200, 16, 9), (60, 70, 20, 13), (120, 110, 40, 13)]
)
def test_the_sizes_follow_those_of_the_files_and_validation_is_never_a_handful(call, files, rows, cols, bands, patch):
    config = suggest(call, files(rows, cols, bands=bands))
    truth = load_ground_truth(config.scene)
    splits = [make_split(truth, part.split, seed=0) for part in config.list_folds()]
    num_train = min(len(each.train) for each in splits)
    sizes = {len(each.val) for each in splits}
    assert min(sizes) >= 50 or sizes == {0}
    assert config.patch.size == patch
    assert config.train.batch_size == (32 if num_train < 2000 else 64 if num_train < 8000 else 128)
    steps = config.train.epochs * num_train / config.train.batch_size
    assert 5 <= config.train.epochs <= 60
    assert config.train.epochs in (5, 60) or 1400 < steps < 1600
    assert config.reduction.components == min(30, bands)
    if isinstance(config.split, FoldsSplit):
        tested, lost = 0, 0
        for each in splits:
            labels = truth.labels[tuple(each.test.T)]
            tested += len(labels)
            lost += int((~np.isin(labels, truth.labels[tuple(each.train.T)])).sum())
        assert tested == (truth.labels > 0).sum()
        assert lost <= 0.05 * tested


def test_labels_in_many_fields_are_tested_by_fields_and_those_of_one_each_by_blocks_or_at_random(call, files):
    rows, cols = np.indices((60, 60))
    many = np.where((rows % 12 < 8) & (cols % 12 < 8), 1 + (rows // 12 + cols // 12) % 3, 0).astype(np.uint8)
    config = suggest(call, files(60, 60, labels=many))
    assert (config.split.kind, config.split.by) == ("folds", "fields")
    halves = np.where(cols < 30, 1, 2).astype(np.uint8)
    config = suggest(call, files(60, 60, labels=halves), out="y")
    assert (config.split.kind, config.split.by) == ("folds", "blocks")


def test_a_scene_smaller_than_any_patch_gets_a_classifier_of_single_pixels(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = np.repeat([[1, 2]], 8, axis=0).repeat(4, axis=1).astype(np.uint8)
    np.save(tmp_path / "small.npy", np.random.default_rng(0).random((8, 8, 5)))
    np.save(tmp_path / "few.npy", labels)
    config = suggest(call, ("small.npy", "few.npy"))
    assert (config.model.name, config.patch.size, config.split.validation) == ("svm", 1, 0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (["absent.npy", "labels.npy"], "absent.npy: does not exist; "),
        (["labels.npy", "labels.npy"], "names a file twice"),
        (["cube.npy", "cube2.npy"], "are both cubes"),
        (["labels.npy", "labels2.npy"], "are both label maps"),
        (["cube.npy", "labels.npy", "--set", "patch.sise=3"], "patch.sise"),
        (["cube.npy", "labels.npy", "--set", "scene.cubekey=a"], "cubekey"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(call, files, tmp_path, change, problem):
    files()
    for name in ("cube", "labels"):
        (tmp_path / f"{name}2.npy").write_bytes((tmp_path / f"{name}.npy").read_bytes())
    code, out, err = call("quickstart", *change, "--out", "x")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert problem in err
    assert not (tmp_path / "x.yaml").exists()


def write_polygons(*, side: int = 60, lonely: bool = False) -> tuple[str, str]:
    """A cube, and 25 drawn squares of three classes; `lonely` gives one of them a class of its own."""
    scene, ground = make_synthetic_scene(seed=0, rows=side, cols=side, bands=16), Affine(30, 0, 362175, 0, -30, 5809965)
    with rasterio.open(
        "cube.tif", "w", driver="GTiff", height=side, width=side, count=16, dtype=scene.cube.dtype, crs="EPSG:32633",
        transform=ground,
    ) as file:  # fmt: skip
        file.write(scene.cube.transpose(2, 0, 1))
    corners = [(row, col) for row in range(0, 60, 12) for col in range(0, 60, 12)]
    squares = [shapely.box(*(ground @ (col, row + 8)), *(ground @ (col + 8, row))) for row, col in corners]
    crops = ["beet" if (row + col) % 36 == 0 else "maize" if (row + col) % 36 == 12 else "soil" for row, col in corners]
    crops[12] = "water" if lonely else crops[12]
    geopandas.GeoDataFrame({"crop": crops}, geometry=squares, crs="EPSG:32633").to_file("fields.gpkg")
    return "cube.tif", "fields.gpkg"


@pytest.mark.parametrize("lonely", [False, True])
def test_drawn_polygons_are_tested_whole_also_where_a_class_has_one_of_them(call, tmp_path, monkeypatch, lonely):
    monkeypatch.chdir(tmp_path)
    config = suggest(call, write_polygons(lonely=lonely))
    assert (config.split.kind, config.split.by) == ("folds", "groups")
    truth = load_ground_truth(config.scene)
    for part in config.list_folds():
        split = make_split(truth, part.split, seed=0)
        numbers = [set(truth.polygons[tuple(pixels.T)]) for pixels in (split.train, split.test)]
        assert not numbers[0] & numbers[1]
    comment = "A fold that tests water has no other polygon or field of it to train on."
    assert (comment in (tmp_path / "x.yaml").read_text()) == lonely
