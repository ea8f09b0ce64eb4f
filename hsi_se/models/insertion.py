"""Inserts attention blocks into any torch network, after submodules given by name."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from hsi_se.attention.placement import build_attention
from hsi_se.config.model import AttentionSettings
from hsi_se.errors import ConfigError
from hsi_se.models.inference import record_outputs

Network = TypeVar("Network", bound=nn.Module)


def insert_attention(network: Network, blocks: Mapping[str, AttentionSettings], *, example: Tensor) -> Network:
    """Inserts an attention block after each named submodule, in place, and returns the network.

    A dry run with `example` determines the number of channels. All other weights keep their values and names. A block's
    parameters are named `NAME.attention.…`, so older checkpoints load with `strict=False`. The network can still be
    deep-copied, pickled and exported.

    Args:
        network: any torch network; it runs twice, in evaluation mode and without gradients, and its mode is restored.
        blocks: settings by the submodule's dotted name, such as `{"layer3.1.bn2": SqueezeExcite(kind="se")}`.
        example: an input of the network, on the network's device.

    Raises:
        ConfigError: a name does not exist, a submodule is not called exactly once, its output is not a tensor `(n, c,
            h, w)` or `(n, c, d, h, w)`, or the block does not fit. The network is then unchanged.
    """
    modules = dict(network.named_modules())
    for name in blocks:
        if not name or name not in modules:
            near = difflib.get_close_matches(name, modules, n=3) or [key for key in modules if key][:3]
            raise ConfigError(f"insert_attention: no submodule {name!r}; the closest are {', '.join(near)}")
        if hasattr(modules[name], "attention"):
            raise ConfigError(
                f"insert_attention: {name} already has an attribute named attention; choose another submodule"
            )
    outputs = record_outputs(network, {name: modules[name] for name in blocks}, example)
    built = {name: _build_after(name, block, outputs[name]) for name, block in blocks.items()}
    for name, module in built.items():
        modules[name].add_module("attention", module.to(example.device).train(modules[name].training))
    for name, outputs_of_block in record_outputs(network, built, example).items():
        if not outputs_of_block:  # a Sequential already runs the new child last; others need a hook
            modules[name].register_forward_hook(_attend)
    return network


def _build_after(name: str, block: AttentionSettings, outputs: list[object]) -> nn.Module:
    if len(outputs) != 1:
        raise ConfigError(
            f"insert_attention: {name} is called {len(outputs)} times in one forward pass, not once; "
            "choose a submodule that is called once"
        )
    output = outputs[0]
    if not isinstance(output, Tensor) or output.ndim not in (4, 5):
        found = f"a {type(output).__name__}"
        if isinstance(output, Tensor):
            found = f"a tensor {tuple(output.shape)}"
        raise ConfigError(
            f"insert_attention: {name} returns {found}, not features (n, c, h, w) or "
            "(n, c, d, h, w); choose a convolution, a norm or a block of them"
        )
    misfit = block.explain_misfit(is_3d=output.ndim == 5)
    if misfit is not None:
        raise ConfigError(f"insert_attention: {block.kind} after {name}: {misfit[0]}: {misfit[1]}")
    return build_attention(block, shape=tuple(output.shape[1:]))


def _attend(host: nn.Module, _: object, output: Tensor) -> Tensor:
    """Applies the host's own block; looking it up at call time keeps copies of a network independent."""
    block = host.get_submodule("attention")
    attended: Tensor = block(output)
    return attended
