"""The spectral baseline of a split, fitted once for all variants that share it."""

import hashlib
import json
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from hsi_se.ablation.file import Ablation
from hsi_se.ablation.record import AblationFolder
from hsi_se.config.experiment import Config
from hsi_se.errors import RunError
from hsi_se.evaluation.baselines import Candidate, SpectralBaseline, fit_spectral_baseline
from hsi_se.runs.records import Record, RunRecord
from hsi_se.system.files import replacing
from hsi_se.system.session import Session
from hsi_se.workflows.preparation import prepare

_WAIT_S = 0.2  # between two looks at what another process is fitting


class SplitBaselines(Record):
    """The spectral baseline of one split and reduction, as a file of the ablation's folder has it."""

    scene_digest: str
    split_digest: str
    labels: tuple[int, ...]  # predicted at the test pixels
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]

    def restore(self, record: RunRecord) -> SpectralBaseline | None:
        """Returns the baseline for a run; None if its scene or its split is another one."""
        if (record.scene_digest, record.split_digest) != (self.scene_digest, self.split_digest):
            return None
        return SpectralBaseline(np.array(self.labels, dtype=np.int32), self.chosen, self.candidates, self.notes)


def fit_baselines(config: Config, *, session: Session) -> SplitBaselines:
    """Returns the baseline of a config's split, drawn and reduced exactly as in its training."""
    setting = prepare(config, data=session.data, device=torch.device("cpu"))
    machine = fit_spectral_baseline(setting.scene, setting.split, setting.components, config=config)
    return SplitBaselines(
        scene_digest=setting.scene_digest,
        split_digest=setting.split.digest,
        **vars(machine) | {"labels": machine.labels.tolist()},
    )


class BaselineStore:
    """The baselines in the folder of an ablation, for the splits that several of its runs share."""

    def __init__(self, ablation: Ablation, folder: AblationFolder) -> None:
        self._folder = folder
        self._num_runs = Counter(name_baselines(run.config) for run in ablation.parts)

    def is_shared(self, config: Config) -> bool:
        """Whether several runs have the split and the reduction of this one."""
        return self._num_runs[name_baselines(config)] > 1

    def read(self, config: Config) -> SplitBaselines | None:
        """Returns the baselines for a run, or None if there are none yet."""
        try:
            return SplitBaselines.model_validate_json(self._path(config).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write(self, config: Config, baselines: SplitBaselines) -> None:
        with replacing(self._path(config)) as draft:
            draft.write_text(baselines.model_dump_json(), encoding="utf-8")

    def read_or_fit(self, config: Config, *, session: Session) -> SplitBaselines | None:
        """Returns the baselines for a run that shares them; several processes fit them once between them."""
        while self.is_shared(config):
            found = self.read(config)
            if found is not None:
                return found
            with ExitStack() as claim:
                try:
                    claim.enter_context(self._folder.hold_baselines(name_baselines(config)))
                except RunError:  # another process is fitting them
                    time.sleep(_WAIT_S)
                    continue
                if self.read(config) is None:
                    self.write(config, fit_baselines(config, session=session))
        return None

    def _path(self, config: Config) -> Path:
        return self._folder.baselines / f"{name_baselines(config)}.json"


def name_baselines(config: Config) -> str:
    """Returns a name that is the same for all configs with the same baselines."""
    settings = config.model_dump(mode="json", include={"scene", "split", "reduction", "seed"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
