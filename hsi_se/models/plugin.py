"""A network that a plugin registers, with attention after those of its submodules that are its points."""

from functools import partial

import torch
from torch import Tensor, nn

from hsi_se.attention import AttentionBlock
from hsi_se.attention.placement import try_out
from hsi_se.config import model as config
from hsi_se.errors import ConfigError
from hsi_se.models.insertion import insert_attention
from hsi_se.models.network import Network


class PluginNetwork(Network):
    """A network of a plugin as one stage, `network`. It is trained and mapped patch by patch.

    Its initial weights are its own, seeded. Blocks at its points do not change them.

    Shape: `(n, 1, k, p, p)` to `(n, C)`. ConfigError if it does not return logits, or lacks one of its points.
    """

    def __init__(
        self, settings: config.Network, *, num_bands: int, patch_size: int, num_classes: int, seed: int
    ) -> None:
        nn.Module.__init__(self)
        self.num_bands, self.patch_size, self.shapes = num_bands, patch_size, {"network": (num_classes,)}
        entry, name = settings.registry.get(settings.name), f"model.name = {settings.name}"
        self.is_2d = entry.input == "2d"
        sizes = {"num_bands": num_bands, "patch_size": patch_size, "num_classes": num_classes}
        patches = torch.zeros(2, 1, num_bands, patch_size, patch_size, device="cpu")
        make = partial(entry.build, settings, **sizes)
        example = patches[:, 0] if self.is_2d else patches
        network = try_out(make, example, shape=(2, num_classes), seed=seed, name=name)
        modules = dict(network.named_modules())
        if lost := [each for each in entry.points.values() if each not in modules]:
            raise ConfigError(f"{name}: has no submodule {lost[0]!r}, which is one of its points; correct the plugin")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ConfigError(f"{name}: has no parameters to train; correct the plugin")
        self.stages, self.attention = nn.ModuleDict({"network": network}), nn.ModuleDict({"network": nn.Identity()})
        self.head = nn.Sequential()
        self.hosts = {point: f"stages.network.{entry.points[point]}" for point in settings.attention}
        blocks = {self.hosts[point]: block for point, block in settings.attention.items()}
        try:
            insert_attention(self, blocks, example=patches)
        except ConfigError as error:
            problem = str(error).removeprefix("insert_attention: ").replace("stages.network.", "")
            raise ConfigError(f"model.attention: {problem}") from None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.stages["network"](x[:, 0] if self.is_2d else x)
        return logits

    def list_blocks(self) -> dict[str, AttentionBlock]:
        return {point: self.get_submodule(f"{host}.attention") for point, host in self.hosts.items()}  # type: ignore
