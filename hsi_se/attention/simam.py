"""SimAM: a gate per value from its squared distance to the channel mean; no parameters.

Yang, Zhang, Li, Xie: SimAM, https://proceedings.mlr.press/v139/yang21o.html.
"""

from torch import Tensor

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.config.registry import register_attention


@register_attention("simam", settings=config.SimAm)
class SimAm(AttentionBlock):
    """Scales by `sigmoid(1 / e)`, where e is the minimal energy of a value t (eqs. 5-6).

    `1 / e = (t - μ)² / 4(σ² + λ) + 1/2`, where λ is the `regularization`. As in the paper's code, μ is the
    mean of all M values of a channel, and σ² is divided by M - 1.

    Shape: any `(n, c, …)`; the output has the same shape.
    """

    def __init__(self, channels: int = 1, num_out: int = 0, *, regularization: float = 1e-4) -> None:
        super().__init__(channels, num_out)
        self.description = f"simam λ {regularization:g}"
        self.regularization = regularization

    def forward(self, x: Tensor) -> Tensor:
        deviation = (x.flatten(2) - x.flatten(2).mean(2, keepdim=True)).square()  # (n, c, M)
        variance = deviation.sum(2, keepdim=True) / max(1, deviation.shape[2] - 1)
        gates = self.squash(deviation / (4 * (variance + self.regularization)) + 0.5)
        return x * gates.view_as(x)
