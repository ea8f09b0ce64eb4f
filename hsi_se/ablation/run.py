"""Runs an ablation one run at a time, or on a Dask cluster with the same numbers to the bit.

Every run computes with a fixed number of threads, and a process computes one run at a time. A lock
reserves each run, so that several processes can work in one folder.
"""

import functools
import hashlib
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from hsi_se.ablation.file import Ablation, PlannedRun, repeat_over_seeds
from hsi_se.ablation.record import AblationFolder, AblationPlan, AblationReport, FailedRun
from hsi_se.ablation.summary import is_finished, summarize_ablation
from hsi_se.ablation.tables import write_reports
from hsi_se.config.experiment import Config
from hsi_se.config.model import Network
from hsi_se.config.split import AllSplit
from hsi_se.errors import ConfigError, HsiError, RunError
from hsi_se.evaluation.baselines import Candidate, SpectralBaseline, fit_spectral_baseline
from hsi_se.models.inference import pick_device
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import Explanation, Record, RunRecord
from hsi_se.sampling.splits import make_split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.system.cluster import Call, run_tasks, start_cluster
from hsi_se.system.memory import fixed_threads
from hsi_se.system.processes import is_distributed
from hsi_se.system.session import Session
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.explain import explain
from hsi_se.workflows.preparation import prepare
from hsi_se.workflows.train import RUNS, train_unless_finished

State = Literal["running", "finished", "failed", "elsewhere"]
_WAIT_S = 0.2  # between two looks at what another process is at
ONE_AT_A_TIME = threading.Lock()  # a worker may have more threads, and torch's generator is the process's


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


def fit_baselines(config: Config, *, session: Session, threads: int) -> SplitBaselines:
    """Returns the baseline of a config's split, drawn and reduced exactly as in its training."""
    with ONE_AT_A_TIME, fixed_threads(threads):
        setting = prepare(config, data=session.data, device=torch.device("cpu"))
        machine = fit_spectral_baseline(setting.scene, setting.split, setting.components, config=config)
    return SplitBaselines(
        scene_digest=setting.scene_digest,
        split_digest=setting.split.digest,
        **vars(machine) | {"labels": machine.labels.tolist()},
    )


class Watcher(Protocol):
    """Receives the progress of each run."""

    def note(self, text: str) -> None:
        """Receives one sentence for the user."""

    def change(self, run: PlannedRun, state: State, *, accuracy: float | None = None) -> None:
        """Receives the new state of a run; `accuracy` is the OA of one that has finished."""


@dataclass(frozen=True, eq=False)
class Job:
    """What all runs of an ablation share; the folder has the baselines of the splits that several of them share."""

    ablation: Ablation
    folder: AblationFolder
    session: Session  # can be sent to workers
    watcher: Watcher
    failed: list[FailedRun] = field(default_factory=list)

    @functools.cached_property
    def _num_runs(self) -> Counter[Path]:
        return Counter(self.path_of(run.config) for run in self.ablation.parts)

    def path_of(self, config: Config) -> Path:
        """Returns a file that is the same for all configs with the same baselines."""
        settings = config.model_dump(mode="json", include={"scene", "split", "reduction", "seed"})
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return self.folder.baselines / f"{digest[:16]}.json"

    def is_missing(self, config: Config) -> bool:
        """Whether several runs have the split and the reduction of this one, and there are no baselines yet."""
        return self._num_runs[self.path_of(config)] > 1 and self.read_baselines(config) is None

    def read_baselines(self, config: Config) -> SplitBaselines | None:
        """Returns the baselines for a run, or None if there are none."""
        try:
            return SplitBaselines.model_validate_json(self.path_of(config).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def read_or_fit_baselines(self, config: Config) -> SplitBaselines | None:
        """Returns the baselines for a run that shares them; several processes fit them once between them."""
        path = self.path_of(config)
        while self.is_missing(config):
            with ExitStack() as claim:
                try:
                    claim.enter_context(self.folder.hold(path, "at these baselines"))
                except RunError:  # another process is fitting them
                    time.sleep(_WAIT_S)
                    continue
                if self.is_missing(config):
                    found = fit_baselines(config, session=self.session, threads=self.ablation.threads)
                    self.folder.write(path, found)
        return self.read_baselines(config)


def run_ablation(
    ablation: Ablation,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    watcher: Watcher,
    session: Session = Session(),
) -> tuple[AblationFolder, AblationReport]:
    """Trains and evaluates the runs of an ablation that are not finished; returns its folder and report.

    The folder `out` is by default `runs/ablation-NAME-DIGEST` or `runs/seeds-NAME-DIGEST`, the same at every start. The
    cluster is as for `start_cluster`; its workers read the scene's files, and receive the session's observer.
    HsiError for a mistake that concerns every run, or a folder with other contents. A run that fails is listed in the
    report instead.
    """
    if is_distributed():
        raise ConfigError("torchrun: runs one training in several processes; start series of runs without it")
    folder = find_folder(ablation, out)
    data = str(Path(session.data).resolve()) if isinstance(session.data, str | Path) else session.data
    job = Job(ablation, folder, Session(data, session.device, session.observer), watcher)
    with start_cluster(workers, scheduler) as client:
        num_cores = os.cpu_count() or 1
        if workers is not None and workers * ablation.threads > num_cores:
            watcher.note(
                f"{workers} workers with threads: {ablation.threads} on {num_cores} cores: the runs compete "
                "for cores, so their timings are not comparable"
            )
        if scheduler is None:
            pick_device(session.device)
            check_scenes(ablation, session.data)
        folder.claim(AblationPlan(name=ablation.name, digest=ablation.digest))
        check_runs(ablation, folder)
        todo = [run for run in ablation.parts if not _note_finished(run, job)]
        try:
            if client is None:
                _work_here(todo, job)
            elif todo:
                _work_on_cluster(todo, job, client)
        finally:
            report = summarize_ablation(ablation, folder, failed=job.failed)
            write_reports(report, folder)
    return folder, report


def find_folder(ablation: Ablation, out: str | Path | None) -> AblationFolder:
    """Returns the folder to work in: the same at every start, so that an ablation is resumed."""
    kind = "ablation" if not ablation.is_of_seeds else "folds" if ablation.has_folds else "seeds"
    return AblationFolder(out or RUNS / f"{kind}-{ablation.name}-{ablation.digest[:8]}")


def check_scenes(ablation: Ablation, data: str | Path | None) -> None:
    """Checks, before any run, that the labels of every scene can be read and split, into every fold of every draw."""
    for scene in ablation.scenes:
        runs = [run for run in ablation.runs if run.scene == scene and run.variant == ablation.runs[0].variant]
        truth = load_ground_truth(runs[0].config.scene, data)
        if isinstance(runs[0].config.split, AllSplit):
            raise ConfigError("split.kind = all: leaves no test pixels to compare runs on; write kind: folds")
        for part in [part for run in runs for part in run.parts] if ablation.has_folds else runs[:1]:
            make_split(truth, part.config.split, seed=part.seed, data=data)


def check_runs(ablation: Ablation, folder: AblationFolder) -> None:
    """Checks that runs which exist already have the settings of this ablation."""
    for planned in dict.fromkeys((*ablation.runs, *ablation.parts)):
        run = folder.find(planned)
        if run.record.is_file() and run.read_record().config_digest != planned.config.digest:
            which = "the config" if ablation.is_of_seeds else f"variants.{planned.variant}"
            remedy = "" if ablation.is_of_seeds else "give the variant another name, or "
            raise RunError(
                f"{run}: contains a run with other settings than {which} has now; {remedy}choose another "
                "folder with --out DIR"
            )


def _note_finished(run: PlannedRun, job: Job) -> bool:
    if not is_finished(run, job.folder):
        return False
    job.watcher.change(run, "finished", accuracy=job.folder.find(run).read_report().overall_accuracy)
    whole = run.whole
    if whole is not None and all(is_finished(part, job.folder) for part in whole.parts):
        if not is_finished(whole, job.folder):  # should another process pool them too, it writes the same
            assess_run(job.folder.find(whole), session=job.session)
        _note_finished(whole, job)
    return True


@contextmanager
def _noting_the_end(run: PlannedRun, job: Job) -> Iterator[None]:
    """Notes that a run is finished, or has failed, whatever the error, so that the others continue."""
    try:
        yield
    except Exception as error:
        is_users = isinstance(error, HsiError)
        text = " ".join(str(error).split()) if is_users else f"{type(error).__name__}: {error}"
        where = {name: getattr(run, name) for name in ("scene", "variant", "seed", "fold")}
        job.failed.append(FailedRun.model_validate({**where, "error": text, "is_users": is_users}))
        job.watcher.change(run, "failed")
    else:
        _note_finished(run, job)


def explain_ablation(folder: AblationFolder, *, session: Session = Session()) -> dict[str, dict[int, Explanation]]:
    """Returns the explanation of each finished run of a network, by variant and seed; RunError if none is finished."""
    report = folder.read_report()
    found = {}
    for scene in report.scenes:
        for variant in scene.begun:
            name = f"{scene.name}, {variant.name}" if len(report.scenes) > 1 else variant.name
            runs = {run.seed: folder.open_run(run.folder) for run in variant.runs}
            if isinstance(next(iter(runs.values())).read_config().model, Network):
                found[name] = {seed: explain(run, session=session) for seed, run in runs.items()}
            else:
                session.observer.note(f"{name} is not a network and is skipped")
    if not found:
        raise RunError(f"{folder}: no finished run of a network to explain; run `hsi-se ablate` first")
    return found


def report_draws(folder: AblationFolder, draws: Sequence[RunFolder]) -> AblationFolder:
    """Writes the reports over the evaluated draws of one config's folds, and returns their folder."""
    configs = [draw.read_config() for draw in draws]
    ablation = repeat_over_seeds(configs[0], [config.seed for config in configs])
    write_reports(summarize_ablation(ablation, folder), folder)
    return folder


def run_once(
    config: Config, path: Path, *, session: Session, threads: int, baselines: SplitBaselines | None = None
) -> None:
    """Trains and evaluates a config into `path`; a run that has been trained is only evaluated.

    `baselines` spare the run their computation. They are not used if they belong to another split.
    """
    with ONE_AT_A_TIME, fixed_threads(threads):
        _warm_up()
        train_unless_finished(config, path, session=session)
        if not RunFolder(path).is_evaluated:
            known = None if baselines is None else baselines.restore(RunFolder(path).read_record())
            assess_run(path, session=session, machine=known, draw=False)


@functools.cache
def _warm_up() -> None:
    """Takes one training step, since the first one of a process takes seconds that belong to no run."""
    layer = nn.Linear(1, 1)
    torch.autograd.backward(layer(torch.zeros(1, 1)))
    torch.optim.AdamW(layer.parameters(), fused=True).step()


def _work_here(todo: Sequence[PlannedRun], job: Job) -> None:
    with ExitStack() as all_claims:
        for claimed in _claim_each(todo, job, all_claims):
            if claimed is None:
                time.sleep(_WAIT_S)
                continue
            run, claims = claimed
            with claims, _noting_the_end(run, job):
                found, path = job.read_or_fit_baselines(run.config), job.folder.find(run).path
                run_once(run.config, path, session=job.session, threads=job.ablation.threads, baselines=found)


def _claim_each(
    todo: Sequence[PlannedRun], job: Job, all_claims: ExitStack
) -> Iterator[tuple[PlannedRun, ExitStack] | None]:
    """Yields the runs that no other process works on; None while another works on all that are left.

    Runs of other processes come last, in case those do not finish them.
    """
    while todo:
        elsewhere = []
        for run in todo:
            claims = all_claims.enter_context(ExitStack())
            try:
                claims.enter_context(job.folder.hold(job.folder.find(run).path, "at this run"))
            except RunError:
                job.watcher.change(run, "elsewhere")
                elsewhere.append(run)
                continue
            if _note_finished(run, job):
                claims.close()
            else:
                job.watcher.change(run, "running")
                yield run, claims
        todo = elsewhere
        again = time.monotonic() + 1
        while todo and time.monotonic() < again:
            yield None


def _work_on_cluster(todo: Sequence[PlannedRun], job: Job, client: Any) -> None:
    """Fits the baselines that runs share, then works on as many runs at a time as there are workers.

    The folders of the runs come back and are written here.
    """
    missing = {job.path_of(run.config): run.config for run in todo if job.is_missing(run.config)}
    fit = functools.partial(fit_baselines, session=job.session, threads=job.ablation.threads)
    fits = ((path, fit, (config,)) for path, config in missing.items())
    with closing(run_tasks(client, fits, per_slot=1)) as fitted:
        for path, found in fitted:
            if isinstance(found, SplitBaselines):  # where that fails, each run computes its own
                job.folder.write(path, found)

    def call(run: PlannedRun, claims: ExitStack) -> Call[tuple[PlannedRun, ExitStack]]:
        found = job.read_baselines(run.config)
        return (run, claims), run_on_worker, (run.config, job.session, job.ablation.threads, found)

    with ExitStack() as all_claims:
        calls = (claimed and call(*claimed) for claimed in _claim_each(todo, job, all_claims))
        tasks = all_claims.enter_context(closing(run_tasks(client, calls, per_slot=1)))
        for (run, claims), files in tasks:
            with claims, _noting_the_end(run, job):
                if isinstance(files, BaseException):  # the run's own, or Dask's, which has given it up
                    raise files
                job.folder.place(job.folder.find(run), files)


def run_on_worker(
    config: Config, session: Session, threads: int, baselines: SplitBaselines | None = None
) -> dict[str, bytes]:
    """Returns the files of a finished run, by name. Dask removes what a killed worker leaves behind."""
    from distributed import get_worker

    with tempfile.TemporaryDirectory(dir=get_worker().local_directory) as folder:
        path = Path(folder) / "run"
        run_once(config, path, session=session, threads=threads, baselines=baselines)
        return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
