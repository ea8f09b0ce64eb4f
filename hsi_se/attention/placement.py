"""Builds attention modules from the config's block settings."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hsi_se.attention import AttentionBlock
from hsi_se.config import model as config
from hsi_se.errors import ConfigError, HsiError


def build_attention(settings: config.Block | None, *, shape: tuple[int, ...]) -> nn.Module:
    """Returns the attention module of a point, or `nn.Identity()` without settings.

    `shape` is that of the point's features without the batch, `(c, d, h, w)` or `(c, h, w)`. The config has
    already checked that the block fits them. ConfigError if a plugin's block fails or does not keep the shape.
    """
    if settings is None:
        return nn.Identity()
    if settings.registry.find_plugin(settings.kind) is not None:
        return PluginBlock(settings, shape=shape)
    block = _build(settings, shape=shape)
    if isinstance(settings, config.Starting) and settings.start == "identity":
        block.strength = nn.Parameter(torch.zeros(1))
    return block


def _build(settings: config.Block, *, shape: tuple[int, ...]) -> nn.Module:
    is_by_band = isinstance(settings, config.ChannelGateBlock) and settings.axis == "band"
    given = {"shape": shape, "channels": shape[1 if is_by_band else 0], "is_3d": len(shape) == 4}
    return settings.registry.get(settings.kind).build(settings, **given)  # type: ignore[no-any-return]


class PluginBlock(AttentionBlock):
    """A block of a plugin. Its initial weights are its own, seeded, whatever the rest of the network."""

    def __init__(self, settings: config.Block, *, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.settings, self.shape, self.description = settings, shape, f"{settings.kind} {shape[0]}"
        self.draw(seed=0)

    @property
    def why_skipped(self) -> str:
        return f"{self.settings.kind} is of a plugin, whose gates are not known"

    def draw(self, *, seed: int) -> None:
        """Builds the block anew, with weights drawn from `seed`."""
        x = torch.zeros(2, *self.shape, device="cpu")
        make = partial(_build, self.settings, shape=self.shape)
        self.block = try_out(make, x, shape=x.shape, seed=seed, name=f"kind = {self.settings.kind}")

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if x.shape[0] else x  # of no patches, shapes are asked


def try_out(make: Callable[[], object], x: Tensor, *, shape: Sequence[int], seed: int, name: str) -> nn.Module:
    """Returns the module that a plugin makes, with weights drawn from `seed`, in its own modes.

    ConfigError unless it turns `x` into float32 values of a shape, and has a state that can be saved.
    """
    example, wanted = tuple(x.shape), tuple(shape)
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
        torch.manual_seed(seed)
        try:
            module = make()
            if not isinstance(module, nn.Module):
                raise ConfigError(f"{name}: its factory returns a {type(module).__name__}; return a torch.nn.Module")
            modes = {each: each.training for each in module.modules()}
            y = module.eval()(x)
            for each, is_training in modes.items():
                each.training = is_training
            for value in module.state_dict().values():
                value.numpy()
        except HsiError:
            raise
        except Exception as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(f"{name}: fails for an input {example} ({problem}); correct the plugin") from None
    found = tuple(y.shape) if isinstance(y, Tensor) else f"a {type(y).__name__}"
    if found != wanted or y.dtype != x.dtype:
        dtype = f" of {y.dtype}" if found == wanted else ""
        raise ConfigError(f"{name}: returns {found}{dtype} for an input {example}, not {wanted}; correct the plugin")
    return module
