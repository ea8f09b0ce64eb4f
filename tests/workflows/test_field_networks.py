"""The field's networks go through every command: training that is stopped and resumed, evaluation, map and export."""

import numpy as np
import onnxruntime
import pytest
import torch

import hsi_se
from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import load_config
from hsi_se.errors import Interrupted
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.prediction.logits import predict_logits
from hsi_se.progress import Silent
from hsi_se.system.session import Session
from hsi_se.workflows.export import export
from hsi_se.workflows.train import resume
from tests.conftest import CPU, ROOT, TINY

MODELS = {
    "ssftt": "model={name: ssftt, attention: {conv2d: {kind: se}, encoder: {kind: eca}}}",
    "spectralformer": "model={name: spectralformer, attention: {embedding: {kind: se}}}",
    "dbda": "model={name: dbda, attention: {branches: {kind: cbam}, dual_attention: {kind: se}}}",
    "s2mamba": "model={name: s2mamba, states: 2, attention: {mixture: {kind: se}}}",
}
CHANGES = (*TINY, "patch.size=5", "train={epochs: 2, batch_size: 32, checkpoint_every_s: 0}")


class Impatient(Silent):
    """An observer that ends the training in its fourth step, as Ctrl-C would."""

    steps = 0

    def advance(self, count: int) -> None:
        self.steps += count > 0
        if self.steps == 4:
            raise KeyboardInterrupt


def read_config(name: str) -> Config:
    return load_config(ROOT / "configs" / "demo.yaml", [*CHANGES, MODELS[name]])


@pytest.mark.exhaustive
@pytest.mark.usefixtures("quick_baseline")
@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_trained_resumed_evaluated_and_mapped(name, tmp_path):
    config = read_config(name)
    whole = hsi_se.train(config, out=tmp_path / "whole", session=CPU)
    with pytest.raises(Interrupted):
        hsi_se.train(config, out=tmp_path / "run", session=Session(device="cpu", observer=Impatient()))
    run = resume(tmp_path / "run", session=CPU)
    network, other = (build_bundled_model(hsi_se.load_bundle(each)) for each in (run, whole))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())
    assert hsi_se.evaluate(run, session=CPU).num_test > 0
    dense, apart = (hsi_se.map_scene(run, config.scene, engine=each, session=CPU) for each in ("dense", "patches"))
    assert np.mean(dense.labels != apart.labels) < 0.005  # which differ by rounding, if at all
    assert set(np.unique(dense.labels)) <= set(hsi_se.load_scene(config.scene).class_names)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MODELS)
def test_exported_files_give_the_logits_of_any_number_of_patches(name, tmp_path):
    config = read_config(name)
    run = hsi_se.train(config, out=tmp_path / "run", session=CPU)
    bundle, scene = hsi_se.load_bundle(run), hsi_se.load_scene(config.scene)
    program = torch.export.load(export(run, file_format="torch", out=tmp_path / "a.pt2")).module()
    windows = np.lib.stride_tricks.sliding_window_view(scene.cube[:6, :7], (5, 5), axis=(0, 1))  # (2, 3, bands, 5, 5)
    patches = windows.reshape(6, -1, 5, 5).astype(np.float32)
    cube = bundle.reduction.apply(scene.cube)
    logits = predict_logits(build_bundled_model(bundle), cube, engine="patches", padding=config.patch.padding)
    expected, tolerance = logits[2:4, 2:5].reshape(6, -1), 1e-4 * np.abs(logits).max()
    for count in (1, 6):
        found = program(torch.from_numpy(patches[:count])).detach().numpy()
        np.testing.assert_allclose(found, expected[:count], atol=tolerance)
    if name == "s2mamba":  # ONNX takes many minutes for the steps of its scans, which are unrolled
        return
    onnx = onnxruntime.InferenceSession(export(run, file_format="onnx", out=tmp_path / "a.onnx"))
    for count in (1, 6):
        (found,) = onnx.run(["logits"], {"patches": patches[:count]})
        np.testing.assert_allclose(found, expected[:count], atol=tolerance)
