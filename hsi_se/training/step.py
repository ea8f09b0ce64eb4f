"""From a batch of training pixels to logits: patch by patch, or over the area that the patches share."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from hsi_se.config import TrainSettings
from hsi_se.models.cost import count_stage_costs
from hsi_se.models.network import Network
from hsi_se.sampling.patches import PatchDataset
from hsi_se.training.augment import draw_area, draw_patches
from hsi_se.training.shared_step import can_share, last_shared_point, share_forward
from hsi_se.training.windows import gather_windows

# Time of a MAC in a shared forward and backward pass over that of one patch by patch, gathers and
# scatter-adds included: benchmarks/training_throughput.py measures it.
SHARED_COST = 1.0


@dataclass(frozen=True)
class BatchCost:
    """Counted multiply-accumulates of one batch's forward pass, either way."""

    num_patches: int
    area: tuple[int, int]  # rows and cols of what the patches cover
    patchwise_macs: int
    shared_macs: int

    @property
    def is_shared(self) -> bool:
        return self.shared_macs * SHARED_COST < self.patchwise_macs


class Stepper:
    """Draws a batch's variation and gives its logits, by whichever way costs fewer multiply-accumulates.

    Attributes:
        obstacle: why patches cannot share, in words; empty where they can.
        costs: of the batches so far.
    """

    def __init__(self, model: torch.nn.Module, *, train: PatchDataset, settings: TrainSettings) -> None:
        self._model, self._train, self._settings = model, train, settings
        self.obstacle = _explain_obstacle(model, settings)
        self.costs: list[BatchCost] = []
        if not self.obstacle:
            self._count_macs(cast(Network, model))

    def __call__(self, index: Tensor, *, generator: torch.Generator) -> Tensor:
        """Returns the logits `(n, C)` of the training pixels at CPU positions `index`."""
        settings, size = self._settings, self._train.patch_size
        if settings.vary_by == "patch" and self.obstacle:
            return self._forward(draw_patches(self._train, index, settings=settings, generator=generator))
        area, corners = draw_area(self._train, index, settings=settings, generator=generator)
        if not self.obstacle:
            cost = self.estimate(len(index), area.shape[:2])
            self.costs.append(cost)
            if cost.is_shared:
                with self._autocast():
                    return share_forward(cast(Network, self._model), area, corners)
        patches = gather_windows(area, corners, size=size)  # (n, p, p, k)
        return self._forward(patches.permute(0, 3, 1, 2).unsqueeze(1))  # (n, 1, k, p, p)

    def _forward(self, patches: Tensor) -> Tensor:
        if can_share(self._model):  # their 3-D convolutions are faster with the features side by side
            patches = patches.contiguous(memory_format=torch.channels_last_3d)
        with self._autocast():
            return cast(Tensor, self._model(patches))

    def _autocast(self) -> torch.autocast:
        is_mixed = self._settings.precision == "bfloat16"
        return torch.autocast(self._train.device.type, torch.bfloat16, enabled=is_mixed)

    def _count_macs(self, model: Network) -> None:
        """Splits a patch's MACs into those of each location of shared stages, and the rest."""
        costs = count_stage_costs(model)
        points = list(model.stages)
        shared = set(points[: points.index(last_shared_point(model)) + 1])
        self._patch_macs = sum(cost.macs for cost in costs)
        self._own_macs = sum(cost.macs for cost in costs if cost.name not in shared)
        spans = [(cost.macs, cost.shape[-1]) for cost in costs if cost.name in shared]
        self._shared_macs = [(macs // span**2, span) for macs, span in spans]  # of a location; its window

    def estimate(self, num_patches: int, area: tuple[int, ...]) -> BatchCost:
        """Returns what a batch of patches costs that cover rows × cols."""
        rows, cols = (length - self._train.patch_size for length in area)
        shared = sum(macs * (rows + span) * (cols + span) for macs, span in self._shared_macs)
        return BatchCost(
            num_patches,
            (area[0], area[1]),
            patchwise_macs=num_patches * self._patch_macs,
            shared_macs=shared + num_patches * self._own_macs,
        )


def _explain_obstacle(model: torch.nn.Module, settings: TrainSettings) -> str:
    if not can_share(model):
        return "only HybridSN and cnn3d keep what patches share apart from what they do not"
    varied = settings.list_variations()
    if settings.vary_by == "patch" and varied:
        return f"{' and '.join(varied)} changes each patch in its own way; train.vary_by: batch does not"
    return ""
