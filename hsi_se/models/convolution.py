"""Computes a 3-D convolution as a 2-D one, which uses the matrix units of a GPU several times better.

A depth of the output depends on t depths of the input, so a kernel of t × 3 × 3 with c channels is one of 3 × 3 with
t·c channels. b depths of the output together depend on t + b - 1 depths, and their common kernel is a band matrix:

    y(z, o) = Σ_i Σ_c W(o, c, i) ∗ x(z + i, c)        K(z·o, j·c) = W(o, c, j - z) for 0 ≤ j - z < t, otherwise 0

With b = 1 every product is needed, but the input is copied t times. With all depths of the output together nothing is
copied, but (t + b - 1) / t times as many products are computed, most of them with zeros: matrix units prefer that.

Axes: n patches, c and o channels, d and z depths of the input and output, h rows, w cols, t depths of the kernel.
"""

from torch import Tensor, compiler, nn
from torch.nn import functional as F

# Output channels of the 2-D convolution for which the kernels of cuDNN are fastest, measured by benchmarks/gpu.py.
_OUTPUTS_TOGETHER = 64


class Conv3d(nn.Conv3d):
    """An unpadded `nn.Conv3d` with kernels t × 3 × 3, computed in the way that is fastest on its device."""

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, together=choose_together(x, self.weight))


class SpectralConv3d(nn.Conv3d):
    """An `nn.Conv3d` with kernels t × 1 × 1, computed as a 2-D convolution over depths and pixels.

    In bfloat16 on a CPU, weight gradients of torch's own are partly uninitialised memory if t exceeds the depth.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight, stride, padding = self.weight.squeeze(4), self.stride[:2], self.padding[:2]
        y = F.conv2d(x.flatten(3), weight, self.bias, stride, padding)
        return y.unflatten(3, x.shape[3:])  # type: ignore[no-any-return,no-untyped-call]


class BatchNorm3d(nn.BatchNorm3d):
    """An `nn.BatchNorm3d` that does not copy features `(n, c, d, h, w)` whose channels are innermost in memory."""

    def forward(self, x: Tensor) -> Tensor:
        for order in ((0, 2, 3, 4, 1), (0, 3, 4, 2, 1)) if x.is_cuda else ():
            pixels = x.permute(order)
            if pixels.is_contiguous():  # then these are features (n, c, rows, cols) in torch's layout `channels_last`
                y = super().forward(pixels.flatten(2, 3).permute(0, 3, 1, 2))
                return y.permute(0, 2, 3, 1).view(pixels.shape).permute([order.index(axis) for axis in range(5)])
        return super().forward(x)

    def _check_input_dim(self, x: Tensor) -> None: ...


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, together: int | None) -> Tensor:
    """Returns the unpadded convolution of `x` `(n, c, d, h, w)` with `weight` `(o, c, t, 3, 3)`.

    Args:
        together: depths of the output that are computed as one, a divisor of their number; None for torch's own
            3-D convolution. The result is the same up to rounding.

    Returns:
        `(n, o, z, h - 2, w - 2)`, with the channels innermost in memory unless `together` is None.
    """
    if together is None:
        return F.conv3d(x, weight, bias)
    num_out, depth = len(weight), weight.shape[2]
    num_blocks = (x.shape[2] - depth + 1) // together
    windows = x.permute(0, 3, 4, 2, 1).unfold(3, depth + together - 1, together)  # (n, h, w, blocks, c, window)
    images = windows.permute(0, 3, 1, 2, 5, 4).contiguous().flatten(4).flatten(0, 1)  # (n·blocks, h, w, window·c)
    kernel = make_band(weight, together)
    y = F.conv2d(images.permute(0, 3, 1, 2), kernel, None if bias is None else bias.repeat(together))
    y = y.permute(0, 2, 3, 1).view(-1, num_blocks, *y.shape[2:], together, num_out)
    if together == 1:
        return y.squeeze(4).permute(0, 4, 1, 2, 3)
    return y.permute(0, 2, 3, 1, 4, 5).flatten(3, 4).permute(0, 4, 3, 1, 2)


def make_band(weight: Tensor, together: int) -> Tensor:
    """Returns the kernel `(together·o, (t + together - 1)·c, 3, 3)` of some depths of the output; see the module."""
    channels, depth = weight.shape[1:3]
    length = (depth + together - 1) * channels
    row = weight.permute(0, 3, 4, 2, 1).flatten(3)  # (o, 3, 3, t·c)
    # Rows that are one block longer than the matrix: read with its own length, each begins one block further right.
    rows = F.pad(row, (0, length + channels - depth * channels)).unsqueeze(3).expand(-1, -1, -1, together, -1)
    band = rows.flatten(3)[..., : together * length].reshape(*rows.shape[:4], length)  # (o, 3, 3, together, length)
    return band.permute(3, 0, 4, 1, 2).flatten(0, 1)


def choose_together(x: Tensor, weight: Tensor) -> int | None:
    """Returns how many depths of the output to compute together, for `convolve`; None on a CPU, but 1 for one image.

    A single input channel leaves too little work for narrow bands, so all depths are computed together.
    """
    if not x.is_cuda:  # torch's own 3-D convolution shares the work by patches: with one, it is five times slower
        return None if compiler.is_compiling() or len(x) > 1 else 1  # an exported program takes any number
    num_out, channels, depth = weight.shape[:3]
    num_depths = x.shape[2] - depth + 1
    most = num_depths if channels == 1 else max(1, _OUTPUTS_TOGETHER // num_out)
    return max(count for count in range(1, most + 1) if num_depths % count == 0)
