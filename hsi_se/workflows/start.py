"""The run that a training starts from: its reduction, and the weights of its network."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hsi_se.config.experiment import Config
from hsi_se.errors import ConfigError
from hsi_se.models.network import Network
from hsi_se.models.plugin import PluginNetwork
from hsi_se.runs.bundle import ModelBundle
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import flatten
from hsi_se.sampling.splits import Split
from hsi_se.scene.folders import Folders
from hsi_se.scene.scene import Scene
from hsi_se.scene.wavelengths import match_wavelengths


@dataclass(frozen=True, eq=False)
class Start:
    """A finished run, named by `train.start_from`."""

    folder: RunFolder
    bundle: ModelBundle

    @classmethod
    def open(cls, config: Config, folders: Folders) -> "Start | None":
        """Returns the run that a config starts from, None if it starts from random weights.

        ConfigError if there is no finished run, or its network, its patches or its reduction have other settings.
        """
        if config.train.start_from is None:
            return None
        name = f"train.start_from = {config.train.start_from}"
        paths = [start / config.train.start_from for start in folders.starts]
        folder = RunFolder.open(next((path for path in paths if path.is_dir()), paths[0]))
        ours, theirs = (
            flatten(each.model_dump(mode="json", include={"model", "patch", "reduction"}))
            for each in (config, folder.read_config())
        )
        different = [key for key in ours | theirs if ours.get(key) != theirs.get(key) and not key.endswith("dropout")]
        if different:
            values = ", ".join(f"{key} is {ours.get(key)} here and {theirs.get(key)} there" for key in different)
            raise ConfigError(f"{name}: that run has other settings ({values}); write the same ones")
        return cls(folder, folder.read_bundle())

    def check(self, scene: Scene, split: Split, *, digest: str) -> str:
        """Returns a note on what is taken from the run.

        HsiError if its scene has other bands, or it was trained on this scene, of the given digest, and on pixels
        that are tested now.
        """
        facts, record = self.bundle.facts, self.folder.read_record()
        name = f"train.start_from = {self.folder}"
        if (bands := self.bundle.reduction.num_bands) != scene.num_bands:
            problem = f"was trained on {bands} bands, and scene {scene.name} has {scene.num_bands}"
            raise ConfigError(f"{name}: {problem}; use a scene with the same bands, or choose them with drop_bands")
        if facts.wavelengths_nm is not None and scene.wavelengths_nm is not None:
            widths = None if facts.fwhm_nm is None else np.array(facts.fwhm_nm)
            centres, every = np.array(facts.wavelengths_nm), [*range(bands)]
            found = match_wavelengths(centres, scene.wavelengths_nm, widths=widths, name=scene.name, choices=every)
            if found != every:
                raise ConfigError(
                    f"{name}: scene {scene.name} has its bands in another order; bring them into that one"
                )
        if record.scene_digest == digest:
            known = {tuple(pixel) for pixel in self.folder.read_split().training_side.tolist()}
            if seen := sum(tuple(pixel) in known for pixel in split.test.tolist()):
                problem = f"was trained on {seen:,} of the test pixels of this split"
                raise ConfigError(f"{name}: {problem}; use its split and its seed, or start from another scene's run")
        head = "" if self._has_classes_of(scene) else "; its classes are others, so the last layer is new"
        return f"training starts from the weights and the reduction of {self.folder}{head}"

    def _has_classes_of(self, scene: Scene) -> bool:
        return tuple(scene.class_names[label] for label in scene.class_ids.tolist()) == self.bundle.facts.class_names

    def load_into(self, network: Network, scene: Scene) -> None:
        """Gives a network the run's weights, but those of the last layer only if the classes are the same."""
        weights = {name: torch.from_numpy(array) for name, array in self.bundle.weights.items()}
        if not self._has_classes_of(scene):
            if isinstance(network, PluginNetwork):
                problem = "has other classes, and which layer of this network depends on them is not known"
                raise ConfigError(f"train.start_from = {self.folder}: {problem}; start from random weights")
            last = [name for name, layer in network.head.named_modules() if isinstance(layer, nn.Linear)][-1]
            own = network.state_dict()
            weights |= {name: own[name] for name in own if name.startswith(f"head.{last}.")}
        network.load_state_dict(weights)
