"""Classifiers of patches (n, 1, k, p, p), and the function that builds a network from a config."""

import hashlib
import math
from collections.abc import Callable

import torch
from torch import nn

from hsi_se.config import model as config
from hsi_se.errors import ConfigError
from hsi_se.models.cnn3d import Cnn3d
from hsi_se.models.dbda import Dbda
from hsi_se.models.hybridsn import HybridSN
from hsi_se.models.network import Drawn, Network
from hsi_se.models.residual import Res2Net, SeResNet
from hsi_se.models.s2mamba import S2Mamba
from hsi_se.models.se_inception import SeInception
from hsi_se.models.spectralformer import SpectralFormer
from hsi_se.models.spectrum_first import SpectrumFirst
from hsi_se.models.ssftt import Ssftt
from hsi_se.models.ssrn import Ssrn

# A network is named as its settings are.
_NETWORKS: dict[type[config.Model], Callable[..., Network]] = {
    getattr(config, network.__name__): network
    for network in (
        *(HybridSN, SeResNet, Res2Net, SeInception, Ssrn, Cnn3d, SpectrumFirst),
        *(Ssftt, SpectralFormer, Dbda, S2Mamba),
    )
}


def build_model(
    settings: config.ModelSettings, *, num_bands: int, patch_size: int, num_classes: int, seed: int = 0
) -> Network:
    """Returns the network described by a config's `model` section, in training mode, with weights as in `initialize`.

    It maps patches `(n, 1, k, p, p)`, of k bands after the reduction and odd size p, to logits `(n, C)`. ConfigError if
    the input is too small for the kernels, or the model is not a network.
    """
    if type(settings) not in _NETWORKS:
        problem = "is fitted, not built, and its size depends on the training pixels"
        raise ConfigError(f"model.name = {settings.name}: {problem}; train it, or choose a network")
    settings.check_input(num_bands=num_bands, patch_size=patch_size)
    sizes = {"num_bands": num_bands, "patch_size": patch_size, "num_classes": num_classes}
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights, which are replaced below
        model = _NETWORKS[type(settings)](settings, **sizes)
    initialize(model, seed=seed)
    return model


def initialize(model: nn.Module, *, seed: int) -> None:
    """Initialises every convolution, dense layer and `Drawn` layer, seeded by the layer's name and `seed`.

    A layer's weights therefore do not depend on the rest of the network: variants with the same seed
    but different attention start from the same base weights. Weights follow He's initialisation
    (https://arxiv.org/abs/1502.01852, eq. 10) with a uniform distribution; biases are zero. A `Drawn` layer
    has a distribution of its own.
    """
    for name, module in model.named_modules():
        key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7]
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
        with torch.no_grad():
            if isinstance(module, Drawn):
                module.draw(generator)
            elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
                bound = math.sqrt(6 / module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
