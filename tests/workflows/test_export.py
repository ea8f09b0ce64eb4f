"""An exported file answers as the run does, elsewhere, and says what its input and output are."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import ConfigError
from hsi_se.models.inference import evaluation_mode
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.workflows.export import FACTS_FILE, export
from tests.conftest import CPU, ROOT, TINY

MODELS = {
    "plain": "model={name: hybridsn, width: 0.5}",
    "gated": "model={name: hybridsn, width: 0.5, attention: {fold: {kind: se}, conv2d: {kind: cbam}}}",
    "se_resnet": "model={name: se_resnet, depth: 18}",
    "noise fractions": "reduction={kind: mnf, components: 13, fit_on: train}",
}


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    changes = [*TINY, MODELS[request.param], "train.epochs=1"]
    config = load_config(ROOT / "configs" / "demo.yaml", changes)
    return hsi_se.train(config, out=tmp_path_factory.mktemp("export") / "run", session=CPU)


def predict(run, patches: np.ndarray) -> np.ndarray:
    """The logits by the package's own way: the reduction in numpy, then the network."""
    bundle = hsi_se.load_bundle(run)
    n, bands, p, _ = patches.shape
    pixels = patches.transpose(0, 2, 3, 1).reshape(n * p, p, bands)
    components = bundle.reduction.apply(pixels).reshape(n, p, p, -1).transpose(0, 3, 1, 2)
    model = build_bundled_model(bundle)
    with evaluation_mode(model):
        return model(torch.from_numpy(np.ascontiguousarray(components))[:, None]).numpy()


def cut_patches(run, count: int) -> np.ndarray:
    cube = hsi_se.load_scene(run.read_config().scene).cube
    windows = np.lib.stride_tricks.sliding_window_view(cube, (9, 9), axis=(0, 1)).reshape(-1, cube.shape[2], 9, 9)
    return windows[:: len(windows) // count][:count].astype(np.float32)


@pytest.mark.slow
def test_onnxruntime_agrees_for_any_number_of_patches(run, tmp_path):
    path = export(run, file_format="onnx", out=tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        patches = cut_patches(run, count)
        (logits,) = session.run(["logits"], {"patches": patches})
        expected = predict(run, patches)
        assert logits.shape == expected.shape == (count, 9)
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    scene = hsi_se.load_scene(run.read_config().scene)
    assert metadata["class_names"] == list(scene.class_names.values())
    assert metadata["class_ids"] == list(range(1, 10))
    np.testing.assert_allclose(metadata["wavelengths_nm"], scene.wavelengths_nm)
    assert metadata["dropped_bands"] == {}
    assert metadata["patch_size"] == 9
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_a_torch_program_agrees_and_carries_the_same_facts(run):
    path = export(run, file_format="torch")
    assert path == run.path / "model.pt2"
    extra = {FACTS_FILE: ""}
    program = torch.export.load(path, extra_files=extra).module()
    patches = cut_patches(run, 5)
    expected = predict(run, patches)
    with torch.inference_mode():
        logits = program(torch.from_numpy(patches)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert json.loads(extra[FACTS_FILE])["class_ids"] == list(range(1, 10))


def test_a_model_that_is_no_network_and_a_foreign_ending_are_refused(tmp_path):
    changes = [*TINY, "model={name: svm, penalty: 1, gamma: 0.1}"]
    run = hsi_se.train(load_config(ROOT / "configs" / "demo.yaml", changes), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"model.name = svm is not a network"):
        export(run, file_format="onnx")
    with pytest.raises(ConfigError, match=r"--out a.pt: a file of format torch ends in .pt2"):
        export(run, file_format="torch", out="a.pt")
    with pytest.raises(ConfigError, match=r"--format tflite: choose from onnx, torch"):
        export(run, file_format="tflite")
