"""Measures the cost of a network: parameters, multiply-accumulates (MACs) and time.

In convolutions, dense layers and matrix products, a multiplication and its addition are one MAC; bias, norm,
activation and pooling count nothing, as in the tables of He et al. 2016. Attention is counted whole, since
its cost is a result: inside an attention block, every other operation on one value counts as one MAC too.
These are an addition or comparison per value that a pooling reads, and a product, sum, norm or nonlinearity
per value that is written; a softmax counts three per value. Copies count nothing. FLOPs are 2 × MACs.
"""

import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.errors import ConfigError
from hsi_se.models import build_model
from hsi_se.models.classical import CentrePixelClassifier
from hsi_se.models.inference import evaluation_mode
from hsi_se.models.network import Network
from hsi_se.models.plugin import PluginNetwork

_TIMED_PATCHES, _TIMED_PASSES = 32, 5
Shape = Sequence[int]


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage, attention block or head: one row of `hsi-se info`."""

    name: str  # the stage, its attention block as `attention.STAGE`, or `head`
    shape: tuple[int, ...]  # of the output, without the batch
    num_parameters: int  # trainable
    macs: int  # per patch; see the head of this module
    contents: str  # a short description of the module


def count_parameters(module: nn.Module) -> int:
    """Returns the number of trainable parameters; for a classical classifier, of all stored numbers."""
    if isinstance(module, CentrePixelClassifier):
        return sum(buffer.numel() for buffer in module.buffers())
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def count_macs(model: Network | CentrePixelClassifier) -> int:
    """Returns multiply-accumulates per patch, those of attention whole; 0 for a forest."""
    if isinstance(model, CentrePixelClassifier):
        return model.macs
    return sum(row.macs for row in count_stage_costs(model))


def count_stage_costs(model: Network) -> list[StageCost]:
    """Returns the cost per patch of each stage, each attention block and the head, in running order.

    A model on torch's device `meta` has no values, so that any size is counted at once.
    """
    modules: dict[str, nn.Module] = {}
    for point, stage in model.stages.items():
        modules[f"stages.{point}"] = stage
        if type(model.attention[point]) is not nn.Identity:  # a block may be inserted after an empty slot
            modules[f"attention.{point}"] = model.attention[point]
    others = (pair for pair in model.named_children() if pair[0] not in ("stages", "attention"))
    modules |= {
        name: child for name, child in others if (name == "head" and len(model.head)) or count_parameters(child)
    }
    inside = {}  # blocks in the stage of a plugin's network, which do not count there
    if isinstance(model, PluginNetwork):
        inside = {f"{host}.attention": f"attention.{point}" for point, host in model.hosts.items()}
        modules |= {name: model.get_submodule(name) for name in inside}
    patch = torch.zeros(1, 1, model.num_bands, model.patch_size, model.patch_size)
    full_names = {name: f"{type(model).__name__}.{name}" for name, _ in model.named_modules()}
    blocks = {full_names[name] for name, module in model.named_modules() if isinstance(module, AttentionBlock)}
    counter = FlopCounterMode(display=False, custom_mapping=_FUSED)
    with counter, _OtherOperations(blocks, counter.mod_tracker) as others, ExitStack() as hooks:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, module in modules.items():
            note = partial(lambda name, _, __, output: shapes.update({name: tuple(output.shape[1:])}), name)
            hooks.enter_context(module.register_forward_hook(note))
        with evaluation_mode(model):
            model(patch.to(next(model.parameters())))
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    rows = {
        name: StageCost(
            name=inside.get(name) or name.removeprefix("stages."),
            shape=shapes[name],
            num_parameters=count_parameters(module),
            macs=flops.get(full_names[name], 0) // 2 + others.counts[full_names[name]],
            contents=module.extra_repr() or _describe_layers(module),
        )
        for name, module in modules.items()
    }
    if isinstance(model, PluginNetwork):  # without the blocks inside it
        whole, parts, title = rows["stages.network"], [rows[name] for name in inside], type(model.stages["network"])
        counts = whole.num_parameters - sum(row.num_parameters for row in parts)
        macs = whole.macs - sum(row.macs for row in parts)
        rows["stages.network"] = StageCost(whole.name, whole.shape, counts, macs, contents=title.__name__)
    return [*rows.values()]


def _count_scores(query: Shape, key: Shape) -> int:
    """Of queries `(…, q, c)` and keys `(…, s, c)`."""
    return math.prod(query[:-1]) * key[-2]


def _count_fused(query: Shape, key: Shape, value: Shape, *_mask: object, **_options: object) -> int:
    """FLOPs of the two products of a fused attention, whose kernel torch picks; it passes all arguments of the call."""
    return 2 * _count_scores(query, key) * (query[-1] + value[-1])


_ATTENTION = torch.ops.aten.scaled_dot_product_attention
_FUSED = {_ATTENTION: _count_fused, _ATTENTION.default: _count_fused}  # with both it is not decomposed
# One MAC per value of the input; then one per value of the output, as what torch tags as pointwise.
_READ = ("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "max_pool2d", "max_pool3d")
_WRITTEN = ("batch_norm", "hardswish")
_COPIES = ("clone", "copy_", "_to_copy")  # so tagged, too, and free


class _OtherOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is not a product of two matrices: operations on single values, by the modules around a block."""

    def __init__(self, blocks: set[str], tracker: ModuleTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._blocks, self._tracker = blocks, tracker
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._blocks & self._tracker.parents:
            count = self._count(func, args, result)
            self.counts.update(dict.fromkeys(self._tracker.parents, count))
        return result

    @staticmethod
    def _count(func: Any, args: tuple[Any, ...], result: Any) -> int:
        name = func.overloadpacket.__name__
        if name in _READ:
            return int(args[0].numel())
        if name == "avg_pool2d":
            return int(result.numel() * math.prod(args[1]))
        if name == "scaled_dot_product_attention":
            return 3 * _count_scores(args[0].shape, args[1].shape)  # exponential, sum, division
        if name in ("softmax", "_softmax"):
            return 3 * int(result.numel())
        is_written = name in _WRITTEN or (torch.Tag.pointwise in func.tags and name not in _COPIES)
        return int(result.numel()) if is_written else 0


def _describe_layers(stage: nn.Module) -> str:
    parts = []
    for module in stage.modules():
        match module:
            case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
                size = "×".join(map(str, module.kernel_size))
                parts.append(f"{type(module).__name__} {module.in_channels}→{module.out_channels} {size}")
            case nn.Linear():
                parts.append(f"Linear {module.in_features}→{module.out_features}")
            case nn.BatchNorm2d() | nn.BatchNorm3d():
                parts.append("BN")
            case nn.ReLU():
                parts.append("ReLU")
            case nn.Dropout() if module.p:
                parts.append(f"dropout {module.p:g}")
            case nn.AdaptiveAvgPool2d() | nn.AdaptiveAvgPool3d():
                parts.append("mean")
            case nn.MaxPool2d():
                parts.append(f"max-pool {module.kernel_size}")
            case nn.Flatten() if module.end_dim == 2:
                parts.append("depth into features")
            case nn.Unflatten():
                parts.append("features into depth")
            case _ if type(module).__module__.startswith("hsi_se.") and module.extra_repr():
                parts.append(module.extra_repr())
    return ", ".join(parts)


@dataclass(frozen=True)
class BlockCost:
    """The cost that one kind of block, with default settings, adds to a network at one point."""

    point: str
    kind: str
    num_parameters: int | None = None  # trainable
    macs: int | None = None  # per patch
    forward_us: float | None = None  # measured, in microseconds per patch, in batches of 32
    misfit: str = ""  # why the block does not fit the point; the costs are then None


def compare_blocks(
    settings: config.Network, *, num_bands: int, patch_size: int, num_classes: int
) -> Iterator[BlockCost]:
    """Yields the cost of every kind of block at every point of a network, one block at a time."""
    sizes = {"num_bands": num_bands, "patch_size": patch_size, "num_classes": num_classes}
    patches = torch.randn(_TIMED_PATCHES, 1, num_bands, patch_size, patch_size)
    bare = build_model(settings.model_copy(update={"attention": {}}), **sizes)
    parameters, macs = count_parameters(bare), count_macs(bare)
    for point, block in itertools.product(settings.points, config.list_blocks()):
        if misfit := block.explain_misfit(is_3d=point in settings.points_3d):
            yield BlockCost(point, block.kind, misfit=misfit[1])
            continue
        try:
            model = build_model(settings.model_copy(update={"attention": {point: block}}), **sizes)
        except ConfigError as error:  # a plugin's block fails at this point
            yield BlockCost(point, block.kind, misfit=str(error))
            continue
        added = count_parameters(model) - parameters, count_macs(model) - macs
        yield BlockCost(point, block.kind, *added, forward_us=1e6 * _time_blocks(model, patches) / _TIMED_PATCHES)


def _time_blocks(model: Network, patches: Tensor) -> float:
    """Returns the median time in seconds that a forward pass of `patches` spends in attention blocks."""
    spent: list[float] = []

    def start(*_: object) -> None:
        spent[-1] -= time.perf_counter()

    def stop(*_: object) -> None:
        spent[-1] += time.perf_counter()

    for module in model.modules():
        if isinstance(module, AttentionBlock):
            module.register_forward_pre_hook(start)
            module.register_forward_hook(stop)
    with evaluation_mode(model):
        for _ in range(_TIMED_PASSES + 1):
            spent.append(0.0)
            model(patches)
    return statistics.median(spent[1:])  # the first pass is a warm-up
