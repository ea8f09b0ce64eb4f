"""Modules that attention is inserted after: blocks with several layers, containers, and parents that read them."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SE = {"kind": "se"}


class Total(nn.ModuleList):
    """Sums its children."""

    def forward(self, x: Tensor) -> Tensor:
        return sum(child(x) for child in self)


class Joined(nn.ModuleList):
    """Concatenates its children's outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([child(x) for child in self], 1)


class DenseBlock(nn.ModuleDict):
    """Each layer sees the outputs of all layers before it, as in DenseNet."""

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for _, layer in self.items():  # noqa: PERF102  as torchvision writes it
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class LastIsKnown(nn.Module):
    """Runs its stage, and asks the last layer of the stage for its width."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(OrderedDict(first=nn.Conv2d(8, 8, 1), last=nn.Conv2d(8, 4, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x).view(len(x), self.stage[-1].out_channels, *x.shape[2:]) * len(self.stage)


class AllChildren(nn.Module):
    """Sums whatever children it has; nothing can hide a block from it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return sum(child(x) for child in self.children())


class ReadsChildren(nn.Module):
    """A parent whose result depends on the children of its stage, though the stage's output does not."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x) * (1 + len(list(self.stage.children())))


class LastChild(ReadsChildren):
    """A parent that needs its stage's children to be of one kind."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.stage(x)
        return features + sum(child.weight.sum() for child in self.stage.children())


HOSTS: dict[str, Callable[[], nn.Module]] = {
    "sum": lambda: Total([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)]),
    "concatenation": lambda: Joined([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)]),
    "dense block": lambda: DenseBlock({"a": nn.Conv2d(8, 8, 1), "b": nn.Conv2d(16, 8, 1)}),
    "sequential": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()),
    "convolution": lambda: nn.Conv2d(8, 8, 1),
    "no weights": lambda: nn.ReLU(),
}


def make_network(host: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 8, 1), host=host)).eval()
