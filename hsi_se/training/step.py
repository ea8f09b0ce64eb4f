"""From a batch of training pixels to logits: patch by patch, or over the area that the patches share."""

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from hsi_se.config.training import TrainSettings
from hsi_se.models.cost import StageCost, count_stage_costs
from hsi_se.models.network import Network
from hsi_se.sampling.patches import PatchDataset
from hsi_se.training.augment import draw_area, draw_patches
from hsi_se.training.compiled import compile_network
from hsi_se.training.precision import choose_precision
from hsi_se.training.shared_step import Watch, can_share, finish_forward, list_shared_points, share_forward
from hsi_se.training.windows import gather_windows

# Seconds of a shared MAC over those of one patch by patch, gathers and scatter-adds included, and a margin:
# 1.04 without attention, 0.99 with gates, by benchmarks/training_throughput.py.
SHARED_COST = 1.1
DRAWN = "drawing and varying"


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
        precision: of its products.
        obstacle: why patches cannot share, in words; empty where they can.
        cost: of the last batch that could share.
        watch: told of what each part of the forward pass gives, by its name.
    """

    def __init__(self, model: torch.nn.Module, *, train: PatchDataset, settings: TrainSettings) -> None:
        self._model, self._train, self._settings = model, train, settings
        self._network = compile_network(model, train.device) if settings.compile else model
        self.precision = choose_precision(settings.precision, train.device)
        self.obstacle = _explain_obstacle(model, settings, device=train.device)
        self.cost: BatchCost | None = None
        self.watch: Watch | None = None

    def __call__(self, index: Tensor, *, generator: torch.Generator, share: slice = slice(None)) -> Tensor:
        """Returns the logits `(n, C)` of the training pixels at CPU positions `index`.

        Under torchrun the whole batch is drawn, and of it this process's `share` goes through the network.
        """
        settings, size = self._settings, self._train.patch_size
        if settings.vary_by == "patch" and self.obstacle:
            patches = draw_patches(self._train, index, settings=settings, generator=generator)
            return self._forward(patches[share])
        area, corners = draw_area(self._train, index, settings=settings, generator=generator)
        if not self.obstacle:
            self.cost = self.estimate(len(index), area.shape[:2])
            if self.cost.is_shared:
                if self.watch is not None:
                    self.watch(DRAWN, area)
                with self._autocast():
                    return share_forward(cast(Network, self._model), area, corners, watch=self.watch)
        patches = gather_windows(area, corners, size=size)[share]  # (n, p, p, k)
        return self._forward(patches.permute(0, 3, 1, 2).unsqueeze(1))  # (n, 1, k, p, p)

    def _forward(self, patches: Tensor) -> Tensor:
        with self._autocast():
            if self.watch is None:
                return self._network(patches)
            self.watch(DRAWN, patches)
            model = cast(Network, self._model)
            return finish_forward(model, patches, model.stages, watch=self.watch)

    def _autocast(self) -> torch.autocast:
        is_mixed = self.precision == "bfloat16"
        return torch.autocast(self._train.device.type, torch.bfloat16, enabled=is_mixed)

    @cached_property
    def _stage_costs(self) -> list[StageCost]:
        return count_stage_costs(cast(Network, self._model))

    def count_macs(self, num_patches: int, area: tuple[int, ...] | None = None) -> dict[str, int]:
        """Returns the forward MACs of each stage, slot and the head for a batch: over an area, if given."""
        macs = {}
        shared = list_shared_points(cast(Network, self._model))
        for cost in self._stage_costs:
            span = cost.shape[-1]
            if area is not None and cost.name in shared:
                rows, cols = (length - self._train.patch_size + span for length in area)
                macs[cost.name] = cost.macs // span**2 * rows * cols
            else:
                macs[cost.name] = num_patches * cost.macs
        return macs

    def estimate(self, num_patches: int, area: tuple[int, ...]) -> BatchCost:
        """Returns what a batch of patches costs that cover rows × cols."""
        each, together = self.count_macs(num_patches), self.count_macs(num_patches, area)
        return BatchCost(
            num_patches,
            (area[0], area[1]),
            patchwise_macs=sum(each.values()),
            shared_macs=sum(together.values()),
        )


def _explain_obstacle(model: torch.nn.Module, settings: TrainSettings, *, device: torch.device) -> str:
    if settings.compile:
        return "train.compile makes one program of a patch's way; sharing is another"
    if device.type != "cpu":
        return "sharing is for processors: a GPU would be busy launching what is done for each patch"
    if not can_share(model):
        return "only HybridSN and cnn3d keep what patches share apart from what they do not"
    varied = settings.list_variations()
    if settings.vary_by == "patch" and varied:
        return f"{' and '.join(varied)} changes each patch in its own way; train.vary_by: batch does not"
    return ""
