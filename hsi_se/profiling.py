"""`hsi-se train --profile`: the steps of the training that a config describes, timed; nothing is written."""

from pathlib import Path

from hsi_se.bundled import pick_device
from hsi_se.config import Config
from hsi_se.config_model import Network as NetworkSettings
from hsi_se.errors import ConfigError
from hsi_se.experiment import prepare
from hsi_se.training.profile import StepProfile, profile_steps


def profile_training(config: Config, *, data: str | Path | None = None, device: str = "auto") -> StepProfile:
    """Returns where the time of a training step goes.

    Raises:
        HsiError: a mistake in the config or the scene, or a model that is not trained in steps.
    """
    if not isinstance(config.model, NetworkSettings):
        raise ConfigError(f"model.name = {config.model.name}: is fitted at once; leave --profile out")
    if config.train.compile:
        raise ConfigError(
            "train.compile = true: a compiled step has no stages to time; add --set train.compile=false"
        )
    given = prepare(config, data=data, device=pick_device(device))
    assert given.network is not None
    train = given.make_patches(given.split.train)
    return profile_steps(given.network, train=train, settings=config.train, seed=config.seed)
