"""Exports a trained network for other runtimes: one file from raw patches of the original bands to logits.

Axes: n patches, bands of the scene, k components, p × p pixels, C classes.
"""

import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hsi_se.errors import ConfigError, RunError, how_to_install
from hsi_se.models.network import Network
from hsi_se.prediction.bundled import build_bundled_model, load_bundle
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.system.files import replacing

_ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
FACTS_FILE = "hsi_se.json"  # inside a .pt2


class RawPatchClassifier(nn.Module):
    """The reduction and the network as one module: patches `(n, bands, p, p)` to logits `(n, C)`.

    The reduction is computed in float64, as in training, because raw values are large and components small.
    """

    mean: Tensor  # (bands, 1, 1)
    components: Tensor  # (k, bands)

    def __init__(self, bundle: ModelBundle, network: Network) -> None:
        super().__init__()
        reduction = bundle.reduction
        self.register_buffer("mean", torch.from_numpy(reduction.mean)[:, None, None])
        scaled = np.ascontiguousarray(reduction.components / reduction.scale[:, None])
        self.register_buffer("components", torch.from_numpy(scaled))
        self.network = network

    def forward(self, patches: Tensor) -> Tensor:
        spectra = (patches.double() - self.mean).flatten(2)  # (n, bands, p²)
        components = (self.components @ spectra).float()  # (n, k, p²)
        size = self.network.patch_size
        logits: Tensor = self.network(torch.unflatten(components, 2, (size, size)).unsqueeze(1))
        return logits


def export(run: str | Path | RunFolder, *, file_format: str, out: str | Path | None = None) -> Path:
    """Exports a run's network to a file, by default `model` in the run folder, and returns the file's path.

    The format is `onnx`, or `torch` for a `torch.export` program. HsiError if it is another one, the model is
    not a network, or a library is not installed.
    """
    if file_format not in _ENDINGS:
        raise ConfigError(f"--format {file_format}: choose from {', '.join(_ENDINGS)}")
    folder = RunFolder.open(run)
    path = Path(out) if out is not None else folder.path / f"model{_ENDINGS[file_format]}"
    if path.suffix != _ENDINGS[file_format]:
        raise ConfigError(f"--out {path}: a file of format {file_format} ends in {_ENDINGS[file_format]}")
    bundle = load_bundle(folder)
    network = build_bundled_model(bundle)
    if not isinstance(network, Network):
        problem = f"model.name = {bundle.facts.model.name} is not a network and cannot be exported"
        raise ConfigError(f"{folder}: {problem}; export a run of a network")
    module = RawPatchClassifier(bundle, network).eval()
    size = network.patch_size
    example = torch.from_numpy(bundle.reduction.mean).float()[None, :, None, None].repeat(2, 1, size, size)
    with replacing(path) as draft, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the exporter itself
        if file_format == "onnx":
            _write_onnx(module, example, draft, describe(bundle))
        else:
            shapes = {"patches": {0: torch.export.Dim("n")}}
            program = torch.export.export(module, (example,), dynamic_shapes=shapes)
            facts = json.dumps(describe(bundle), ensure_ascii=False)
            archive = io.BytesIO()  # torch aborts where a disk is full
            torch.export.save(program, archive, extra_files={FACTS_FILE: facts})
            draft.write_bytes(archive.getbuffer())
    return path


def describe(bundle: ModelBundle) -> dict[str, Any]:
    """Returns what is needed to use the file: bands and padding of the input, classes of the output."""
    facts = bundle.facts
    names = {"class_ids", "class_names", "wavelengths_nm", "dropped_bands", "patch_size", "padding", "prediction"}
    return facts.model_dump(mode="json", include=names) | {
        "num_bands": bundle.reduction.num_bands,
        "temperature": facts.scaling.temperature,  # divides the logits of a scene, smoothed as `prediction` says
        "calibration": facts.scaling.about,
        "padding_value": bundle.reduction.mean.tolist(),  # for padding `zero` and for pixels without data
    }


def _write_onnx(module: nn.Module, example: Tensor, path: Path, facts: dict[str, Any]) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401 the exporter needs it
    except ImportError as error:
        raise RunError(f"--format onnx needs {error.name}; {how_to_install('export')}") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        verbose=False,
        input_names=["patches"],
        output_names=["logits"],
        dynamic_shapes={"patches": {0: torch.export.Dim("n")}},
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {name: json.dumps(value, ensure_ascii=False) for name, value in facts.items()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
