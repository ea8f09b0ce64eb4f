"""The script that checks and measures a GPU: it runs without one too, and a GPU passes its checks."""

import json

import pytest
import torch

from benchmarks import gpu


@pytest.mark.slow
def test_the_script_runs_small_on_a_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py", "--device", "cpu", "--tiny", "--json", str(tmp_path / "gpu.json")])
    gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert found["failures"] == []
    assert found["checks"]["losses of an epoch"] == {
        "graphed and eager": 0.0,
        "graphed and graphed again": 0.0,
        "graphed and resumed": 0.0,
    }
    assert {row["attention"] for row in found["maps"]} >= {"none", "se at fold, se at conv2d", "cbam at fold"}
    assert "patches/s: plain float32" in capsys.readouterr().out


@pytest.mark.gpu
def test_a_gpu_passes_the_checks():
    assert gpu.measure(torch.device("cuda"), is_tiny=True)["failures"] == []
