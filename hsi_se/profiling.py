"""`hsi-se train --profile`: the steps of the training that a config describes, timed; nothing is written."""

from pathlib import Path

from hsi_se.config import Config
from hsi_se.config_model import Network as NetworkSettings
from hsi_se.errors import ConfigError
from hsi_se.experiment import pick_device
from hsi_se.models import build_model
from hsi_se.sampling.patches import PatchDataset, pad_cube, to_targets
from hsi_se.sampling.reduction import fit_reduction
from hsi_se.sampling.splits import make_split
from hsi_se.scene.readers import load_scene
from hsi_se.training.profile import StepProfile, profile_steps


def profile_training(config: Config, *, data: str | Path | None = None, device: str = "auto") -> StepProfile:
    """Returns where the time of a training step goes.

    Raises:
        HsiError: a mistake in the config or the scene, or a model that is not trained in steps.
    """
    if not isinstance(config.model, NetworkSettings):
        raise ConfigError(f"model.name = {config.model.name}: is fitted at once; leave --profile out")
    torch_device = pick_device(device)
    scene = load_scene(config.scene, data)
    split = make_split(scene, config.split, seed=config.seed, data=data)
    scene = split.relabel(scene)
    reduction = fit_reduction(scene.cube, config.reduction, train_pixels=split.train, nodata=scene.nodata)
    components = reduction.apply(scene.cube, nodata=scene.nodata)
    padded = pad_cube(components, patch_size=config.patch.size, padding=config.patch.padding)
    targets = to_targets(scene.labels, split.train, scene.class_ids)
    sizes = {"patch_size": config.patch.size, "num_classes": scene.num_classes, "seed": config.seed}
    model = build_model(config.model, num_bands=reduction.num_components, **sizes)
    patches = PatchDataset(
        padded.to(torch_device), split.train, patch_size=config.patch.size, targets=targets
    )
    return profile_steps(model.to(torch_device), train=patches, settings=config.train, seed=config.seed)
