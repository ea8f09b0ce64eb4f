"""Attention blocks, one per file; each takes features (n, c, …) and returns the same shape."""

from torch import Tensor, nn

from hsi_se.errors import ConfigError


class AttentionBlock(nn.Module):
    """The base class of all blocks: a printed network shows a block as its `description`.

    Blocks are built from their settings in `config.model`, which describe every option. They also take the channels of
    input and output as plain `(c1, c2)`, as a parser of a detector's rows gives them; these must be equal.
    """

    description = ""
    strength: nn.Parameter | None  # a trained factor that starts at 0, with `start: identity`

    def __init__(self, channels: int = 0, num_out: int = 0) -> None:
        super().__init__()
        if num_out not in (0, channels):
            form = f"{type(self).__name__}({channels}, {{}})"
            raise ConfigError(f"{form.format(num_out)}: keeps its channels; write {form.format(channels)}")
        self.register_parameter("strength", None)

    def squash(self, z: Tensor, *, neutral: float = 1.0) -> Tensor:
        """Returns the gates sigmoid(z); with `start: identity` 2·neutral·sigmoid(strength · z), at first `neutral`."""
        return z.sigmoid() if self.strength is None else 2 * neutral * (self.strength * z).sigmoid()

    @property
    def why_skipped(self) -> str:
        """What `explain` says of a block whose gates it does not show."""
        return f"{type(self).__name__} does not gate channels"

    def extra_repr(self) -> str:
        return self.description
