"""What a network costs: parameters, and multiply-accumulates as torch's own counter sees them."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.inference import evaluation_mode


@dataclass(frozen=True)
class StageCost:
    """One row of `hsi-se info`.

    Attributes:
        name: the stage, its slot as `attention.STAGE`, or `head`.
        shape: the output without the batch.
        num_parameters: trainable ones.
        macs: multiply-accumulates of one patch in convolutions and dense layers. FLOPs are twice that.
        contents: what the module is, in a few words.
    """

    name: str
    shape: tuple[int, ...]
    num_parameters: int
    macs: int
    contents: str


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def count_stage_costs(model: HybridSN) -> list[StageCost]:
    """Returns the cost of each stage, of what sits in its slot, and of the head, for one patch."""
    patch = torch.zeros(1, 1, model.num_bands, model.patch_size, model.patch_size)
    patch = patch.to(next(model.parameters()).device)
    with evaluation_mode(model), FlopCounterMode(display=False, depth=3) as counter:
        logits = model(patch)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(model).__name__

    def cost(name: str, module: nn.Module, shape: tuple[int, ...], contents: str) -> StageCost:
        macs = flops.get(f"{root}.{name}", 0) // 2
        return StageCost(name.removeprefix("stages."), shape, count_parameters(module), macs, contents)

    rows = []
    for point, stage in model.stages.items():
        slot = model.attention[point]
        rows.append(cost(f"stages.{point}", stage, model.shapes[point], _describe_stage(stage)))
        if not isinstance(slot, nn.Identity):
            rows.append(cost(f"attention.{point}", slot, model.shapes[point], slot.extra_repr()))
    rows.append(cost("head", model.head, tuple(logits.shape[1:]), _describe_stage(model.head)))
    return rows


def _describe_stage(stage: nn.Module) -> str:
    parts = []
    for module in stage.modules():
        match module:
            case nn.Conv2d() | nn.Conv3d():
                size = "×".join(map(str, module.kernel_size))
                parts.append(f"{type(module).__name__} {module.in_channels}→{module.out_channels} {size}")
            case nn.Linear():
                parts.append(f"Linear {module.in_features}→{module.out_features}")
            case nn.BatchNorm2d() | nn.BatchNorm3d():
                parts.append("BN")
            case nn.ReLU():
                parts.append("ReLU")
            case nn.Dropout():
                parts.append(f"dropout {module.p:g}")
            case nn.Flatten():
                parts.append("depth into features")
            case nn.Unflatten():
                parts.append("features into depth")
    return ", ".join(parts)
