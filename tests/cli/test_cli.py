"""The commands as a user types them: what they print, on a terminal and off it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.io

from hsi_se.config.experiment import Config
from hsi_se.config.model import Ssrn, list_blocks
from hsi_se.progress import clock
from hsi_se.scene.synthetic import make_synthetic_scene
from tests.conftest import ROOT, TINY

DEMO = str(ROOT / "configs" / "demo.yaml")
TINY_OPTIONS = [part for override in TINY for part in ("--set", override)]


def test_train_then_eval_end_with_the_accuracies_and_the_reports_path(call, tmp_path):
    folder = tmp_path / "run"
    code, out, err = call("train", DEMO, *TINY_OPTIONS, "--out", folder, "--device", "cpu")
    assert code == 0
    assert out.splitlines() == [f"run folder: {folder}", f"next: hsi-se eval {folder}"]
    assert re.search(r"training +\d+ % .* patches/s .* left +epoch 2 +loss \d+\.\d+ +validation accuracy [\d.]+ %", err)

    code, out, err = call("eval", folder, "--device", "cpu")
    assert code == 0
    report = json.loads((folder / "report.json").read_text())
    lines = out.splitlines()
    headings = next(line for line in lines if "overall accuracy" in line and "│" not in line)
    assert re.findall(r"\w+ ?\w+", headings) == ["overall accuracy", "average accuracy", "kappa"]
    pattern = r"│ {} +│ +([\d.]+) % │ +([\d.]+) % │ +(-?[\d.]+) │"
    accuracies = next(filter(None, (re.fullmatch(pattern.format("network"), line) for line in lines)))
    assert float(accuracies[1]) == pytest.approx(100 * report["overall_accuracy"], abs=0.005)
    assert float(accuracies[2]) == pytest.approx(100 * report["average_accuracy"], abs=0.005)
    assert float(accuracies[3]) == pytest.approx(report["kappa"], abs=5e-5)
    for method, key in (("location floor", "location_floor"), ("spectral baseline", "spectral_baseline")):
        found = next(filter(None, (re.fullmatch(pattern.format(method), line) for line in lines)))
        assert float(found[1]) == pytest.approx(100 * report[key]["overall_accuracy"], abs=0.005)
    assert report["verdict"] in out
    assert lines[-1] == f"report: {folder / 'report.md'}"
    for row in report["per_class"]:
        first = row["name"].split()[0]  # a long name takes several lines
        assert re.search(rf"{row['label']} .*{re.escape(first)}.* {row['support']} ", out)


def test_a_terminal_gets_a_progress_bar(tmp_path):
    command = [sys.executable, "-m", "hsi_se", "train", DEMO, *TINY_OPTIONS, "--out", str(tmp_path / "run")]
    code = (
        "import os, pty, sys\n"
        "os.environ.update(TERM='xterm', COLUMNS='140', LINES='30')\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, check=True)
    screen = done.stdout.decode()
    assert "━" in screen
    assert re.search(r"patches/s", screen)
    assert re.search(r"epoch 2 +loss", screen)
    assert "run folder:" in screen


@pytest.mark.parametrize("kind", ["pca", "mnf"])
def test_info_prints_every_stage_its_slot_and_the_totals(call, kind):
    reduction = f"reduction={{kind: {kind}, components: 30, fit_on: train}}"
    paper = ("scene=indian-pines", "patch.size=25", reduction)
    code, out, _ = call("info", DEMO, *(part for change in paper for part in ("--set", change)))
    assert code == 0
    for text in ("conv3d_1", "(8, 24, 23, 23)", "attention.fold", "576→36→576", "5,165,080", "248,178,920"):
        assert text in out


def test_info_takes_any_size_and_says_what_attention_adds(call, tmp_path):
    config = tmp_path / "resnet.yaml"
    of_demo = (ROOT / "configs" / "demo.yaml").read_text().partition("model:")[0]
    config.write_text(f"{of_demo}model: {{name: se_resnet, depth: 50, stem: imagenet}}\ntrain: {{epochs: 1}}\n")
    code, out, _ = call("info", config, "--size", "224x224x3", "--classes", "1000")
    assert code == 0
    assert "total for (1, 3, 224, 224)" in out
    assert out.splitlines()[-1] == (
        "Attention adds 2,530,992 parameters (+9.90 %) and 13,569,712 MACs (+0.35 %) to the 25,557,032 and "
        "3,857,973,248 of the same network without it."
    )
    for size, shape in (("15", (1, 15, 15, 15)), ("15x15", (1, 15, 15, 15)), ("16×16×40", (1, 40, 16, 16))):
        assert f"total for {shape}" in call("info", DEMO, "--size", size)[1], size
    code, out, _ = call("info", DEMO, "--size", "65536x65536x500", "--set", "model.attention={}")
    assert code == 0, "no values are computed"
    assert out.splitlines()[-1] == "The network has no attention."


def test_info_lists_a_networks_points_and_the_blocks_that_fit(call):
    code, out, _ = call("info", "--points", "ssrn")
    assert code == 0
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert list(rows) == list(Ssrn.points)
    assert "strip_pooling" in rows["spatial_1"]
    assert "strip_pooling" not in rows["spectral_1"]


def test_info_compares_every_block_at_every_point(call):
    code, out, _ = call("info", DEMO, "--compare-attention", "--set", "model={name: cnn3d}")
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [row[1] for row in rows] == [block.kind for block in list_blocks()] * 3
    costs = {row[1]: row for row in rows[-len(list_blocks()) :]}  # at conv3d_3, 32 features
    values = 32 * 3 * 5 * 5  # of the features: patches of 11 × 11 × 15
    assert costs["se"][2:4] == [str(2 * 32 * 2 + 2 + 32), f"{2 * values + 2 * 32 * 2 + 2 + 32:,}"]
    assert costs["eca"][2:4] == ["3", f"{2 * values + 32 * 3 + 32:,}"]
    assert costs["simam"][2:4] == ["0", f"{8 * values + 3 * 32:,}"]
    assert float(costs["nonlocal"][4].replace(",", "")) > 0
    assert costs["strip_pooling"][4] == "does not fit"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "info: give either a CONFIG or --points NAME"),
        ((DEMO, "--points", "ssrn"), "info: give either a CONFIG or --points NAME"),
        (("--points", "resnet"), "--points resnet: unknown network; did you mean 'res2net'? choose from "),
        ((DEMO, "--set", "model={name: svm}"), "model.name = svm: is fitted, not built"),
        ((DEMO, "--compare-attention", "--set", "model={name: svm}"), "model.name = svm: has no points"),
        ((DEMO, "--size", "3"), "--size 3: four 3 × 3 convolutions without padding need at least 9; write --size 9"),
        ((DEMO, "--size", "11x11x3"), "input bands = 3: "),
        ((DEMO, "--size", "9x11"), "--size 9x11: networks take square patches; write 9x9"),
        ((DEMO, "--size", "11x11x15x2"), "--size 11x11x15x2: not a size; write rows, columns and bands as 2"),
        ((DEMO, "--size", "0"), "--size 0: out of range; write numbers from 1 to 65,536"),
        ((DEMO, "--classes", "0"), "--classes 0: out of range; write numbers from 1 to 65,536"),
        ((DEMO, "--size", "11x11x15", "--classes", "2", "--data", "."), "--data: has no effect with bands in"),
    ],
)
def test_a_mistake_in_info_is_one_line(call, arguments, message):
    code, out, err = call("info", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"hsi-se: {message}")


def test_schema_describes_every_section(call):
    code, out, _ = call("schema")
    assert code == 0
    assert set(json.loads(out)["properties"]) == set(Config.model_fields)


def test_a_mistyped_command_or_option_exits_with_2(call):
    for arguments in (["trian"], ["train"], ["train", DEMO, "--sett", "a=b"], ["eval"]):
        code, _, err = call(*arguments)
        assert code == 2
        assert "Traceback" not in err


def test_split_draws_and_audits_without_a_cube_or_a_training(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = make_synthetic_scene(seed=0, rows=60, cols=60).labels
    scipy.io.savemat(tmp_path / "labels.mat", {"labels": labels})
    scene = ("--set", "scene={cube: absent.mat, labels: labels.mat}")
    blocks = ("--set", "split={kind: blocks, train: 0.2, block_size: 8}", "--set", "patch.size=9")
    code, out, _ = call("split", DEMO, *scene, *blocks, "--out", "audit.json", "--out", "split.npz", "--out", "s.png")
    assert code == 0
    audit = json.loads((tmp_path / "audit.json").read_text())
    assert audit["leakage"]["test_patches_with_train_pixels"] == 0
    assert audit["leakage"]["min_distance"] >= 9
    assert audit["location_floor"]["overall_accuracy"] > 0
    counts = [audit[f"num_{side}"] for side in ("train", "val", "test", "buffer")]
    assert sum(counts) == (labels > 0).sum()
    assert " ".join(f"{count:,}" for count in counts) in re.sub(r"[ │]+", " ", out)
    assert "0.00 % of test patches contain training pixels" in out
    assert {path.name for path in tmp_path.iterdir()} == {"labels.mat", "audit.json", "split.npz", "s.png"}

    read_back = ("--set", "split={kind: masks, partition: split.npz}")
    code, _, _ = call("split", DEMO, *scene, *read_back, "--set", "patch.size=9", "--out", "again.json")
    assert code == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == {**audit, "notes": []}
    assert not (tmp_path / "runs").exists()
    assert call("split", DEMO, *scene, *blocks)[0] == 0
    assert [path.suffix for path in (tmp_path / "runs").iterdir()] == [".png"]


@pytest.mark.parametrize("name", ["split.txt", "split", "folder", "folder.png"])
def test_a_split_is_written_in_known_formats_only(call, tmp_path, name):
    path = tmp_path / name
    if "folder" in name:
        path.mkdir()
    before = list(tmp_path.iterdir())
    code, _, err = call("split", DEMO, *TINY_OPTIONS, "--out", tmp_path / "audit.json", "--out", path)
    endings = ".png, .pdf, .svg, .json, .mat, .npz"
    assert (code, err) == (2, f"hsi-se: --out {path}: name a file that ends in {endings}\n")
    assert list(tmp_path.iterdir()) == before


def test_seeds_are_trained_and_evaluated_and_end_with_the_interval(call, tmp_path):
    folder = tmp_path / "seeds"
    quick = ("--set", "train.epochs=1")
    code, out, err = call("train", DEMO, *TINY_OPTIONS, *quick, "--seeds", "0,1", "--out", folder)
    assert code == 0
    assert "demo on synthetic farmland, seed 0, n = 2 seeds" in out
    assert re.search(r"network .* ± .*\[", out)
    assert re.search(r"│ 1 +│ [^│]+│ +[\d.]+ ± [\d.]+ \[", out), "the producer's accuracy of a class"
    assert "location floor" in out
    assert "spectral baseline" in out
    assert "note: Every seed has its own split" in out
    assert "test patches contain training pixels" in out
    assert "critical-difference" not in out
    assert out.splitlines()[-1] == f"report: {folder / 'ablation.md'}"
    assert re.match(r"1/2  demo, seed 0  finished  accuracy [\d.]+ %", err)


@pytest.mark.slow
def test_gap_prints_both_splits_side_by_side(call, tmp_path):
    split = ("--set", "split={kind: folds, by: blocks, folds: 2, block_size: 5, buffer: 2}")
    code, out, _ = call("gap", DEMO, *TINY_OPTIONS, *split, "--set", "train.epochs=1", "--out", tmp_path / "gap")
    assert code == 0
    assert re.search(
        r"optimism gap: -?[\d.]+ points of overall accuracy, without an interval: one random split and one", out
    )
    assert re.search(rf"\nnext: .*`hsi-se train {tmp_path / 'gap' / 'folds' / 'config.yaml'} ", out)
    assert "`hsi-se gap " not in out  # which has just been done
    for row in ("network", "location floor", "spectral baseline", "test patches that leak", "training pixels"):
        assert row in out
    said = "the same network with as many training pixels per class as the folds have on average"
    assert said in " ".join(out.split())


def test_overwrite_with_seeds_is_refused(call, tmp_path):
    code, _, err = call("train", DEMO, "--seeds", "0-1", "--overwrite", "--out", tmp_path / "seeds")
    assert code == 2
    assert err.startswith("hsi-se: --overwrite: has no effect with --seeds")


def test_a_path_that_cannot_be_written_is_one_line(call, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call("split", DEMO, *TINY_OPTIONS, "--out", tmp_path / "file" / "split.png")
    assert code == 2
    assert re.fullmatch(r"hsi-se: .*file.*: .*; check the path, its permissions and the free disk space\n", err)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["corn [no-till]", "soy [/x]", ":corn:", "wheat $5^$ or", "$a_x$", "oats | barley"])
def test_a_class_may_be_called_what_it_likes(call, tmp_path, name):
    """Brackets and colons are markup to rich, dollars mathematics to matplotlib, bars cells to Markdown."""
    scene = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16)
    np.save(tmp_path / "cube.npy", scene.cube)
    np.save(tmp_path / "labels.npy", scene.labels)
    names = [name, *(f"class {label}" for label in scene.class_ids[1:])]
    files = {"cube": f"{tmp_path}/cube.npy", "labels": f"{tmp_path}/labels.npy", "class_names": names}
    changes = [f"scene={json.dumps(files)}", *TINY[1:], "train.epochs=1", "model.width=0.25"]
    options = [part for change in changes for part in ("--set", change)]
    run = tmp_path / "run"
    assert call("train", ROOT / "configs" / "demo.yaml", *options, "--out", run)[0] == 0
    code, out, err = call("eval", run)
    assert code == 0, err
    assert name in out
    assert call("report", run, "--figures", "svg")[0] == 0
    text = (run / "report.md").read_text()
    assert name.replace("|", "\\|") in text
    rows = [line for line in text.splitlines() if line.startswith("| 1 |")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) <= 3  # one for each table


def test_a_day_and_more_is_told_in_hours():
    told = ["0:00:00", "0:01:00", "1:02:05", "60:00:00"]
    assert [clock(seconds) for seconds in (0, 59.6, 3725, 216_000)] == told


@pytest.mark.parametrize(
    "more", [["--set", "nonsense=3"], ["--compare-attention"], ["--data", "."], ["--size", "9"], ["--classes", "2"]]
)
def test_points_stand_alone(call, more):
    code, _, err = call("info", "--points", "ssrn", *more)
    assert code == 2
    assert err == "hsi-se: --points: no other option has an effect with it; leave them out\n"


@pytest.mark.parametrize("more", [["--workers", 2], ["--scheduler", "tcp://127.0.0.1:1"]])
def test_a_dry_run_takes_no_workers(call, more):
    code, _, err = call("ablate", ROOT / "configs" / "ablations" / "placement.yaml", "--dry-run", *more)
    assert code == 2
    assert err == f"hsi-se: {more[0]}: has no effect with --dry-run; leave one of them out\n"


@pytest.mark.parametrize(
    ("seeds", "problem"),
    [
        ("0-99999999999999999999", "a seed must be below 2⁶³"),
        ("9223372036854775808", "a seed must be below 2⁶³"),
        ("0-1000", "0-1000 contains 1001 seeds, and 1 to 1000 are allowed"),
        ("9-0", "9-0 contains 0 seeds, and 1 to 1000 are allowed"),
    ],
)
def test_seeds_out_of_bounds_are_refused(call, seeds, problem):
    code, _, err = call("train", ROOT / "configs" / "demo.yaml", "--seeds", seeds)
    assert code == 2
    assert err == f"hsi-se: --seeds {seeds}: {problem}; write 0-9, or 0,3,5\n"


def test_a_class_of_one_pixel_asks_for_counts_by_label(call, tmp_path):
    labels = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16).labels.copy()
    first = labels == 1
    labels[first] = 0
    labels[tuple(np.argwhere(first)[0])] = 1
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "cube.npy", np.ones((24, 24, 16), np.float32))
    scene = f"scene={{cube: {tmp_path}/cube.npy, labels: {tmp_path}/labels.npy}}"
    split = "split={kind: random, train: {per_class: 1}}"
    code, _, err = call("split", ROOT / "configs" / "demo.yaml", "--set", scene, "--set", split)
    assert code == 2
    assert err.endswith("none would be left for testing; give counts by label, {per_class: {1: 15, …}}\n")


@pytest.mark.parametrize(
    ("arguments", "command", "problem"),
    [
        (["train", "--foo"], "hsi-se train", "unknown option --foo"),
        (["train", DEMO, "extra"], "hsi-se train", "unexpected argument "),
        (["train"], "hsi-se train", "missing argument 'CONFIG'"),
        (["map"], "hsi-se map", "missing argument 'RUN'"),
        (["export", "run"], "hsi-se export", "missing option '--format'"),
        (["scene", "show"], "hsi-se scene show", "missing argument 'NAME'"),
        (["trian"], "hsi-se", "unknown command 'trian'; did you mean `hsi-se train`?"),
        (["train", DEMO, "--set"], "hsi-se train", "--set needs a value: a.b=c"),
        (["ablate", DEMO, "--workers", "nan"], "hsi-se ablate", "invalid value for '--workers': "),
    ],
)
def test_a_mistake_in_a_commands_words_is_one_line(call, arguments, command, problem):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"{command}: {problem}")
    assert err.endswith(f" see `{command} --help`\n")
    assert len(err.splitlines()) == 1


def test_without_words_the_commands_are_listed(call):
    code, out, err = call()
    assert code == 2
    for command in ("train", "eval", "map", "ablate", "report"):
        assert command in out + err


def test_an_interrupted_map_says_how_to_resume(call, monkeypatch, tmp_path):
    options = [*TINY_OPTIONS, "--set", "train.epochs=1", "--device", "cpu"]
    assert call("train", DEMO, *options, "--out", tmp_path / "run")[0] == 0

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hsi_se.maps.write.predict_tiles", interrupt)
    code, _, err = call("map", tmp_path / "run")
    assert code == 130
    assert err.splitlines()[-1] == "hsi-se: interrupted; rerun the same command to resume (finished work is kept)"


def test_options_say_what_holds_without_them(call):
    """Typer takes brackets for markup, and swallows them."""
    for command, words in (("export", "RUN/model.onnx"), ("map", "RUN/map"), ("train", "runs/DATE")):
        assert words in "".join(call(command, "--help")[1].split("│")).replace("\n", " "), command


def write_files(folder, cube, labels) -> str:
    np.save(folder / "cube.npy", cube)
    np.save(folder / "labels.npy", labels)
    return f"scene={{cube: {folder}/cube.npy, labels: {folder}/labels.npy}}"


@pytest.mark.parametrize(
    ("cube", "labels", "problem"),
    [
        (0, None, "pixels have the same spectrum; check the file, scene.nodata and scene.scale"),
        (None, 1, "has one class, but a classifier needs two; check its labels"),
    ],
)
def test_a_scene_with_nothing_to_learn_is_refused(call, tmp_path, cube, labels, problem):
    scene = make_synthetic_scene(seed=0, rows=24, cols=24, bands=16)
    stored = scene.cube if cube is None else np.full_like(scene.cube, cube)
    truth = scene.labels if labels is None else np.full_like(scene.labels, labels)
    changes = [write_files(tmp_path, stored, truth), *TINY[1:]]
    options = [part for change in changes for part in ("--set", change)]
    code, _, err = call("train", DEMO, *options, "--out", tmp_path / "run")
    assert code == 2
    assert problem in err
    assert not (tmp_path / "run").exists()


def test_classes_that_nothing_trains_are_named(call, tmp_path):
    code, out, _ = call("split", DEMO, "--set", "split.train={per_class: {1: 20}}", "--out", tmp_path / "a.png")
    assert code == 0
    assert "split.train.per_class gives no training pixels, so all of them will be classified as another class" in out


def test_an_ablation_takes_its_seeds_from_its_file(call):
    path = ROOT / "configs" / "ablations" / "placement.yaml"
    code, _, err = call("ablate", path, "--dry-run", "--set", "seed=3")
    assert code == 2
    assert err == "hsi-se: --set seed=3: seed: has no effect; write seeds: in the ablation file\n"
