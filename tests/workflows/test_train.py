"""The whole flow on a tiny scene: what a run folder holds, and that it says the same elsewhere."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import scipy.io
import spectral.io.envi
import torch

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import RunError, SceneError, TrainingError
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.class_map import ClassMap, pick_classes
from hsi_se.prediction.logits import predict_logits
from hsi_se.progress import EpochRecord, Silent
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import RunFacts
from hsi_se.sampling.patches import pad_cube
from hsi_se.system.session import Session
from tests.conftest import CPU, ROOT, TINY


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory) -> RunFolder:
    return hsi_se.train(tiny_config, out=tmp_path_factory.mktemp("runs") / "tiny", session=CPU)


@pytest.fixture(scope="module", name="evaluation")
def _evaluation(run):
    return hsi_se.evaluate(run).evaluation


def test_a_run_folder_holds_what_training_made(run, tiny_config):
    assert {path.name for path in run.path.iterdir()} >= {
        "config.yaml", "record.json", "split.safetensors", "bundle.json", "bundle.safetensors",
    }  # fmt: skip
    assert run.read_config() == tiny_config
    record = run.read_record()
    split = run.read_split()
    assert record.config_digest == tiny_config.digest
    assert record.split_digest == split.digest
    assert record.num_train == len(split.train)
    assert len(record.history) == 2
    assert record.macs_per_patch > 0


def test_a_split_read_back_is_the_one_that_make_split_draws(run, tiny_config):
    scene = hsi_se.load_scene(tiny_config.scene)
    assert hsi_se.make_split(scene, tiny_config.split, seed=tiny_config.seed).digest == run.read_split().digest


def test_the_report_has_the_keys_that_others_read(run, evaluation):
    report = json.loads(run.report.read_text())
    assert report["overall_accuracy"] == evaluation.overall_accuracy
    assert report["average_accuracy"] == evaluation.average_accuracy
    assert report["kappa"] == evaluation.kappa
    assert report["confusion_matrix"] == evaluation.confusion.tolist()
    assert report["num_test"] == evaluation.num_test == len(run.read_split().test)
    assert report["config_digest"] == run.read_config().digest
    assert report["seed"] == 0
    assert [row["label"] for row in report["per_class"]] == list(evaluation.class_ids)
    assert set(report["per_class"][0]) == {
        "label", "name", "support", "producers_accuracy", "users_accuracy", "f1",
    }  # fmt: skip
    assert 0 <= report["overall_accuracy"] <= 1


def test_the_report_counts_the_test_pixels_alone(run, evaluation, tiny_config):
    scene = hsi_se.load_scene(tiny_config.scene)
    test = run.read_split().test
    labels, counts = np.unique(scene.labels[test[:, 0], test[:, 1]], return_counts=True)
    assert dict(zip(evaluation.class_ids, evaluation.support.tolist(), strict=True)) == dict(
        zip(labels.tolist(), counts.tolist(), strict=True)
    )


def test_the_markdown_report_shows_every_class_and_the_map(run, evaluation):
    text = run.report_text.read_text()
    for name in evaluation.class_names:
        assert f"| {name} |" in text
    assert f"({run.map_figure.name})" in text
    assert matplotlib.image.imread(run.map_figure).ndim == 3
    assert f"{100 * evaluation.overall_accuracy:.2f} %" in text


@pytest.mark.usefixtures("evaluation")
def test_evaluation_writes_one_picture_and_what_the_page_and_later_commands_read(run, tmp_path):
    copy = RunFolder(tmp_path / "copy")
    copy.path.mkdir()
    trained = ("config.yaml", "record.json", "progress.jsonl", "split.safetensors", "bundle.json", "bundle.safetensors")
    for name in trained:
        shutil.copy(run.path / name, copy.path)
    hsi_se.evaluate(copy)
    assert {path.name for path in copy.path.iterdir()} - set(trained) == {
        "report.html", "report.md", "report.json", "map.png",
        "predictions.safetensors", "mapping_cost.json", "explorer.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize("place", [None, ["UTM", 1, 1, 353128, 3813729, 20, 20, 11, "North", "WGS-84"]])
def test_areas_are_in_hectares_where_the_scene_says_how_large_a_pixel_is(small_scene, tmp_path, place):
    cube, labels = tmp_path / "cube.hdr", tmp_path / "labels.npy"
    facts = {} if place is None else {"map info": place}
    spectral.io.envi.save_image(str(cube), small_scene.cube, metadata=facts)
    np.save(labels, small_scene.labels)
    settings = [*TINY, f"scene={{cube: {cube}, labels: {labels}}}"]
    run = hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", settings), out=tmp_path / "run")
    hsi_se.evaluate(run)
    report, text = json.loads(run.report.read_text()), run.report_text.read_text()
    assert report["pixel_area_m2"] == (None if place is None else 400)
    assert ("adjusted (ha)" in text) == (place is not None)
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {report['area'][0]['label']} | ")][-1:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2] == str(report["area"][0]["mapped_pixels"])
    assert len(cells) == (5 if place is None else 7)
    if place is not None:
        assert float(cells[5]) == pytest.approx(report["area"][0]["adjusted_pixels"] / 25, rel=1e-3)
    table = text[text.index("| label | class | mapped") :].split("\n\n")[0]
    assert len(table.splitlines()) == 2 + len(report["area"])
    overall = report["area_adjusted_accuracy"]["overall_accuracy"]
    assert f"By area, {'–' if overall is None else f'{100 * overall:.2f}'} % of the map" in text


def test_evaluating_again_writes_the_same_report(run, evaluation):
    before = run.report.read_text()
    assert np.array_equal(hsi_se.evaluate(run).evaluation.confusion, evaluation.confusion)
    assert run.report.read_text() == before
    assert not list(run.path.glob(".*")), "no drafts are left"


IN_A_NEW_PROCESS = """
import sys, torch, hsi_se
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.logits import predict_logits
{cut}
torch.manual_seed(0)
torch.set_num_threads(1)
model = build_bundled_model(hsi_se.load_bundle(sys.argv[1])).train()
cube = torch.load(sys.argv[2], weights_only=True).numpy()
torch.save(torch.from_numpy(predict_logits(model, cube, engine="patches", padding="reflect")), sys.argv[3])
"""


def predict_in_a_new_process(run: RunFolder, cube: torch.Tensor, folder: Path, *, cut: str = "") -> torch.Tensor:
    torch.save(cube, folder / "cube.pt")
    command = [sys.executable, "-c", IN_A_NEW_PROCESS.format(cut=cut)]
    subprocess.run([*command, run.path, folder / "cube.pt", folder / "logits.pt"], check=True)
    return torch.load(folder / "logits.pt", weights_only=True)


def predict_here(run: RunFolder, cube: torch.Tensor) -> torch.Tensor:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = build_bundled_model(hsi_se.load_bundle(run)).train()
        return torch.from_numpy(predict_logits(model, cube.numpy(), engine="patches", padding="reflect"))
    finally:
        torch.set_num_threads(threads)


def test_a_bundle_gives_the_same_logits_in_a_new_process(run, tmp_path):
    cube = torch.randn(10, 11, 13)
    assert torch.equal(predict_here(run, cube), predict_in_a_new_process(run, cube, tmp_path))


def test_without_the_switch_to_evaluation_a_new_process_gives_other_logits(run, tmp_path):
    cube = torch.randn(10, 11, 13)
    cut = "torch.nn.Module.eval = lambda self: self"
    assert not torch.allclose(predict_here(run, cube), predict_in_a_new_process(run, cube, tmp_path, cut=cut))


def test_eval_in_a_new_process_writes_the_same_report(run, evaluation):
    del evaluation  # evaluated here first
    before = run.report.read_text()
    command = [sys.executable, "-m", "hsi_se", "eval", str(run), "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True)
    after, before = json.loads(run.report.read_text()), json.loads(before)
    assert after["confusion_matrix"] == before["confusion_matrix"]
    assert after["overall_accuracy"] == before["overall_accuracy"]


def test_the_same_config_trains_the_same_bundle(run, tiny_config, tmp_path):
    again = hsi_se.train(tiny_config, out=tmp_path / "again", session=CPU)
    assert again.bundle_arrays.read_bytes() == run.bundle_arrays.read_bytes()
    assert again.split.read_bytes() == run.split.read_bytes()


def test_the_default_folder_is_called_after_the_date_the_name_and_the_digest(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = hsi_se.train(tiny_config, session=CPU)
    assert folder.path.parent.name == "runs"
    date, name, digest = folder.path.name.rsplit("-", 2)
    assert len(date) == len("2026-01-31")
    assert (name, digest) == ("demo", tiny_config.digest[:8])


def test_a_run_is_replaced_only_when_asked(run, tiny_config):
    before = run.bundle_arrays.read_bytes()
    with pytest.raises(RunError, match=r"exists; choose another with out=DIR, or set overwrite=True"):
        hsi_se.train(tiny_config, out=run.path)
    assert run.bundle_arrays.read_bytes() == before


class Broken(Silent):
    """Fails after the first epoch, with a look at the folder."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def epoch(self, record: EpochRecord) -> None:
        assert record.epoch == 1
        start, epochs = self.folder.read_progress()
        assert epochs == (record,)
        assert (start.epochs, start.class_ids) == (2, tuple(range(1, 10)))
        for use, how in ((RunFolder.open, "hsi-se resume {}"), (hsi_se.evaluate, 'hsi_se.resume("{}")')):
            with pytest.raises(RunError, match=re.escape(f"not finished; resume with `{how.format(self.folder)}`")):
                use(self.folder)
        for session in (Session(), Session(observer=Silent())):
            with pytest.raises(RunError, match="another process is training there"):
                hsi_se.train(self.folder.read_config(), out=self.folder.path, session=session)
        raise TrainingError("too bad")


def test_a_run_that_fails_shows_its_progress_until_then_and_gives_back_what_it_replaced(run, tiny_config, tmp_path):
    earlier = shutil.copytree(run.path, tmp_path / "runs" / "a")
    for path, options in ((earlier, {"overwrite": True}), (earlier.parent / "b", {})):
        with pytest.raises(TrainingError, match="too bad"):
            hsi_se.train(tiny_config, out=path, session=Session(observer=Broken(RunFolder(path))), **options)
    assert [path.name for path in earlier.parent.iterdir()] == ["a"]
    assert RunFolder.open(earlier).read_record() == run.read_record()


def test_progress_says_what_the_record_says(run):
    start, epochs = run.read_progress()
    record = run.read_record()
    assert epochs == record.history
    assert {name: getattr(start, name) for name in RunFacts.model_fields} == {
        name: getattr(record, name) for name in RunFacts.model_fields
    }
    assert start.epochs == len(epochs)
    split = run.read_split()
    scene = hsi_se.load_scene(run.read_config().scene)
    counts = np.bincount(scene.labels[tuple(split.val.T)], minlength=10)[1:]
    for epoch in epochs:
        right = sum(n * share for n, share in zip(counts, epoch.validation_per_class, strict=True) if n)
        assert right / len(split.val) == pytest.approx(epoch.validation_accuracy)


def test_a_line_that_is_half_written_is_no_epoch(run, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "copy"))
    copy.progress.write_bytes(copy.progress.read_bytes()[:-5])
    assert copy.read_progress()[1] == run.read_progress()[1][:-1]
    copy.progress.write_bytes(b'{"name": 3}\n')
    with pytest.raises(RunError, match=r"progress\.jsonl: not what this version writes"):
        copy.read_progress()


def test_gapped_ids_survive_the_whole_flow(tmp_path):
    scene = hsi_se.load_scene(load_config(ROOT / "configs" / "demo.yaml", TINY).scene)
    gapped = np.where(scene.labels > 1, scene.labels + 8, scene.labels)
    scipy.io.savemat(tmp_path / "scene.mat", {"cube": scene.cube, "labels": gapped})
    files = f"scene={{cube: {tmp_path}/scene.mat, labels: {tmp_path}/scene.mat}}"
    config = load_config(ROOT / "configs" / "demo.yaml", [*TINY, files])
    run = hsi_se.train(config, out=tmp_path / "run")
    evaluation = hsi_se.evaluate(run).evaluation
    assert evaluation.class_ids == (1, *range(10, 18))
    assert set(evaluation.class_names) == {f"class {label}" for label in evaluation.class_ids}


def test_a_run_is_not_evaluated_on_another_edition_of_its_scene(tmp_path):
    scene = hsi_se.load_scene(load_config(ROOT / "configs" / "demo.yaml", TINY).scene)
    path = tmp_path / "scene.mat"
    scipy.io.savemat(path, {"cube": scene.cube, "labels": scene.labels})
    config = load_config(
        ROOT / "configs" / "demo.yaml", [*TINY, f"scene={{cube: {path}, labels: {path}}}", "train.epochs=1"]
    )
    run = hsi_se.train(config, out=tmp_path / "run")
    scipy.io.savemat(path, {"cube": scene.cube + 1, "labels": scene.labels})
    with pytest.raises(RunError, match="another edition of scene"):
        hsi_se.evaluate(run)
    path.unlink()
    with pytest.raises(SceneError, match=r"scene\.mat"):
        hsi_se.evaluate(run)
    assert not run.report.exists()


def test_evaluation_finds_the_data_folder_that_training_used(tmp_path, monkeypatch):
    scene = hsi_se.load_scene(load_config(ROOT / "configs" / "demo.yaml", TINY).scene)
    (tmp_path / "data").mkdir()
    scipy.io.savemat(tmp_path / "data" / "mine.mat", {"cube": scene.cube, "labels": scene.labels})
    config = load_config(
        ROOT / "configs" / "demo.yaml", [*TINY, "scene={cube: mine.mat, labels: mine.mat}", "train.epochs=1"]
    )
    run = hsi_se.train(config, session=Session(data=tmp_path / "data"), out=tmp_path / "run")
    monkeypatch.chdir("/")
    hsi_se.evaluate(run)


# ------------------------------------------------------------------------------------------ maps


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_every_pixels_logits_are_those_of_its_own_patch(run, padding):
    model = build_bundled_model(hsi_se.load_bundle(run)).eval()
    cube = np.random.default_rng(0).normal(size=(11, 13, 13)).astype(np.float32)
    logits = predict_logits(model, cube, engine="patches", padding=padding)
    assert logits.shape == (11, 13, 9)
    padded = pad_cube(cube, patch_size=9, padding=padding)
    for row, col in [(0, 0), (10, 12), (5, 6), (0, 12)]:
        patch = padded[row : row + 9, col : col + 9].permute(2, 0, 1)[None, None]
        np.testing.assert_allclose(logits[row, col], model(patch)[0].detach(), rtol=1e-4, atol=1e-5)


def test_classes_go_back_to_the_ids_of_the_ground_truth():
    logits = np.zeros((1, 3, 2), np.float32)
    logits[0, 1, 1] = 1
    palette = {0: (0, 0, 0), 1: (255, 0, 0), 14: (0, 0, 255)}
    ids = np.array([1, 14], np.int32)
    labels = pick_classes(logits, class_ids=ids, missing=np.zeros((1, 3), bool))
    assert labels.dtype == np.int32
    hole = np.array([[False, True, False]])
    assert pick_classes(logits, class_ids=ids, missing=hole).tolist() == [[1, 0, 1]]
    class_map = ClassMap(labels, {1: "a", 14: "b"}, palette)
    assert class_map.labels.tolist() == [[1, 14, 1]]
    assert class_map.to_rgb().tolist() == [[[255, 0, 0], [0, 0, 255], [255, 0, 0]]]
    masked = ClassMap(pick_classes(logits, class_ids=ids, missing=hole), {1: "a", 14: "b"}, palette)
    assert masked.to_rgb()[0, 1].tolist() == [0, 0, 0]


@pytest.mark.usefixtures("evaluation")
def test_a_map_figure_shows_the_class_colours(run):
    palette = hsi_se.load_bundle(run).facts.palette
    pixels = matplotlib.image.imread(run.map_figure)[..., :3]
    shown = {tuple(colour) for colour in np.unique((255 * pixels).round().astype(int).reshape(-1, 3), axis=0).tolist()}
    assert {palette[label] for label in palette if label} <= shown
