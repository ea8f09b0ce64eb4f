"""Attention blocks, one per file; each takes features (n, c, …) and returns the same shape."""

from torch import nn


class AttentionBlock(nn.Module):
    """The base class of all blocks: a printed network shows a block as its `description`.

    Blocks are built from their settings in `config.model`, which describe every option.
    """

    description = ""

    def extra_repr(self) -> str:
        return self.description
