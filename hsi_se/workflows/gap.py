"""Measures how much a random split flatters a network: the same config on a random and a disjoint split."""

from dataclasses import dataclass
from pathlib import Path

from hsi_se.config.experiment import Config
from hsi_se.config.split import BlocksSplit, MasksSplit, PerClass, RandomSplit
from hsi_se.errors import ConfigError
from hsi_se.evaluation.assessment import Assessment
from hsi_se.sampling.splits import count_training_side, make_split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.system.processes import is_distributed
from hsi_se.system.session import Session
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.train import RUNS, train_unless_finished


@dataclass(frozen=True, eq=False)
class Gap:
    """The same network on a random and a disjoint split with equal numbers of training pixels per class."""

    random: Assessment
    blocks: Assessment
    folder: Path  # contains both runs

    @property
    def optimism(self) -> float:
        """OA on the random split minus OA on the disjoint split, as a fraction."""
        return self.random.evaluation.overall_accuracy - self.blocks.evaluation.overall_accuracy


def measure_gap(config: Config, *, out: str | Path | None = None, session: Session = Session()) -> Gap:
    """Trains and evaluates a config on a blocks split and on a random split, and returns both results.

    A config whose split is `blocks` keeps it; otherwise blocks with the same training share are used. The
    random split then draws as many training pixels of each class as the blocks contain.

    Raises:
        ConfigError: the split has no training share that blocks could use.
        HsiError: as `train`.
    """
    if is_distributed():
        raise ConfigError("gap: torchrun runs one training in several processes; start gap without it")
    base = config.without_calibration()
    blocks_config = base.model_copy(update={"split": _to_blocks(config)})
    truth = load_ground_truth(config.scene, session.data)
    split = make_split(truth, blocks_config.split, seed=config.seed, data=session.data)
    random_split = RandomSplit(
        kind="random",
        train=PerClass(per_class=count_training_side(truth, split)),
        validation=config.split.validation,
        seed=config.split.seed,
    )
    # The same folder at every start, so that an interrupted measurement is resumed.
    parent = Path(out) if out is not None else RUNS / f"gap-{config.name or 'run'}-{config.digest[:8]}"
    variants = {"random": base.model_copy(update={"split": random_split}), "blocks": blocks_config}
    found = {}
    for kind, variant in variants.items():
        session.observer.note(f"{kind} split")
        train_unless_finished(variant, parent / kind, session=session)
        found[kind] = assess_run(parent / kind, session=session)
    return Gap(**found, folder=parent)


def _to_blocks(config: Config) -> BlocksSplit:
    split = config.split
    if isinstance(split, BlocksSplit):
        return split
    if isinstance(split, MasksSplit) or not isinstance(split.train, float):
        raise ConfigError(
            f"split.kind = {split.kind!r}: has no training share that blocks could use; write "
            '--set "split={kind: blocks, train: 0.1}"'
        )
    return BlocksSplit(
        kind="blocks", train=split.train, buffer=config.default_buffer, validation=split.validation, seed=split.seed
    )
