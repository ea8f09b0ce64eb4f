"""Classifiers of patches (n, 1, k, p, p), and the function that builds a network from a config."""

import hashlib
import math
from collections.abc import Callable

import torch
from torch import nn

from hsi_se.config import model as config
from hsi_se.errors import ConfigError
from hsi_se.models.cnn3d import Cnn3d
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.network import Network
from hsi_se.models.res2net import Res2Net
from hsi_se.models.se_inception import SeInception
from hsi_se.models.se_resnet import SeResNet
from hsi_se.models.spectrum_first import SpectrumFirst
from hsi_se.models.ssrn import Ssrn

_NETWORKS: dict[type[config.Model], Callable[..., Network]] = {
    config.HybridSN: HybridSN,
    config.SeResNet: SeResNet,
    config.Res2Net: Res2Net,
    config.SeInception: SeInception,
    config.Ssrn: Ssrn,
    config.Cnn3d: Cnn3d,
    config.SpectrumFirst: SpectrumFirst,
}


def build_model(
    settings: config.ModelSettings, *, num_bands: int, patch_size: int, num_classes: int, seed: int = 0
) -> Network:
    """Returns the network described by a config's `model` section, with seeded weights.

    Args:
        settings: the config's `model` section.
        num_bands: number of components after the reduction, k.
        patch_size: side of a patch in pixels, p, odd.
        num_classes: number of classes, C.
        seed: determines every weight; see `initialize`.

    Returns:
        A plain torch module that maps patches `(n, 1, k, p, p)` to logits `(n, C)`, in training mode.

    Raises:
        ConfigError: the input is too small for the kernels, or the model is not a network.
    """
    if type(settings) not in _NETWORKS:
        raise ConfigError(
            f"model.name = {settings.name}: is fitted, not built, and its size depends on the training "
            "pixels; train it, or choose a network"
        )
    settings.check_input(num_bands=num_bands, patch_size=patch_size)
    make_network = _NETWORKS[type(settings)]
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights, which are replaced below
        model = make_network(settings, num_bands=num_bands, patch_size=patch_size, num_classes=num_classes)
    initialize(model, seed=seed)
    return model


def initialize(model: nn.Module, *, seed: int) -> None:
    """Initialises every convolution and dense layer, seeded by the layer's name and `seed`.

    A layer's weights therefore do not depend on the rest of the network: variants with the same seed
    but different attention start from the same base weights. Weights follow He's initialisation
    (https://arxiv.org/abs/1502.01852, eq. 10) with a uniform distribution; biases are zero.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7]
            generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
            bound = math.sqrt(6 / module.weight[0].numel())
            with torch.no_grad():
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
