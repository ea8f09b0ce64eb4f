"""SpectralFormer: a transformer along the spectrum, whose tokens are groups of adjacent bands.

Hong, Han, Yao, Gao, Zhang, Plaza, Chanussot: SpectralFormer: Rethinking Hyperspectral Image Classification With
Transformers, IEEE Transactions on Geoscience and Remote Sensing 60 (2022), https://doi.org/10.1109/TGRS.2021.3130716.
Axes: n patches, k components, p × p pixels, c features, t tokens, C classes.
"""

import torch
from torch import Tensor, nn

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.network import Network
from hsi_se.models.transformer import ClassToken, Encoder, PickClassToken

_WIDTH, _DEPTH, _HEADS, _HIDDEN = 64, 5, 4, 8  # features of a token, encoder layers, heads, hidden dense layer


@register_network("spectralformer", settings=config.SpectralFormer)
class SpectralFormer(Network):
    """SpectralFormer with the layers of the authors' code: group-wise spectral embedding and cross-layer fusion.

    For 200 bands and 16 classes it has 346,361 parameters from single pixels, and 355,577 from patches of 7. The
    stages are the embedding of the groups, one per band; the tokens, with a class token; and the encoder.

    Departure: embedding and encoder are drawn as in `initialize`; class token and positions are standard normal, as in
    the authors' code. As there, the first and last bands are neighbours in the groups at the ends of the spectrum.

    Shape: `(n, 1, k, p, p)` to `(n, C)`; with `mode: pixel` only the centre pixel is seen.
    """

    def __init__(self, settings: config.SpectralFormer, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        embedding = GroupEmbedding(1 if settings.mode == "pixel" else patch_size, _WIDTH, group=settings.group)
        start = ClassToken(num_bands, _WIDTH, dropout=settings.dropout, token_std=1.0, position_std=1.0)
        sizes = {"heads": _HEADS, "hidden": _HIDDEN}
        encoder = Encoder(_DEPTH, _WIDTH, **sizes, dropout=settings.dropout, has_bias=False)
        if settings.fusion:
            encoder = FusedEncoder(1 + num_bands, **sizes, dropout=settings.dropout)
        stages = {"embedding": embedding, "tokens": start, "encoder": encoder}
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.head = nn.Sequential(PickClassToken(), nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, num_classes))


class GroupEmbedding(nn.Module):
    """Group-wise spectral embedding: a dense layer on each band with its neighbours.

    Of each patch, only the `size` × `size` pixels in its centre are seen. Shape: `(n, 1, k, p, p)` to `(n, c, k, 1)`.
    """

    def __init__(self, size: int, width: int, *, group: int) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv1d(size**2, width, group, padding=group // 2, padding_mode="circular")

    def extra_repr(self) -> str:
        return (
            f"groups of {self.conv.kernel_size[0]} bands, {self.size} × {self.size} pixels → {self.conv.out_channels}"
        )

    def forward(self, x: Tensor) -> Tensor:
        edge = (x.shape[-1] - self.size) // 2
        centre = x[:, 0, :, edge : edge + self.size, edge : edge + self.size]
        embedded: Tensor = self.conv(centre.flatten(2).transpose(1, 2))  # (n, c, k)
        return embedded.unsqueeze(3)


class FusedEncoder(Encoder):
    """An encoder with cross-layer adaptive fusion: from the third layer on, tokens of two layers earlier are added.

    A convolution over the tokens, with a kernel of 1 × 2, weighs both.
    """

    def __init__(self, num_tokens: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__(_DEPTH, _WIDTH, heads=heads, hidden=hidden, dropout=dropout, has_bias=False)
        self.fusions = nn.ModuleList(nn.Conv2d(num_tokens, num_tokens, (1, 2)) for _ in range(_DEPTH - 2))
        self.title += ", cross-layer fusion"

    def run(self, tokens: Tensor) -> Tensor:
        found = [tokens]  # of the embedding and each layer
        for number, layer in enumerate(self.layers):
            if number >= 2:
                tokens = self.fusions[number - 2](torch.stack([tokens, found[number - 2]], 3)).squeeze(3)
            tokens = layer(tokens)
            found.append(tokens)
        return tokens
