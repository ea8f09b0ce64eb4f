#!/usr/bin/env python
"""Measures the cost of each network and attention block: parameters, MACs and training time.

    python benchmarks/network_costs.py --out benchmarks/results/network_costs.json
    python benchmarks/network_costs.py --field --patch-size 9 --precision float32 --out …/field_network_costs.json

In every round each variant takes one training step, all in one process. The first round warms up, and the
median over the others is printed. Times are those of the processor, so that other work on the machine counts
little; it affects all variants alike. Sizes are those of the accuracy tables in the docs: 20 components, 15 × 15
patches unless `--patch-size` is given, 16 classes, batches of 32, and bfloat16 products unless `--precision
float32` is given. `--field` measures the field's networks instead of ours.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch.nn import functional as F

from hsi_se import build_model
from hsi_se.config.model import ModelSettings
from hsi_se.models.cost import count_macs, count_parameters
from hsi_se.models.network import Network

SIZES = {"num_bands": 20, "patch_size": 15, "num_classes": 16}
HYBRIDSN = {"name": "hybridsn"}
VARIANTS = {
    "HybridSN": HYBRIDSN,
    **{
        f"HybridSN, {kind} at fold": {**HYBRIDSN, "attention": {"fold": {"kind": kind}}}
        for kind in ("se", "eca", "cbam", "nonlocal", "strip_pooling")
    },
    "HybridSN, 2-D first": {**HYBRIDSN, "order": "2d-3d"},
    "HybridSN, 2-D first, mean pooling": {**HYBRIDSN, "order": "2d-3d", "pool": "mean"},
    "SSRN": {"name": "ssrn"},
    "SE-ResNet-18": {"name": "se_resnet", "depth": 18},
    "Res2Net-50": {"name": "res2net", "attention": {}},
}
FIELD = {
    "HybridSN with SE": {**HYBRIDSN, "attention": {"fold": {"kind": "se"}, "conv2d": {"kind": "se"}}},
    "SSFTT": {"name": "ssftt"},
    "SpectralFormer, pixel": {"name": "spectralformer", "mode": "pixel"},
    "SpectralFormer, patch": {"name": "spectralformer"},
    "DBDA": {"name": "dbda"},
    "S2Mamba": {"name": "s2mamba"},
}


def take_step(model: Network, optimizer: torch.optim.Optimizer, batch_size: int, precision: str) -> float:
    """Takes a training step on random patches and returns its seconds of processor time."""
    patches = torch.randn(batch_size, 1, SIZES["num_bands"], model.patch_size, model.patch_size)
    targets = torch.randint(SIZES["num_classes"], (batch_size,))
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits = model(patches)
    optimizer.zero_grad()
    torch.autograd.backward(F.cross_entropy(logits.float(), targets))
    optimizer.step()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--patch-size", type=int, default=SIZES["patch_size"])
    parser.add_argument("--field", action="store_true", help="measure the field's networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    sizes = SIZES | {"patch_size": arguments.patch_size}
    models = {
        name: build_model(TypeAdapter(ModelSettings).validate_python(settings), **sizes)
        for name, settings in (FIELD if arguments.field else VARIANTS).items()
    }
    optimizers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(arguments.rounds + 1):
        for name, model in models.items():
            step = take_step(model, optimizers[name], arguments.batch_size, arguments.precision)
            if number:  # the first round warms up
                times[name].append(step)
    rows = {
        name: {
            "parameters": count_parameters(model),
            "macs_per_patch": count_macs(model),
            "training_ms_per_patch": round(1000 * statistics.median(times[name]) / arguments.batch_size, 3),
        }
        for name, model in models.items()
    }
    print("| network | parameters | M MACs per patch | training ms per patch |\n|:---|---:|---:|---:|")
    for name, row in rows.items():
        macs = row["macs_per_patch"] / 1e6
        print(f"| {name} | {row['parameters']:,} | {macs:.1f} | {row['training_ms_per_patch']:.2f} |")
    if arguments.out is not None:
        command = f"python benchmarks/network_costs.py --rounds {arguments.rounds} --threads {arguments.threads}"
        command += f"{' --field' * arguments.field} --patch-size {arguments.patch_size}"
        result = {"command": command, **sizes, "precision": arguments.precision, "networks": rows}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
