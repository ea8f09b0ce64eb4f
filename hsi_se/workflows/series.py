"""More than one run of one config: over seeds, and on a random beside a disjoint split."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hsi_se.config.experiment import Config
from hsi_se.config.split import BlocksSplit, MasksSplit, PerClass, RandomSplit
from hsi_se.errors import ConfigError, RunError
from hsi_se.evaluation.assessment import Assessment
from hsi_se.report.tables import render_series
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.series import SeriesFolder, SeriesReport, summarize_series
from hsi_se.sampling.splits import count_training_side, make_split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.system.processes import is_distributed
from hsi_se.system.session import Session
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.train import RUNS, resume, train


def train_series(
    config: Config,
    seeds: Sequence[int],
    *,
    out: str | Path | None = None,
    session: Session = Session(),
) -> SeriesFolder:
    """Trains a config once a seed and returns the folder that holds the runs.

    Each seed draws its own split, unless `split.seed` is given. Runs that are there already, finished
    and of the same settings, are kept: a series that was interrupted goes on where it stopped. A seed
    that another process is at is left to it, so that several may share a series.

    Raises:
        HsiError: a mistake in the config or the scene, or the folder holds something else.
    """
    _refuse_torchrun("--seeds")
    folder = SeriesFolder(out if out is not None else _default_folder("seeds", config))
    folder.check_free()
    for place, seed in enumerate(seeds, start=1):
        seeded = config.model_copy(update={"seed": seed})
        with ExitStack() as claims:
            try:
                claims.enter_context(folder.hold_seed(seed))
            except RunError:
                session.observer.note(f"seed {seed} is left to another process, which is at it")
                continue
            session.observer.note(f"seed {seed} ({place} of {len(seeds)})")
            train_unless_finished(seeded, folder.run_of(seed), session=session)
    return folder


def evaluate_series(
    folder: str | Path | SeriesFolder,
    *,
    session: Session = Session(),
) -> SeriesReport:
    """Evaluates every run of a series, writes their reports and the one over all, and returns that."""
    series = SeriesFolder.open(folder)
    for run in series.list_runs():
        session.observer.note(f"{run}")
        assess_run(run, session=session)
    report = summarize_series(series)
    series.write_report(report, text=render_series(report, series))
    return report


@dataclass(frozen=True, eq=False)
class Gap:
    """The same network on a random and on a disjoint split with as many training pixels of each class."""

    random: Assessment
    blocks: Assessment
    folder: Path  # with a run of each

    @property
    def optimism(self) -> float:
        """OA on the random split minus OA on the disjoint one, as a fraction."""
        return self.random.evaluation.overall_accuracy - self.blocks.evaluation.overall_accuracy


def measure_gap(
    config: Config,
    *,
    out: str | Path | None = None,
    session: Session = Session(),
) -> Gap:
    """Trains and evaluates a config on blocks and at random, and returns the two side by side.

    A config whose split is `blocks` keeps it; from any other, the training share is taken. The random
    split then draws as many training pixels of each class as the blocks hold.

    Raises:
        ConfigError: the split has no training share that blocks could take over.
        HsiError: as `train`.
    """
    _refuse_torchrun("gap")
    blocks_config = config.model_copy(update={"split": _to_blocks(config)})
    truth = load_ground_truth(config.scene, session.data)
    split = make_split(truth, blocks_config.split, seed=config.seed, data=session.data)
    random_split = RandomSplit(
        kind="random",
        train=PerClass(per_class=count_training_side(truth, split)),
        validation=config.split.validation,
        seed=config.split.seed,
    )
    parent = Path(out) if out is not None else _default_folder("gap", config)
    found = []
    for kind, variant in (
        ("random", config.model_copy(update={"split": random_split})),
        ("blocks", blocks_config),
    ):
        path = parent / kind
        session.observer.note(f"{kind} split")
        train_unless_finished(variant, path, session=session)
        found.append(assess_run(path, session=session))
    return Gap(found[0], found[1], folder=parent)


def _default_folder(what: str, config: Config) -> Path:
    """The same at every start, on whatever day, so that what was interrupted goes on."""
    return RUNS / f"{what}-{config.name or 'run'}-{config.digest[:8]}"


def _refuse_torchrun(what: str) -> None:
    if is_distributed():
        raise ConfigError(f"{what}: torchrun shares one training; start the runs one by one")


def train_unless_finished(config: Config, path: Path, *, session: Session) -> None:
    """Trains into `path`, or keeps or finishes the run there if it is of the same settings.

    Raises:
        RunError: a run of other settings is there.
    """
    if not path.exists():
        train(config, out=path, session=session)
        return
    folder = RunFolder(path)
    facts = folder.read_progress()[0] if folder.is_unfinished else RunFolder.open(path).read_record()
    if facts.config_digest != config.digest:
        raise RunError(f"{path}: holds a run of other settings; name another folder with --out DIR")
    if folder.is_unfinished:
        session.observer.note(f"{path} goes on")
        resume(path, session=session)
    else:
        session.observer.note(f"{path} is finished")


def _to_blocks(config: Config) -> BlocksSplit:
    split = config.split
    if isinstance(split, BlocksSplit):
        return split
    if isinstance(split, MasksSplit) or not isinstance(split.train, float):
        raise ConfigError(
            f"split.kind = {split.kind!r}: has no share to divide blocks by; write "
            '--set "split={kind: blocks, train: 0.1}"'
        )
    return BlocksSplit(
        kind="blocks",
        train=split.train,
        buffer=config.default_buffer,
        validation=split.validation,
        seed=split.seed,
    )
