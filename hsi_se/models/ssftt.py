"""The spectral-spatial feature tokenization transformer: two convolutions, a few tokens, one encoder layer.

Sun, Zhao, Zheng, Wu: Spectral-Spatial Feature Tokenization Transformer for Hyperspectral Image Classification, IEEE
Transactions on Geoscience and Remote Sensing 60 (2022), https://doi.org/10.1109/TGRS.2022.3144158.
Axes: n patches, k components, p × p pixels, c features, d spectral depth, h rows, w cols, t tokens, C classes.
"""

from torch import Tensor, nn

from hsi_se.config import model as config
from hsi_se.config.registry import register_network
from hsi_se.models.hybridsn import Fold, make_conv
from hsi_se.models.transformer import ClassToken, Encoder, TokenNetwork

_WIDTH, _HEADS, _HIDDEN = 64, 8, 8  # features of a token, heads, features of the encoder's hidden dense layer


@register_network("ssftt", settings=config.Ssftt)
class Ssftt(TokenNetwork):
    """SSFTT with the layers and the 153,224 parameters of the authors' code for 30 components and 16 classes.

    The stages are a 3-D convolution, a 2-D one, the tokenizer and the encoder.

    Departures: all weights are drawn as in `initialize`, those of the tokenizer too, which the paper draws from a
    normal distribution. The scores of a head are divided by the square root of its own width, as in the paper; the
    authors' code divides by that of all heads together.

    Shape: `(n, 1, k, p, p)` to `(n, C)`, with k at least 3 and p at least 5.
    """

    def __init__(self, settings: config.Ssftt, *, num_bands: int, patch_size: int, num_classes: int) -> None:
        start = ClassToken(settings.tokens, _WIDTH, dropout=settings.dropout, token_std=0.0, position_std=0.02)
        stages = {
            "conv3d": make_conv(1, 8, depth=3),
            "conv2d": nn.Sequential(Fold(1, 2), make_conv(8 * (num_bands - 2), _WIDTH)),
            "tokens": nn.Sequential(Tokenizer(_WIDTH, settings.tokens), start),
            "encoder": Encoder(1, _WIDTH, heads=_HEADS, hidden=_HIDDEN, dropout=settings.dropout, has_bias=True),
        }
        super().__init__(stages, settings.attention, num_bands=num_bands, patch_size=patch_size)
        self.head = nn.Sequential(nn.Linear(_WIDTH, num_classes))


class Tokenizer(nn.Module):
    """Weighted means of the pixels, `(n, c, h, w)` to `(n, c, t, 1)`; the weights are a softmax over the pixels.

    A dense layer without bias gives every pixel its score for each token, a second one its value.
    """

    def __init__(self, width: int, num_tokens: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, num_tokens, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)  # (n, h·w, c)
        weights = self.score(pixels).softmax(1)  # (n, h·w, t)
        tokens: Tensor = self.value(pixels).transpose(1, 2) @ weights  # (n, c, t)
        return tokens.unsqueeze(3)
