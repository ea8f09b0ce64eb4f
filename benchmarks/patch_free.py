#!/usr/bin/env python
"""Asks whether a padded network may read a whole scene without patches: its accuracy and time beside those of patches.

    hsi-se train configs/indian_pines_mnf20_se.yaml --data DIR --out runs/padded \\
        --set 'model={name: se_resnet, depth: 18, stem: small}'
    python benchmarks/patch_free.py runs/padded --data DIR --json benchmarks/results/patch_free.json

`se_resnet`, `res2net` and `se_inception` pad every patch, so that overlapping patches have few features in common. The
script compares three ways to map the scene of a run, without symmetries or smoothing:

- `patches`: every patch by itself, which is what the network was trained for. Timed on `--sample` of them.
- `exact`: features whose receptive field stays inside the patch, up to the first gate, would be computed once. Only the
  MACs are counted, so this is the most that could be saved.
- `patch_free`: the same weights as a convolution over the scene. Strides become dilation, as in Chen et al. 2015,
  https://arxiv.org/abs/1412.7062; a gate and the mean of the head see the patch around every location. Where a patch
  has padding, this network sees the scene.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.attention.channel_gate import ChannelGate
from hsi_se.config.model import ModelSettings
from hsi_se.models import build_model
from hsi_se.models.inference import evaluation_mode, predict_patches
from hsi_se.models.network import ComponentsAsChannels, Network
from hsi_se.models.residual import Hierarchy, ResidualBlock
from hsi_se.models.se_inception import Inception
from hsi_se.prediction.bundled import build_bundled_model
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.patches import PatchDataset, pad_cube
from hsi_se.workflows.preparation import prepare

NETWORKS = ("se_resnet", "res2net", "se_inception")


@dataclass(frozen=True)
class Grid:
    """Where the features of a patch lie in the scene: `size` × `size` of them, `step` pixels apart."""

    size: int
    step: int

    def stride(self, layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> "Grid":
        kernel, stride, padding = (
            each[0] if isinstance(each, tuple) else int(each)
            for each in (layer.kernel_size, layer.stride, layer.padding)
        )
        return Grid((self.size + 2 * padding - kernel) // stride + 1, self.step * stride)

    def mean(self, x: Tensor, patch_size: int) -> Tensor:
        """Returns the mean of the patch around every location of `(1, c, h, w)`; of its part inside the scene."""
        places = torch.arange(self.size) * self.step - patch_size // 2

        def average(length: int) -> Tensor:
            cols = torch.arange(length)[:, None] + places
            matrix = x.new_zeros(length, length)
            is_inside = (cols >= 0) & (cols < length)
            matrix[torch.arange(length)[:, None].expand_as(cols)[is_inside], cols[is_inside]] = 1
            return matrix / matrix.sum(1, keepdim=True)

        return average(x.shape[2]) @ (x @ average(x.shape[3]).T)


def read(module: nn.Module, x: Tensor, grid: Grid, patch_size: int) -> tuple[Tensor, Grid]:
    """Returns what a module computes of features `(1, c, h, w)` at every location, and the grid of its features."""

    def follow(modules: list[nn.Module]) -> tuple[Tensor, Grid]:
        y, at = x, grid
        for each in modules:
            y, at = read(each, y, at, patch_size)
        return y, at

    match module:
        case nn.Sequential():
            return follow(list(module))
        case nn.Conv2d():
            padding = cast(tuple[int, int], module.padding)[0] * grid.step
            return F.conv2d(x, module.weight, module.bias, padding=padding, dilation=grid.step), grid.stride(module)
        case nn.MaxPool2d():
            padded = F.pad(x, [grid.step] * 4, value=-torch.inf)
            return F.max_pool2d(padded, 3, stride=1, dilation=grid.step), grid.stride(module)
        case nn.AvgPool2d():
            kernel = x.new_full((x.shape[1], 1, 3, 3), 1 / 9)
            found = F.conv2d(x, kernel, padding=grid.step, dilation=grid.step, groups=x.shape[1])
            return found, grid.stride(module)
        case ChannelGate(squeeze="mean"):
            means = grid.mean(x, patch_size)
            gates = module.gate(means[0].flatten(1).T).T
            return x * gates.view_as(x), grid
        case ResidualBlock(gate="standard"):
            branch, after = follow([module.branch, module.attention])
            shortcut, _ = follow([module.shortcut])
            return (shortcut + branch).relu(), after
        case Hierarchy():
            reduced, at = follow([module.reduce])
            *groups, last = reduced.chunk(len(module.convs) + 1, dim=1)
            found: list[Tensor] = []
            for group, conv in zip(groups, module.convs, strict=True):
                joined = group + found[-1] if found and not module.is_first else group
                y, after = read(conv, joined, at, patch_size)
                found.append(y)
            rest, after = read(module.rest, last, at, patch_size)
            return read(module.expand, torch.cat([*found, rest], 1), after if found else at, patch_size)
        case Inception():
            return torch.cat([follow([branch])[0] for branch in module.branches], 1), grid
        case nn.BatchNorm2d() | nn.ReLU() | nn.Identity() | ComponentsAsChannels():
            return module(x), grid
    raise SystemExit(f"{type(module).__name__}: has no reading without patches here")


def map_patch_free(model: Network, padded: Tensor) -> Tensor:
    """Returns the logits `(rows, cols, classes)` of a padded scene `(rows + p - 1, cols + p - 1, k)`."""
    p = model.patch_size
    x, grid = padded.permute(2, 0, 1)[None].contiguous(), Grid(p, 1)
    with evaluation_mode(model):
        for point, stage in model.stages.items():
            for module in (stage, model.attention[point]):
                x, grid = read(module, x, grid, p)
        means = grid.mean(x, p)[..., p // 2 : p // 2 + len(padded) - p + 1, :]
        means = means[..., p // 2 : p // 2 + padded.shape[1] - p + 1]
        pixels = means[0].flatten(1).T[:, :, None, None]
        return model.classify(pixels).view(*means.shape[2:], -1)


def count_shared(model: Network) -> float:
    """Returns the share of a patch's MACs in features up to the first gate whose receptive field lies in the patch."""
    total = shared = 0.0
    lost, is_common = 0, True  # pixels at each side whose features depend on padding

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total, shared, lost, is_common
        if isinstance(module, ChannelGate):
            is_common = False
        elif isinstance(module, nn.Conv2d):
            macs = output[0, 0].numel() * module.weight.numel()
            total += macs
            stride = module.stride[0]
            is_common = is_common and stride == 1
            lost += cast(tuple[int, int], module.padding)[0]
            shared += macs * is_common * max(0, 1 - 2 * lost / output.shape[-1]) ** 2
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            lost += 1

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    with evaluation_mode(model):
        model(torch.zeros(1, 1, model.num_bands, model.patch_size, model.patch_size))
    for hook in hooks:
        hook.remove()
    return shared / total


def build(name: str, *, like: Network) -> Network:
    """Returns an untrained network for the patches of another one, with its default gates."""
    section = {"name": name, "stem": "small"} | ({"depth": 18} if name == "se_resnet" else {})
    sizes = {"num_bands": like.num_bands, "patch_size": like.patch_size, "num_classes": 16}
    return build_model(TypeAdapter(ModelSettings).validate_python(section), **sizes)


def clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a finished run of se_resnet, res2net or se_inception")
    parser.add_argument("--data", help="folder of scenes")
    parser.add_argument("--sample", type=int, default=256, help="patches that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = RunFolder(args.run)
    config, bundle = run.read_config(), run.read_bundle()
    setting = prepare(config, data=args.data, device=torch.device("cpu"))
    model = cast(Network, build_bundled_model(bundle).eval())
    cube = pad_cube(setting.components, patch_size=model.patch_size, padding=config.patch.padding)
    padded, (rows, cols) = torch.as_tensor(cube), setting.components.shape[:2]
    pixels = np.argwhere(np.ones((rows, cols), dtype=bool))
    start = np.random.default_rng(0).integers(len(pixels) - args.sample)
    some = PatchDataset(padded, pixels[start : start + args.sample], patch_size=model.patch_size)
    everything = PatchDataset(padded, pixels, patch_size=model.patch_size)
    by_patch = predict_patches(model, everything).view(rows, cols, -1)
    free = map_patch_free(model, padded)
    ids = np.array(bundle.class_ids)
    at, truth = tuple(setting.split.test.T), setting.scene.labels
    classes = {"patches": ids[by_patch.argmax(2).numpy()], "patch_free": ids[free.argmax(2).numpy()]}
    accuracy = {name: float((found == truth)[at].mean()) for name, found in classes.items()}
    seconds: dict[str, list[float]] = {"patches": [], "patch_free": []}
    for _ in range(args.rounds):
        seconds["patches"].append(clock(lambda: predict_patches(model, some)) * len(pixels) / len(some))
        seconds["patch_free"].append(clock(lambda: map_patch_free(model, padded)))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    result = {
        "network": config.model.name,
        "scene": setting.scene.name,
        "shape": [rows, cols],
        "patch_size": model.patch_size,
        "num_test": len(setting.split.test),
        "overall_accuracy": accuracy,
        "same_class": float((classes["patches"] == classes["patch_free"]).mean()),
        "exact_share_of_macs": {name: count_shared(build(name, like=model)) for name in NETWORKS},
        "seconds": medians,
        "ratio": medians["patches"] / medians["patch_free"],
    }
    print(json.dumps(result, indent=1))
    if args.json:
        command = "python benchmarks/patch_free.py " + " ".join(sys.argv[1:])
        everything = {"command": command, "torch": torch.__version__, **result}
        args.json.write_text(json.dumps(everything, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
