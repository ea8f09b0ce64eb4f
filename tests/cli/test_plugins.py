"""Plugins on the command line: runs that need them, bundles that name them, packages, workers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hsi_se
from hsi_se.ablation.study import load_study
from hsi_se.config.registry import load_plugin
from hsi_se.config.yaml_file import load_config
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.runs.folder import RunFolder
from tests.conftest import CPU, ROOT, TINY, set_options
from tests.plugins import SOURCE, forgetting
from tests.processes import Command, Moment

DEMO = ROOT / "configs" / "demo.yaml"
MODELS = {
    "network": "model={name: two_layers, width: 4, attention: {early: {kind: peak}}}",
    "block": "model={name: hybridsn, width: 0.25, attention: {fold: {kind: peak}, conv2d: {kind: se}}}",
}
REMEDY = "add --plugin my_blocks.py (in Python, hsi_se.load_plugin)"


@pytest.fixture(autouse=True)
def _forgetting():
    with forgetting():
        yield


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "my_blocks.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module", params=MODELS)
def run(request, plugin, tmp_path_factory) -> RunFolder:
    """A run of a network, or of a block in HybridSN."""
    with forgetting():
        load_plugin(plugin)
        config = load_config(DEMO, [*TINY, MODELS[request.param]])
        return RunFolder(hsi_se.train(config, out=tmp_path_factory.mktemp("plugins") / "run", session=CPU))


@pytest.mark.usefixtures("quick_baseline")
def test_every_command_of_a_run_works_with_its_plugin(run, plugin, call):
    for command in ("eval", "explain", "map", "report", "watch"):
        code, out, err = call(command, run, "--plugin", plugin)
        assert code == 0, (command, out, err)
        if command == "explain":
            assert ": peak is of a plugin, whose gates are not known; it is skipped\n" in out
    code, out, err = call("export", run, "--format", "torch", "--plugin", plugin)
    assert code == 0, err
    cube = hsi_se.load_scene(run.read_config().scene).cube
    patches = cube[None, :9, :9].repeat(3, axis=0).transpose(0, 3, 1, 2).astype(np.float32)
    bundle = run.read_bundle()
    pixels = bundle.reduction.apply(cube)[:9, :9].transpose(2, 0, 1)
    with torch.inference_mode():
        expected = build_bundled_model(bundle).eval()(torch.from_numpy(pixels.copy())[None, None])
        found = torch.export.load(run.path / "model.pt2").module()(torch.from_numpy(patches.copy()))
    torch.testing.assert_close(found[2:], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "words", [["eval"], ["map"], ["explain"], ["export", "--format", "onnx"]], ids=lambda each: each[0]
)
def test_without_its_plugin_a_run_is_refused_in_one_line_that_says_what_to_add(run, words, call):
    name = "networks 'two_layers'" if run.read_record().plugins.keys() & {"networks two_layers"} else "attention 'peak'"
    digest = next(iter(run.read_record().plugins.values())).digest
    assert call(words[0], run, *words[1:]) == (
        2, "", f"hsi-se: {name.replace('networks', 'network')}: is of my_blocks.py (SHA-256 {digest[:12]}…), "
        f"which is not loaded; {REMEDY}\n",
    )  # fmt: skip


def test_with_another_version_of_its_plugin_a_run_is_refused_in_one_line(run, call, tmp_path):
    changed = tmp_path / "my_blocks.py"
    changed.write_text(f"{SOURCE}# changed\n")
    code, out, err = call("map", run, "--plugin", changed)
    assert (code, out) == (2, "")
    assert "is of my_blocks.py (SHA-256 " in err
    assert "…), and my_blocks.py (SHA-256 " in err
    assert err.endswith("…) is loaded; use the version of the training, or train again\n")
    assert err.count("\n") == 1


def test_a_bundle_names_its_plugins_and_one_that_does_not_is_refused(run, plugin, call):
    text = run.bundle_facts.read_text()
    facts = json.loads(text)
    assert {each["origin"] for each in facts["plugins"].values()} == {"my_blocks.py"}
    assert "attention peak" in facts["plugins"]
    assert "source" not in facts["plugins"]["attention peak"]
    try:
        run.bundle_facts.write_text(json.dumps(facts | {"plugins": {}}))
        code, _, err = call("map", run, "--plugin", plugin)
    finally:
        run.bundle_facts.write_text(text)
    assert code == 2
    assert "not what this version writes (Value error, plugins: do not name attention peak); train again" in err


def test_nothing_is_imported_because_a_file_that_somebody_sent_says_so(run, call, tmp_path, monkeypatch):
    """Of a module that Python would find: the names are those of the file, and of what it registers."""
    mark = tmp_path / "imported"
    for name in ("my_blocks", "peak", "two_layers"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')\n{SOURCE}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for words in (["eval", run], ["info", run.config], ["resume", run], ["train", run.config, "--out", "x"]):
        assert call(*words)[0] == 2
    assert not mark.exists()


def test_a_config_of_a_plugin_says_what_to_add(call):
    code, _, err = call("info", DEMO, "--set", MODELS["network"])
    assert code == 2
    assert err.endswith("'lda'; for one of your own, add --plugin FILE\n")


def test_the_environment_names_plugins_too(plugin, call, monkeypatch):
    monkeypatch.setenv("HSI_SE_PLUGIN", str(plugin))
    code, out, _ = call("info", DEMO, "--set", MODELS["network"])
    assert code == 0
    assert "TwoLayers" in out
    code, out, _ = call("info", "--points", "two_layers")
    assert code == 0
    assert "peak" in out


def test_info_and_schema_know_what_is_loaded(plugin, call):
    code, out, err = call("schema", "--plugin", plugin)
    assert code == 0, err
    assert {"TwoLayers", "Peak"} <= json.loads(out)["$defs"].keys()
    code, out, err = call("info", DEMO, "--plugin", plugin, "--set", "model={name: two_layers}", "--compare-attention")
    assert code == 0, err
    assert "peak" in out


def test_a_plugin_that_cannot_be_loaded_is_one_line(plugin, call, tmp_path):
    assert call("schema", "--plugin", tmp_path / "none.py") == (
        2, "", f"hsi-se: --plugin {tmp_path}/none.py: cannot be read (No such file or directory); name a Python file\n",
    )  # fmt: skip
    assert call("schema", "--plugin", plugin, "--plugin", plugin)[0] == 2


# ---------------------------------------------------------------------------------------------- resumed


@pytest.mark.exhaustive
def test_an_interrupted_run_is_resumed_to_the_bit_and_only_with_its_plugin(plugin, tmp_path):
    options = set_options(*TINY, MODELS["network"], "train={epochs: 3, batch_size: 16, checkpoint_every_s: 0}")
    words = ("train", DEMO, *options, "--device", "cpu", "--plugin", plugin)
    whole = Command(*words, "--out", tmp_path / "whole", log=tmp_path / "whole.log")
    moment = Moment("hsi_se.training.state:TrainingState.end_step", signal.SIGTERM, 4)
    broken = Command(*words, "--out", tmp_path / "run", log=tmp_path / "run.log", moment=moment)
    assert (whole.wait(), broken.wait()) == (0, 128 + signal.SIGTERM)
    refused = Command("resume", tmp_path / "run", log=tmp_path / "refused.log")
    assert refused.wait() == 2
    assert refused.last_line().endswith(f"which is not loaded; {REMEDY}")
    resumed = Command("resume", tmp_path / "run", "--plugin", plugin, log=tmp_path / "resumed.log")
    assert resumed.wait() == 0, resumed.log.read_text()
    assert (
        RunFolder(tmp_path / "run").bundle_arrays.read_bytes()
        == RunFolder(tmp_path / "whole").bundle_arrays.read_bytes()
    )


# -------------------------------------------------------------------------------------------- packages


def install(
    folder: Path, *, name: str = "my-package", version: str = "1.2", source: str = SOURCE, module: str = "my_own"
):
    """An installed distribution, as an installer leaves it: a module and a folder of metadata."""
    (folder / f"{module}.py").write_text(source)
    facts = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (facts / "entry_points.txt").write_text(
        f"[hsi_se.attention]\npeak = {module}:PeakGate\n\n[hsi_se.networks]\ntwo_layers = {module}:TwoLayers\n"
    )


PLAIN = "\n".join(line for line in SOURCE.splitlines() if not line.startswith("@"))


@pytest.mark.parametrize("source", [SOURCE, PLAIN], ids=["decorated", "plain"])
def test_an_installed_package_needs_no_option(source, call, tmp_path, monkeypatch):
    install(tmp_path, source=source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own", raising=False)
    model = MODELS["network"] if source is SOURCE else "model={name: two_layers, width: 4}"
    with forgetting():
        config = load_config(DEMO, [*TINY, MODELS["block"], "train.epochs=1"])
        assert load_config(DEMO, [*TINY, model]).model.width == 4
        run = RunFolder(hsi_se.train(config, out=tmp_path / "run", session=CPU))
        (found,) = run.read_facts().plugins.values()
        assert (found.origin, found.version) == ("my-package", "1.2")
        assert "two_layers" in json.dumps(json.loads(call("schema")[1]))
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    with forgetting():
        code, _, err = call("map", run)
    assert code == 2
    assert err.startswith("hsi-se: attention 'peak': is of my-package 1.2 (SHA-256 ")
    assert err.endswith("…), which is not loaded; pip install my-package==1.2\n")


def test_a_package_that_fails_or_is_not_the_only_one_is_one_line(call, tmp_path, monkeypatch):
    install(tmp_path, source="import no_such_module\n", module="my_broken")
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = call("info", DEMO, "--set", MODELS["block"])
    assert (code, err) == (
        2, "hsi-se: kind = peak: of the installed package my-package cannot be loaded (ModuleNotFoundError: No module "
        "named 'no_such_module'); correct or uninstall it\n",
    )  # fmt: skip
    (tmp_path / "other").mkdir()
    install(tmp_path / "other", name="another", module="my_other")
    monkeypatch.syspath_prepend(tmp_path / "other")
    with forgetting():
        code, _, err = call("info", DEMO, "--set", MODELS["block"])
    assert code == 2
    assert err.endswith(
        "hsi-se: kind = peak: of the installed package my-package, and of another, too; uninstall one of them\n"
    )


# --------------------------------------------------------------------------------------------- workers


@pytest.mark.exhaustive
def test_workers_compute_an_ablation_of_a_plugin_to_the_bit(plugin, tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "base.yaml").write_text(DEMO.read_text())
    file = tmp_path / "study.yaml"
    settings = "".join(f"  {key}: {value}\n" for key, _, value in (each.partition("=") for each in TINY))
    file.write_text(
        f"base: base.yaml\nseeds: 0-1\nset:\n{settings}  train.epochs: 1\n  model.width: 0.125\n"
        "variants:\n  none: {model.attention: {}}\n  peak: {model.attention: {fold: {kind: peak}}}\n"
    )
    command = [sys.executable, "-m", "hsi_se", "ablate", str(file), "--plugin", str(plugin)]
    for out, more in (("here", []), ("there", ["--workers", "1"])):
        done = subprocess.run([*command, "--out", str(tmp_path / out), *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    here, there = (sorted((tmp_path / out).rglob("bundle.safetensors")) for out in ("here", "there"))
    assert len(here) == len(there) == 4
    assert [file.read_bytes() for file in here] == [file.read_bytes() for file in there]


@pytest.mark.exhaustive
def test_processes_of_torchrun_train_a_network_of_a_plugin(plugin, tmp_path):
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "hsi_se", "train", str(DEMO)]
    words += [
        *set_options(*TINY, MODELS["network"]),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
        "--plugin",
        str(plugin),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    load_plugin(plugin)
    assert RunFolder(tmp_path / "run").read_config().model.name == "two_layers"


def test_a_search_over_a_plugin_belongs_to_its_source(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(f"base: {DEMO}\ntrials: 2\nsearch:\n  model.attention: [{{}}, {{fold: {{kind: peak}}}}]\n")
    digests = []
    for number, source in enumerate((SOURCE, SOURCE, SOURCE.replace("amax", "amin"))):
        assert number < 2 or source != SOURCE
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / "my_blocks.py"
        path.write_text(source)
        with forgetting():
            load_plugin(path)
            digests.append(load_study(study).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.exhaustive
def test_workers_search_over_a_plugin(plugin, tmp_path):
    pytest.importorskip("distributed")
    settings = "".join(f"  {key}: {value}\n" for key, _, value in (each.partition("=") for each in TINY))
    (tmp_path / "study.yaml").write_text(
        f"base: {DEMO}\ntrials: 2\nset:\n{settings}  train.epochs: 1\n  model.width: 0.125\n"
        "  split: {kind: blocks, train: 0.5, block_size: 4, buffer: 1}\n"
        "search:\n  model.attention: [{}, {fold: {kind: peak}}]\n"
    )
    command = [sys.executable, "-m", "hsi_se", "tune", str(tmp_path / "study.yaml"), "--plugin", str(plugin)]
    for out, more in (("here", []), ("there", ["--workers", "1"])):
        done = subprocess.run([*command, "--out", str(tmp_path / out), *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    here, there = ((tmp_path / out / "study.json").read_bytes() for out in ("here", "there"))
    assert here == there
