"""Searches settings with Optuna inside the training set of a config; its test pixels are used once, at the end.

Every trial trains on parts of the training set and predicts the rest, which relate to each other as the training set
relates to the test set (`sampling.folds`). One trial at a time, the same command gives the same search, however often
it is interrupted.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from hsi_se.ablation.record import AblationFolder, AblationPlan
from hsi_se.ablation.run import ONE_AT_A_TIME
from hsi_se.ablation.study import Range, Study
from hsi_se.config.experiment import Config
from hsi_se.config.yaml_file import dump_config
from hsi_se.errors import ConfigError, DivergedError, SplitError, how_to_install
from hsi_se.models.inference import pick_device
from hsi_se.progress import Silent
from hsi_se.reports.tables import percent
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import Record
from hsi_se.sampling.folds import divide_into_folds
from hsi_se.system.cluster import Call, run_tasks, start_cluster
from hsi_se.system.locks import hold
from hsi_se.system.memory import fixed_threads
from hsi_se.system.processes import is_distributed
from hsi_se.system.session import Session
from hsi_se.workflows.calibration import predict_own_pixels
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.preparation import prepare
from hsi_se.workflows.train import RUNS, train_unless_finished

Outcome = tuple[float, int, str]  # OA of held-out pixels, their number, and what kept the settings from being trained


class Trial(Record):
    """One trial of a search: its settings, and the fraction of held-out training pixels classified correctly."""

    number: int
    settings: dict[str, Any]
    accuracy: float  # 0 if the training diverged, or the settings do not fit together
    num_pixels: int  # held out
    problem: str = ""


class SearchRecord(Record):
    """The trials of a search, the best of them, and the accuracy of its settings on the test pixels."""

    trials: tuple[Trial, ...]
    best: int  # the number of a trial
    run: str  # the folder of the run with the best settings, relative to the search's
    outer_accuracy: float  # OA, of the test pixels
    num_test: int
    notes: tuple[str, ...]

    @property
    def chosen(self) -> Trial:
        return next(trial for trial in self.trials if trial.number == self.best)


class StudyRecord(Record):
    """`study.json`: a search for each test set. With several, the accuracies are those of all their pixels together."""

    name: str
    digest: str
    searches: Annotated[tuple[SearchRecord, ...], Field(min_length=1)]

    @property
    def sentences(self) -> tuple[str, str]:
        """The accuracy of the search, and that of the test."""
        each, of_fold = (" for each fold", " of their fold") if len(self.searches) > 1 else ("", "")
        chosen = [each.chosen for each in self.searches]
        num_pixels = sum(trial.num_pixels for trial in chosen)
        accuracy = sum(trial.accuracy * trial.num_pixels for trial in chosen) / num_pixels
        best = f"the best of {len(self.searches[0].trials)} trials{each} and so optimistic"
        inner = f"{percent(accuracy)} % of {num_pixels:,} held-out training pixels, {best}"
        outer = f"of {self.num_test:,} test pixels, which had no part in the search{of_fold}"
        return f"inner accuracy: {inner}", f"outer accuracy: {percent(self.outer_accuracy)} % {outer}"

    @property
    def num_test(self) -> int:
        return sum(each.num_test for each in self.searches)

    @property
    def outer_accuracy(self) -> float:
        return sum(each.outer_accuracy * each.num_test for each in self.searches) / self.num_test

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for each in self.searches for note in each.notes))


class StudyFolder(AblationFolder):
    """The folder of a study: the search, its outcome, and the run with the best settings."""

    what = "a study"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.journal = self.path / "journal.log"  # Optuna's
        self.best = self.path / "best.yaml"  # of a study with several folds, each has its own
        self.record = self.path / "study.json"

    def of_search(self, number: int, *, count: int) -> "StudyFolder":
        """Returns the folder of one of `count` searches: this one if there is no other."""
        return StudyFolder(self.path / f"fold-{number}") if count > 1 else self


def tune(
    study: Study,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    session: Session = Session(),
) -> tuple[StudyFolder, StudyRecord]:
    """Runs the trials of a study that are missing, trains with the best settings, and evaluates that run once.

    With several folds, each has a search, inside its own training set, and a run with the settings found there: nested
    cross-validation (Varma and Simon 2006, https://doi.org/10.1186/1471-2105-7-91).

    Args:
        study: from `load_study`.
        out: the folder; by default `runs/tune-NAME-DIGEST`, the same at every start.
        workers: number of processes of a Dask cluster on this machine.
        scheduler: address of an existing Dask cluster whose workers can read the scene's files.
        session: the folder of scenes, the device and the observer.

    HsiError if Optuna is missing, the folder is not this study's, or no training pixels can be held out.
    """
    if is_distributed():
        raise ConfigError("torchrun: runs one training in several processes; start a search without it")
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"tune needs optuna; {how_to_install('tune')}")
    folder = StudyFolder(out or RUNS / f"tune-{study.name}-{study.digest[:8]}")
    with start_cluster(workers, scheduler) as client:
        folder.claim(AblationPlan(name=study.name, digest=study.digest))
        with hold(folder.path, "searching"):
            parts = study.folds or (study,)
            places = [folder.of_search(number, count=len(parts)) for number in range(1, 1 + len(parts))]
            found = [_tune_one(part, place, client, session) for part, place in zip(parts, places, strict=True)]
            record = StudyRecord(name=study.name, digest=study.digest, searches=tuple(found))
            folder.write(folder.record, record)
    return folder, record


def _tune_one(study: Study, folder: StudyFolder, client: Any, session: Session) -> SearchRecord:
    folder.claim(AblationPlan(name=study.name, digest=study.digest))
    trials, notes = _search(study, folder, client, session)
    best = max(trials, key=lambda trial: trial.accuracy)  # the first of equals
    config = study.config_of(best.settings).model_copy(update={"name": f"{study.name}-best"})
    folder.write(folder.best, dump_config(config))
    run = RunFolder(folder.path / config.label)
    train_unless_finished(config, run.path, session=session)
    if not run.is_evaluated:
        assess_run(run, session=session)
    report = run.read_report()
    others = {file.parent for file in folder.path.glob(f"{study.name}-best-*/record.json")} - {run.path}
    if others:
        notes += (f"the test pixels were used before, for the best of fewer trials: {min(others).name}",)
    return SearchRecord(
        trials=tuple(trials),
        best=best.number,
        run=run.path.name,
        outer_accuracy=report.overall_accuracy,
        num_test=report.num_test,
        notes=notes,
    )


def _search(study: Study, folder: StudyFolder, client: Any, session: Session) -> tuple[list[Trial], tuple[str, ...]]:
    """Runs the missing trials and returns all of them, in order, and what the user should know about the search."""
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    given, observer, done = study.given, session.observer, (TrialState.COMPLETE,)
    fold = getattr(study.split, "fold", None)
    of_fold = "" if fold is None else f" of fold {fold}"
    space: dict[str, Any] = {}
    for key, choice in given.search.items():
        if isinstance(choice, Range):
            kind = "Int" if all(isinstance(end, int) for end in choice.bounds) else "Float"
            make = getattr(optuna.distributions, f"{kind}Distribution")
            space[key] = make(*choice.bounds, log=choice.log is not None)
        else:
            space[key] = optuna.distributions.CategoricalDistribution([json.dumps(value) for value in choice])
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.journal)))
    search = optuna.create_study(storage=storage, study_name="search", load_if_exists=True, direction="maximize")
    for trial in search.get_trials(states=(TrialState.RUNNING,)):  # left by an earlier start
        search.tell(trial.number, state=TrialState.FAIL)
    finished = [Trial.model_validate(each.user_attrs["trial"]) for each in search.get_trials(states=done)]
    # Says what is wrong with the base before any trial.
    notes = prepare(study.config_of({}), data=session.data, device=pick_device("cpu"), hides_test=True).notes
    observer.start("search", total=given.trials, unit="trials")
    observer.advance(min(len(finished), given.trials))
    data = None if session.data is None else str(Path(session.data).resolve())

    def finish(trial: Any, outcome: Outcome) -> None:
        accuracy, num_pixels, problem = outcome
        values = _read_values(trial)
        found = Trial(number=trial.number, settings=values, accuracy=accuracy, num_pixels=num_pixels, problem=problem)
        trial.set_user_attr("trial", found.model_dump(mode="json"))
        search.tell(trial, accuracy)
        finished.append(found)
        settings = ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
        observer.note(f"trial {trial.number}{of_fold}: {problem or f'OA {percent(accuracy)} %'} ({settings})")
        observer.advance(1)

    def ask() -> Iterator[Call[Any]]:
        for number in range(len(finished), given.trials):
            search.sampler = optuna.samplers.TPESampler(seed=(given.seed + number) % 2**32)
            trial = search.ask(space)
            values = _read_values(trial)
            try:
                config = study.config_of(values)  # here: a worker knows plugins by their configs
            except ConfigError as error:
                finish(trial, (0.0, 0, str(error)))
                continue
            twin = next((each for each in finished if each.settings == values), None)
            if twin is not None:
                finish(trial, (twin.accuracy, twin.num_pixels, twin.problem))
                continue
            yield trial, score, (config, Session(data, session.device), given.threads)

    here = ((trial, function(*arguments)) for trial, function, arguments in ask())
    for trial, outcome in here if client is None else run_tasks(client, ask(), per_slot=1):
        if isinstance(outcome, BaseException):
            raise outcome
        finish(trial, outcome)
    if not any(trial.accuracy for trial in finished):
        raise ConfigError(f"search: no trial could be trained; the last one: {finished[-1].problem}; change the search")
    return sorted(finished, key=lambda trial: trial.number), notes


def _read_values(trial: Any) -> dict[str, Any]:
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in trial.params.items()}


def score(config: Config, session: Session, threads: int) -> Outcome:
    """Returns the outcome of a trial. SplitError if the training pixels lie too close to hold some out."""
    try:
        with ONE_AT_A_TIME, fixed_threads(threads):
            num_right, num_held = _count_right(config, session)
    except DivergedError:
        return 0.0, 0, "training diverged"
    except ConfigError as error:
        return 0.0, 0, str(error)
    return num_right / num_held, num_held, ""


def _count_right(config: Config, session: Session) -> tuple[int, int]:
    setting = prepare(config, data=session.data, device=pick_device(session.device), hides_test=True)
    split, num_right, num_held = setting.split, 0, 0
    folds = divide_into_folds(setting.scene, split, config.split, seed=config.seed)
    if len(folds.parts) < 2:
        problem = "the training pixels lie too close together to hold some of them out for a search"
        raise SplitError(f"split: {problem}; label pixels of every class in more areas, or raise split.train")
    for number, (inside, held) in enumerate(folds.parts):
        fit, val = np.split(inside, [len(split.train)])
        seed = (config.seed + 1 + number) % 2**63
        model = setting.fit_again(
            split.train[fit], val=split.val[val], epochs=config.train.epochs, seed=seed, observer=Silent()
        )
        packed = setting.pack(model, versions={})
        logits = predict_own_pixels(packed, setting, folds.pixels[held], observer=Silent())
        num_right += int(np.count_nonzero(logits.argmax(1) == folds.classes[held]))
        num_held += len(logits)
    return num_right, num_held
