"""Layers of transformer networks: a class token with positions, and an encoder.

Dosovitskiy et al.: An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929.
Axes: n patches, t tokens, c features. Between stages, tokens are features `(n, c, t, 1)`, so that attention fits.
"""

import torch
from torch import Tensor, nn

from hsi_se.models.network import Drawn, Network


class ClassToken(Drawn):
    """Puts a trained token before the others, and adds a trained position to each: t tokens become t + 1."""

    def __init__(self, num_tokens: int, width: int, *, dropout: float, token_std: float, position_std: float) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(width, 1, 1))
        self.positions = nn.Parameter(torch.zeros(width, 1 + num_tokens, 1))
        self.dropout = nn.Dropout(dropout)
        self.stds = token_std, position_std

    def extra_repr(self) -> str:
        return f"class token and {self.positions.shape[1]} positions"

    def draw(self, generator: torch.Generator) -> None:
        for values, std in zip((self.token, self.positions), self.stds, strict=True):
            values.normal_(0, std, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1, -1), x], 2)  # (n, c, 1 + t, 1)
        return self.dropout(tokens + self.positions)  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Adds to tokens `(n, t, c)` their multi-head self-attention, then two dense layers; both of normalised tokens."""

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float, has_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=has_bias)
        self.out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))
        dense = nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        self.dense = nn.Sequential(nn.LayerNorm(width), *dense)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3)  # (n, heads, t, t)
        gathered = weights @ v  # (n, heads, t, c / heads)
        x = x + self.out(gathered.transpose(1, 2).flatten(2))
        return x + self.dense(x)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Encoder layers on features `(n, c, t, 1)`, with cross-layer adaptive fusion if `num_fused`, t, is given.

    From the third layer on, a convolution over the tokens, 1 × 2, then weighs the last tokens and those of two layers
    earlier (Hong et al., SpectralFormer, https://doi.org/10.1109/TGRS.2021.3130716).
    """

    def __init__(
        self, depth: int, width: int, *, heads: int, hidden: int, dropout: float, has_bias: bool, num_fused: int = 0
    ) -> None:
        super().__init__()
        sizes = {"heads": heads, "hidden": hidden}
        self.layers = nn.ModuleList(
            EncoderLayer(width, **sizes, dropout=dropout, has_bias=has_bias) for _ in range(depth)
        )
        num_fusions = depth - 2 if num_fused else 0
        self.fusions = nn.ModuleList(nn.Conv2d(num_fused, num_fused, (1, 2)) for _ in range(num_fusions))

    def extra_repr(self) -> str:
        fused = ", cross-layer fusion" if self.fusions else ""
        return f"encoder of {len(self.layers)}, {self.layers[0].heads} heads{fused}"

    def forward(self, x: Tensor) -> Tensor:
        found = [x.squeeze(3).transpose(1, 2)]  # (n, t, c) of the input and each layer
        for number, layer in enumerate(self.layers):
            tokens = found[-1]
            if self.fusions and number >= 2:
                tokens = self.fusions[number - 2](torch.stack([tokens, found[number - 2]], 3)).squeeze(3)
            found.append(layer(tokens))
        return found[-1].transpose(1, 2).unsqueeze(3)


class TokenNetwork(Network):
    """A network whose last features are tokens `(n, c, t, 1)`; its head sees the first, the class token."""

    def classify(self, x: Tensor) -> Tensor:
        return super().classify(x[:, :, 0, 0])
