"""`train.precision: auto` asks the device, a run remembers the answer, and emulation is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import hsi_se
from hsi_se.config.yaml_file import load_config
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.inference import set_tf32
from hsi_se.prediction.dense import DenseEngine
from hsi_se.prediction.logits import predict_logits
from hsi_se.runs.folder import RunFolder
from hsi_se.system.session import Session
from hsi_se.training.step import choose_precision, has_bfloat16, warn_of_emulation
from hsi_se.workflows import train as experiment
from tests.conftest import TINY
from tests.training.resuming import DEMO, OPTIONS, Impatient, Notes, same_weights
from tests.training.test_training import are_equal, make_model, run_fit, state_of

PROCESSOR = torch.device("cpu")
EMULATED = "bfloat16: bfloat16 is emulated on this device and much slower than float32; use precision: auto"


def be_processor(monkeypatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **capabilities}, raising=False)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, "float32"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch, capabilities, expected):
    be_processor(monkeypatch, **capabilities)
    assert choose_precision("auto", PROCESSOR) == expected
    assert choose_precision("float32", PROCESSOR) == "float32"
    assert choose_precision("bfloat16", PROCESSOR) == "bfloat16"


@pytest.mark.parametrize(("is_supported", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_where_torch_cannot_list_capabilities_onednn_decides(monkeypatch, is_supported, expected):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: is_supported)
    assert choose_precision("auto", PROCESSOR) == expected


def test_this_processor_is_known_by_what_the_system_says_of_it():
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert has_bfloat16(PROCESSOR) == bool({"avx512_bf16", "amx_bf16", "bf16", "svebf16"} & set(flags))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_auto_trains_the_weights_of_the_precision_it_chooses(monkeypatch, precision):
    be_processor(monkeypatch, avx512_bf16=precision == "bfloat16")
    chosen, asked = make_model(), make_model()
    run_fit(chosen, epochs=1, num_pixels=64, precision="auto")
    run_fit(asked, epochs=1, num_pixels=64, precision=precision)
    assert are_equal(state_of(chosen), state_of(asked))


def test_a_run_keeps_its_config_and_records_the_precision(monkeypatch, tmp_path):
    be_processor(monkeypatch)
    config = load_config(DEMO, [*TINY, "train.precision=auto", "train.epochs=1"])
    notes = Notes()
    run = hsi_se.train(config, out=tmp_path / "run", session=Session(device="cpu", observer=notes))
    record = run.read_record()
    assert (record.precision, record.config_digest) == ("float32", config.digest)
    assert run.read_config().train.precision == "auto"
    assert not any("is emulated" in note for note in notes.notes)
    hsi_se.evaluate(run)
    assert " in float32." in (tmp_path / "run" / "report.md").read_text()


def test_bfloat16_that_is_emulated_is_named_with_the_remedy(monkeypatch, tmp_path):
    be_processor(monkeypatch)
    config = load_config(DEMO, [*TINY, "train.precision=bfloat16", "train.epochs=1", "model.width=0.25"])
    notes = Notes()
    run = hsi_se.train(config, out=tmp_path / "run", session=Session(device="cpu", observer=notes))
    assert any(EMULATED in note for note in notes.notes)
    assert run.read_record().precision == "bfloat16"


def test_a_run_goes_on_as_it_began_on_another_processor(monkeypatch, tmp_path):
    """Begun where auto is bfloat16 and resumed where it would be float32: the weights of bfloat16."""
    changes = [*OPTIONS[1::2], "train.precision=auto", "train.epochs=3"]
    config = load_config(DEMO, changes)
    be_processor(monkeypatch, avx512_bf16=True)
    whole = hsi_se.train(config, out=tmp_path / "whole", session=Session(device="cpu"))

    with pytest.raises(hsi_se.errors.Interrupted):
        hsi_se.train(config, out=tmp_path / "run", session=Session(device="cpu", observer=Impatient(in_step=5)))
    copy = RunFolder(shutil.copytree(tmp_path / "run", tmp_path / "copy"))
    be_processor(monkeypatch)
    notes = Notes()
    experiment.resume(copy, session=Session(observer=notes))
    assert any(EMULATED in note for note in notes.notes)
    assert same_weights(copy.path, whole)
    assert copy.read_record().precision == "bfloat16"


def test_without_tf32_it_is_float32_and_a_note_says_so():
    assert choose_precision("tf32", PROCESSOR) == "float32"
    assert warn_of_emulation("tf32", PROCESSOR) == (
        "train.precision = tf32: this device has no TF32, so it computes with float32",
    )


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "tf32"), ((9, 0), "tf32")])
def test_tf32_needs_a_gpu_of_compute_capability_8(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_precision("tf32", torch.device("cuda")) == expected


@pytest.mark.parametrize("is_allowed", [True, False])
def test_tf32_is_allowed_inside_alone_and_restored_after_an_error(is_allowed):
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [flag.allow_tf32 for flag in flags]
    seen = []

    def fail() -> None:
        with set_tf32(is_allowed):
            seen.extend(flag.allow_tf32 for flag in flags)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [is_allowed] * 2
    assert [flag.allow_tf32 for flag in flags] == before


@pytest.mark.parametrize("engine", ["dense", "patches"])
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_a_map_has_the_precision_that_is_asked_for(monkeypatch, engine, precision):
    seen = []
    forward = HybridSN.forward

    def watch(network: HybridSN, x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return forward(network, x)

    tile = DenseEngine._predict_tile

    def watch_tile(dense: DenseEngine, padded: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return tile(dense, padded)

    monkeypatch.setattr(HybridSN, "forward", watch)
    monkeypatch.setattr(DenseEngine, "_predict_tile", watch_tile)
    cube = np.zeros((6, 20, 15), np.float32)
    predict_logits(make_model(), cube, engine=engine, precision=precision)
    assert set(seen) == {precision == "tf32"}
