"""S²Mamba: selective state-space scans over the pixels of a patch and along its features, mixed pixel by pixel.

Wang, Zhang, Peng, Zhang, Jiao: S²Mamba: A Spatial-Spectral State Space Model for Hyperspectral Image Classification,
IEEE Transactions on Geoscience and Remote Sensing (2025), https://doi.org/10.1109/TGRS.2025.3530993.
Axes: n patches, k components, p × p pixels, f features, h rows, w cols, r directions, t steps, c channels, s states.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.network import ComponentsAsChannels, Drawn, Network, make_head

_FEATURES, _INNER, _RANK = 64, 128, 4  # features of a pixel, in a branch, and of the projection that gives step sizes
_LEAST_GATE, _STEPS = 0.1, (1e-3, 1e-1)  # a smaller gate of the mixture is 0; range of the step sizes before training


@register_network("s2mamba", settings=config.S2Mamba)
class S2Mamba(Network):
    """S²Mamba with one layer, as the authors' code for Indian Pines: 118,632 parameters for 200 bands, patches of 7.

    The stages are the embedding of every pixel, and the mixture of a patch cross scanning branch and a bi-directional
    spectral scanning branch.

    Departures: the scan is a loop in plain PyTorch; counts of MACs leave out its products of single values. Weights are
    drawn as in `initialize`, not from a normal distribution. The second spectral direction is reversed, as in the
    paper; the authors' code reverses its output alone.

    Shape: `(n, 1, k, p, p)` to `(n, C)`, for any k and p.
    """

    def __init__(self, settings: config.S2Mamba, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        embedding = nn.Sequential(ComponentsAsChannels(), nn.Conv2d(num_bands, _FEATURES, 1), nn.GELU())
        stages = {"embedding": embedding, "mixture": _Mixture(settings, patch_size=patch_size)}
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.head = make_head(_FEATURES, num_classes, dropout=0.0)


def scan(x: Tensor, step: Tensor, *, decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """Returns y of the selective scan h(t) = exp(Δ(t) A) h(t - 1) + Δ(t) B(t) x(t), y(t) = C(t) h(t).

    Gu, Dao: Mamba, https://arxiv.org/abs/2312.00752, eqs. 2 and 4, with the simplified B̄ of its code.

    `x`, `step` (Δ) and y are `(n, r, t, c)`; `decay` (A, below 0) is `(r, c, s)`; `write` (B) and `read` (C) are
    `(n, r, t, s)`.
    """
    given, outputs = (step * x).unsqueeze(4), []
    state = x.new_zeros(*x.shape[:2], x.shape[3], decay.shape[2])  # (n, r, c, s)
    for now in range(x.shape[2]):
        state = (step[:, :, now, :, None] * decay).exp() * state + given[:, :, now] * write[:, :, now, None]
        outputs.append(state @ read[:, :, now, :, None])
    return torch.stack(outputs, 2).squeeze(4)


class SelectiveScan(Drawn):
    """Scans sequences `(n, r, t, c)` in r directions, each with weights of its own; Δ, B and C depend on the input."""

    def __init__(self, directions: int, channels: int, *, states: int) -> None:
        super().__init__()
        self.states = states
        self.project = nn.Parameter(torch.empty(directions, channels, _RANK + 2 * states))
        self.step_weight = nn.Parameter(torch.empty(directions, _RANK, channels))
        self.step_bias = nn.Parameter(torch.empty(directions * channels))
        self.decay_log = nn.Parameter(torch.arange(1, states + 1).log().repeat(directions, channels, 1))
        self.skip = nn.Parameter(torch.ones(directions * channels))

    def draw(self, generator: torch.Generator) -> None:
        for weight in (self.project, self.step_weight):
            bound = weight.shape[1] ** -0.5
            weight.uniform_(-bound, bound, generator=generator)
        step = self.step_bias.uniform_(*map(math.log, _STEPS), generator=generator).exp()
        self.step_bias.copy_(step + (-torch.expm1(-step)).log())  # softplus gives the step back

    def forward(self, x: Tensor) -> Tensor:
        step, write, read = torch.split(x @ self.project, [_RANK, self.states, self.states], 3)
        bias, skip = (each.view(len(self.project), 1, -1) for each in (self.step_bias, self.skip))
        step = F.softplus(step @ self.step_weight + bias)
        return scan(x, step, decay=-self.decay_log.exp(), write=write, read=read) + skip * x


class _Branch(nn.Module):
    """Expands pixels `(n, h, w, f)`, convolves and scans them, and reduces what a gate lets through.

    Pixels are scanned row by row and col by col, or features where the channels of a step are the pixels; both ways.
    """

    def __init__(self, settings: config.S2Mamba, channels: int, *, is_spectral: bool) -> None:
        super().__init__()
        self.is_spectral = is_spectral
        self.expand = nn.Linear(_FEATURES, 2 * _INNER, bias=False)
        self.conv = nn.Conv2d(_INNER, _INNER, 3, padding=1, groups=_INNER)
        self.scan = SelectiveScan(2 if is_spectral else 4, channels, states=settings.states)
        self.norm = nn.LayerNorm(channels)
        self.reduce = nn.Linear(_INNER, _FEATURES, bias=False)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.expand(x).chunk(2, 3)
        image = F.silu(self.conv(x.movedim(3, 1)))  # (n, 128, h, w)
        orders = image.flatten(2).unsqueeze(1)  # (n, 1, t, c), pixels as channels
        if not self.is_spectral:
            orders = torch.stack([image.flatten(2), image.transpose(2, 3).flatten(2)], 1).transpose(2, 3)
        forwards, backwards = self.scan(torch.cat([orders, orders.flip(2)], 1)).chunk(2, 1)
        scanned = forwards + backwards.flip(2)  # (n, 1 or 2, t, c)
        if self.is_spectral:
            y = self.norm(scanned).view_as(image).movedim(1, 3)
        else:
            rows, cols = torch.unflatten(scanned, 2, image.shape[2:]).unbind(1)  # patches are square
            y = self.norm(rows + cols.transpose(1, 2))
        return self.dropout(self.reduce(y * F.gelu(gate)))  # type: ignore[no-any-return]


class _Mixture(nn.Module):
    """Adds both branches to features `(n, f, h, w)`, weighted by a softmax gate per pixel, and normalises the sum."""

    def __init__(self, settings: config.S2Mamba, *, patch_size: int) -> None:
        super().__init__()
        self.norm, self.out_norm, self.rate = nn.LayerNorm(_FEATURES), nn.LayerNorm(_FEATURES), settings.dropout
        self.spatial = _Branch(settings, _INNER, is_spectral=False)
        self.spectral = _Branch(settings, patch_size**2, is_spectral=True)
        dense = nn.Linear(_INNER, _INNER), nn.GELU(), nn.Linear(_INNER, 2)
        self.gate = nn.Sequential(nn.LayerNorm(_INNER), *dense)

    def extra_repr(self) -> str:
        return f"spatial and spectral scans, {self.spatial.scan.states} states"

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.movedim(1, 3)
        normed = self.norm(pixels)
        both = torch.stack([self.spatial(normed), self.spectral(normed)], 3)  # (n, h, w, 2, f)
        gates = self.gate(both.flatten(3)).softmax(3)
        gates = gates.where(gates >= _LEAST_GATE, 0)
        mixed = (gates.unsqueeze(3) @ both).squeeze(3)  # (n, h, w, f)
        kept = F.dropout(x.new_ones(x.shape[0], 1, 1, 1), self.rate, self.training)  # whole patches skip the mixture
        features: Tensor = self.out_norm(pixels + kept * mixed)
        return features.movedim(3, 1)
