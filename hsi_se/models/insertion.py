"""Attention in a network that is not ours: a block after any submodule, found by its name."""

import difflib
from collections.abc import Mapping
from functools import partial
from typing import TypeVar

from torch import Tensor, nn

from hsi_se.attention.placement import build_attention
from hsi_se.config.model import AttentionSettings
from hsi_se.errors import ConfigError
from hsi_se.models.inference import evaluation_mode

Network = TypeVar("Network", bound=nn.Module)


def insert_attention(
    network: Network, blocks: Mapping[str, AttentionSettings], *, example: Tensor
) -> Network:
    """Puts a block after each named submodule of any network, in place, and returns the network.

    The channels are those that a dry run of `example` finds. Every other weight keeps its value and
    its name; a block's parameters are called `NAME.attention.…`, so a checkpoint from before loads
    with `strict=False`. The network can still be deep-copied, pickled and exported.

    Args:
        network: it runs twice, in evaluation mode and without gradients, and is left in its mode.
        blocks: settings by the submodule's dotted name, such as `{"layer3.1.bn2": SqueezeExcite(kind="se")}`.
        example: an input of the network, on its device.

    Raises:
        ConfigError: no submodule has the name, it is not called exactly once, it returns no tensor
            `(n, c, h, w)` or `(n, c, d, h, w)`, or the block does not fit there. Nothing is changed.
    """
    modules = dict(network.named_modules())
    for name in blocks:
        if not name or name not in modules:
            near = difflib.get_close_matches(name, modules, n=3) or [key for key in modules if key][:3]
            raise ConfigError(f"insert_attention: no submodule {name!r}; the nearest are {', '.join(near)}")
        if hasattr(modules[name], "attention"):
            raise ConfigError(
                f"insert_attention: {name} has something called attention already; name another"
            )
    outputs = _record_outputs(network, {name: modules[name] for name in blocks}, example)
    built = {name: _build_after(name, block, outputs[name]) for name, block in blocks.items()}
    for name, module in built.items():
        modules[name].add_module("attention", module.to(example.device).train(modules[name].training))
    for name, outputs_of_block in _record_outputs(network, built, example).items():
        if not outputs_of_block:  # a container that runs its children runs the new one too, at the end
            modules[name].register_forward_hook(_attend)
    return network


def _record_outputs(
    network: nn.Module, modules: Mapping[str, nn.Module], example: Tensor
) -> dict[str, list[object]]:
    """What each module returns, call by call, in one pass of the network."""
    outputs: dict[str, list[object]] = {name: [] for name in modules}

    def record(name: str, _: nn.Module, __: object, output: object) -> None:
        outputs[name].append(output)

    handles = [module.register_forward_hook(partial(record, name)) for name, module in modules.items()]
    try:
        with evaluation_mode(network):
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _build_after(name: str, block: AttentionSettings, outputs: list[object]) -> nn.Module:
    if len(outputs) != 1:
        raise ConfigError(
            f"insert_attention: {name} is called {len(outputs)} times in one pass, and a block needs one "
            "place; name a submodule that is called once"
        )
    output = outputs[0]
    if not isinstance(output, Tensor) or output.ndim not in (4, 5):
        found = (
            f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        )
        raise ConfigError(
            f"insert_attention: {name} returns {found}, no features (n, c, h, w) or "
            "(n, c, d, h, w); name a convolution, a norm or a block of them"
        )
    misfit = block.explain_misfit(is_3d=output.ndim == 5)
    if misfit is not None:
        raise ConfigError(f"insert_attention: {block.kind} after {name}: {misfit[0]}: {misfit[1]}")
    return build_attention(block, shape=tuple(output.shape[1:]))


def _attend(host: nn.Module, _: object, output: Tensor) -> Tensor:
    """A forward hook that finds its block on the module it is called for: copies of a network stay apart."""
    block = host.get_submodule("attention")
    attended: Tensor = block(output)
    return attended
