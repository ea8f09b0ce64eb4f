"""Measures how much a random split flatters a network: the same config on a random split and on spatial folds."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hsi_se.config.experiment import Config
from hsi_se.config.split import BLOCK_SIZE, BlocksSplit, FieldsSplit, FoldsSplit, PerClass, RandomSplit
from hsi_se.errors import ConfigError
from hsi_se.evaluation.assessment import Assessment
from hsi_se.sampling.splits import make_split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.system.processes import is_distributed
from hsi_se.system.session import Session
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.train import RUNS, train_folds, train_unless_finished


@dataclass(frozen=True, eq=False)
class Gap:
    """The same network on a random split and on folds, with equal numbers of training pixels per class on average."""

    random: Assessment
    folds: Assessment  # of all folds together
    folder: Path  # contains the runs

    @property
    def optimism(self) -> float:
        """OA on the random split minus OA on the folds, as a fraction."""
        return self.random.evaluation.overall_accuracy - self.folds.evaluation.overall_accuracy


def measure_gap(config: Config, *, out: str | Path | None = None, session: Session = Session()) -> Gap:
    """Trains and evaluates a config on spatial folds and on a random split, and returns both; errors as of `train`.

    A config whose split is `folds` keeps it. Otherwise there are five folds, by fields if the config's split is, or
    else by blocks, whose size is that of a blocks split. The random split then draws as many training pixels of each
    class as the folds contain on average, rounded.
    """
    if is_distributed():
        raise ConfigError("gap: torchrun runs one training in several processes; start gap without it")
    base = config.without_calibration()
    on_folds = base.model_copy(update={"split": _to_folds(config)}).with_fold(None)
    truth = load_ground_truth(config.scene, session.data)
    parts, counts = on_folds.list_folds(), Counter[int]()
    for part in parts:
        split = make_split(truth, part.split, seed=config.seed, data=session.data)
        counts.update(truth.labels[tuple(split.training_side.T)].tolist())
    random_split = RandomSplit(
        kind="random",
        train=PerClass(per_class={label: round(count / len(parts)) for label, count in sorted(counts.items())}),
        validation=config.split.validation,
        seed=config.split.seed,
    )
    # The same folder at every start, so that an interrupted measurement is resumed.
    parent = Path(out) if out is not None else RUNS / f"gap-{config.label}"
    train_unless_finished(base.model_copy(update={"split": random_split}), parent / "random", session=session)
    train_folds(on_folds, out=parent / "folds", session=session)
    found = {kind: assess_run(parent / kind, session=session) for kind in ("random", "folds")}
    return Gap(**found, folder=parent)


def _to_folds(config: Config) -> FoldsSplit:
    split = config.split
    if isinstance(split, FoldsSplit):
        return split
    return FoldsSplit(
        kind="folds",
        by="fields" if isinstance(split, FieldsSplit) else "blocks",
        block_size=split.block_size if isinstance(split, BlocksSplit) else BLOCK_SIZE,
        buffer=config.window_size // 2 + 1,
        validation=split.validation,
        seed=split.seed,
    )
