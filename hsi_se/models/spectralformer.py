"""SpectralFormer: a transformer along the spectrum, whose tokens are groups of adjacent bands.

Hong, Han, Yao, Gao, Zhang, Plaza, Chanussot: SpectralFormer: Rethinking Hyperspectral Image Classification With
Transformers, IEEE Transactions on Geoscience and Remote Sensing 60 (2022), https://doi.org/10.1109/TGRS.2021.3130716.
Axes: n patches, k components, p × p pixels, c features, t tokens, C classes.
"""

from torch import Tensor, nn

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.transformer import ClassToken, Encoder, TokenNetwork

_WIDTH, _DEPTH, _HEADS, _HIDDEN = 64, 5, 4, 8  # features of a token, encoder layers, heads, hidden dense layer


@register_network("spectralformer", settings=config.SpectralFormer)
class SpectralFormer(TokenNetwork):
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
        sizes = {"heads": _HEADS, "hidden": _HIDDEN, "num_fused": settings.fusion * (1 + num_bands)}
        encoder = Encoder(_DEPTH, _WIDTH, **sizes, dropout=settings.dropout, has_bias=False)
        stages = {"embedding": embedding, "tokens": start, "encoder": encoder}
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, num_classes))


class GroupEmbedding(nn.Module):
    """Group-wise spectral embedding: a dense layer on each band with its neighbours.

    Of each patch, only the `size` × `size` pixels in its centre are seen. Shape: `(n, 1, k, p, p)` to `(n, c, k, 1)`.
    """

    def __init__(self, size: int, width: int, *, group: int) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv1d(size**2, width, group, padding=group // 2, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        edge = (x.shape[-1] - self.size) // 2
        centre = x[:, 0, :, edge : edge + self.size, edge : edge + self.size]
        embedded: Tensor = self.conv(centre.flatten(2).transpose(1, 2))  # (n, c, k)
        return embedded.unsqueeze(3)
