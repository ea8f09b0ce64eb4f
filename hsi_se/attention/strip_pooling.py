"""Strip pooling: a gate per channel and pixel, from the means of its row and its column.

Hou, Zhang, Cheng, Feng: Strip Pooling, https://arxiv.org/abs/2003.13328.
Axes: n patches, c features, h rows, w cols.
"""

from functools import partial

from torch import Tensor, nn

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention


@register_attention("strip_pooling", settings=config.StripPooling)
class StripPooling(AttentionBlock):
    """Scales by `sigmoid(f(relu(yʰ + yʷ)))` (section 3.1).

    yʰ and yʷ are 1-D convolutions of the row and column means, and f is a 1×1 convolution. Departures
    from the paper: `kernel_size` is an option (3 in the paper); strips are padded by repeating their ends
    instead of with zeros, so that a constant map stays constant. The ReLU comes from the authors' code;
    its norms between the convolutions are left out, as in the equations.

    Shape: `(n, c, h, w)`; the output has the same shape.
    """

    def __init__(self, channels: int, num_out: int = 0, *, kernel_size: int = 3) -> None:
        super().__init__(channels, num_out)
        self.description = f"strip pooling {channels}, kernel {kernel_size}"
        margin = kernel_size // 2
        make_conv = partial(nn.Conv2d, channels, channels, padding_mode="replicate")
        self.along_rows = make_conv((kernel_size, 1), padding=(margin, 0))
        self.along_cols = make_conv((1, kernel_size), padding=(0, margin))
        self.fuse = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.along_rows(x.mean(3, keepdim=True))  # (n, c, h, 1)
        cols = self.along_cols(x.mean(2, keepdim=True))  # (n, c, 1, w)
        return x * self.squash(self.fuse((rows + cols).relu()))
