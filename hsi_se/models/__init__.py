"""Classifiers of patches (n, 1, k, p, p), and the function that builds a network from a config."""

import hashlib
import math

import torch
from torch import nn

from hsi_se.attention.placement import PluginBlock
from hsi_se.config import model as config
from hsi_se.config.arguments import show
from hsi_se.errors import ConfigError
from hsi_se.models.network import Drawn, Network


def build_model(settings: config.Model, *, num_bands: int, patch_size: int, num_classes: int, seed: int = 0) -> Network:
    """Returns the network described by a config's `model` section, in training mode, with weights as in `initialize`.

    It maps patches `(n, 1, k, p, p)`, of k bands after the reduction and odd size p, to logits `(n, C)`. ConfigError if
    the input is too small for the kernels, or the model is not a network.
    """
    if not isinstance(settings, config.Model):
        problem = "is not the section `model` of a config"
        raise ConfigError(f"settings = {show(settings)}: {problem}; give hsi_se.load_config(FILE).model")
    entry = settings.registry.get(settings.name)
    if entry.factory is None or not isinstance(settings, config.Network):
        problem = "is fitted, not built, and its size depends on the training pixels"
        raise ConfigError(f"model.name = {settings.name}: {problem}; train it, or choose a network")
    settings.check_input(num_bands=num_bands, patch_size=patch_size)
    sizes = {"num_bands": num_bands, "patch_size": patch_size, "num_classes": num_classes}
    if entry.plugin is not None:
        from hsi_se.models.plugin import PluginNetwork

        network = PluginNetwork(settings, **sizes, seed=seed)
        for point, block in network.list_blocks().items():
            initialize(block, seed=seed, prefix=f"attention.{point}.")
        return network
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights, which are replaced below
        model: Network = entry.build(settings, **sizes)
    initialize(model, seed=seed)
    return model


def initialize(model: nn.Module, *, seed: int, prefix: str = "") -> None:
    """Initialises every convolution, dense layer and `Drawn` layer, seeded by the layer's name and `seed`.

    A layer's weights therefore do not depend on the rest of the network: variants with the same seed
    but different attention start from the same base weights. Weights follow He's initialisation
    (https://arxiv.org/abs/1502.01852, eq. 10) with a uniform distribution; biases are zero. A `Drawn` layer
    has a distribution of its own, as has a plugin's block. `prefix` comes before the names of layers.
    """
    plugins: tuple[str, ...] = ()
    for name, module in [*model.named_modules()]:
        key = int.from_bytes(hashlib.sha256(f"{seed}/{prefix}{name}".encode()).digest()[:7], "little")
        generator = torch.Generator().manual_seed(key)
        with torch.no_grad():
            if isinstance(module, PluginBlock):
                module.draw(seed=key)
                plugins += (f"{name}.block".lstrip("."),)
            elif isinstance(module, Drawn):
                module.draw(generator)
            elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and not name.startswith(plugins):
                bound = math.sqrt(6 / module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
