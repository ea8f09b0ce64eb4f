"""Many runs of an ablation: here one after another, or on a Dask cluster, with the same numbers to the bit.

A run computes with a fixed number of threads, and one process computes one run at a time. Each is
claimed by a lock, so that several processes may work in one folder.
"""

import functools
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from hsi_se.ablation.figures import save_figures
from hsi_se.ablation.file import Ablation, PlannedRun
from hsi_se.ablation.page import write_ablation_page
from hsi_se.ablation.record import AblationFolder, AblationPlan, AblationReport, FailedRun
from hsi_se.ablation.summary import is_finished, summarize_ablation
from hsi_se.ablation.tables import render_csv, render_latex, render_markdown
from hsi_se.config.experiment import Config
from hsi_se.errors import HsiError, RunError
from hsi_se.models.device import pick_device
from hsi_se.runs.folder import RunFolder
from hsi_se.sampling.splits import make_split
from hsi_se.scene.loading import load_ground_truth
from hsi_se.system.cluster import Call, run_tasks, start_cluster
from hsi_se.system.memory import fixed_threads
from hsi_se.system.session import Session
from hsi_se.workflows.evaluate import assess_run
from hsi_se.workflows.series import train_unless_finished
from hsi_se.workflows.train import RUNS

State = Literal["running", "finished", "failed", "elsewhere"]
_ONE_AT_A_TIME = threading.Lock()  # a worker may have more threads, and torch's generator is the process's


class Watcher(Protocol):
    """Is told what becomes of each run."""

    def note(self, text: str) -> None:
        """Something the user should know, in one sentence."""

    def change(self, run: PlannedRun, state: State, *, accuracy: float | None = None) -> None:
        """A run is at work, has finished with an OA, has failed, or is claimed by another process."""


@dataclass(frozen=True, eq=False)
class Job:
    """What every run of an ablation is done with."""

    folder: AblationFolder
    session: Session  # without an observer, so that it can be sent to workers
    threads: int


def run_ablation(
    ablation: Ablation,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    watcher: Watcher,
    session: Session = Session(),
) -> tuple[AblationFolder, AblationReport]:
    """Trains and evaluates whatever of an ablation is not finished, and returns its folder and its report.

    Args:
        ablation: from `load_ablation`.
        out: the folder; by default `runs/ablation-NAME-DIGEST`, the same at every start.
        session: the folder of scenes and the device; progress goes to the watcher.
        workers: processes of a Dask cluster on this machine.
        scheduler: the address of an existing Dask cluster, whose workers see the scene's files.
        watcher: told of progress.

    Raises:
        HsiError: a mistake that concerns every run, or a folder of something else. What fails in one run
            is in the report.
    """
    folder = find_folder(ablation, out)
    data = None if session.data is None else str(Path(session.data).resolve())
    job = Job(folder, Session(data, session.device), ablation.threads)
    num_cores = os.cpu_count() or 1
    if workers is not None and workers * ablation.threads > num_cores:
        watcher.note(
            f"{workers} workers of threads: {ablation.threads} on {num_cores} cores: times measured in their "
            "runs are those of processes in each other's way"
        )
    with start_cluster(workers, scheduler) as client:
        if scheduler is None:
            pick_device(session.device)
            check_scenes(ablation, session.data)
        folder.claim(AblationPlan(name=ablation.name, digest=ablation.digest))
        check_runs(ablation, folder)
        todo = [run for run in ablation.runs if not _note_finished(run, folder, watcher)]
        failed: list[FailedRun] = []
        try:
            if client is None:
                _work_here(todo, job, failed, watcher)
            elif todo:
                _work_on_cluster(todo, job, client, failed, watcher)
        finally:
            report = summarize_ablation(ablation, folder, failed=failed)
            write_answer(report, folder)
    return folder, report


def write_answer(report: AblationReport, folder: AblationFolder) -> None:
    """Writes the report, its tables, figures and page, as far as there is something in them."""
    folder.write_report(
        report,
        [
            (folder.report_text, render_markdown(report, folder)),
            (folder.table, render_csv(report)),
            (folder.latex, render_latex(report)),
        ],
    )
    save_figures(report, folder)
    write_ablation_page(folder)


def find_folder(ablation: Ablation, out: str | Path | None) -> AblationFolder:
    return AblationFolder(out or RUNS / f"ablation-{ablation.name}-{ablation.digest[:8]}")


def check_scenes(ablation: Ablation, data: str | Path | None) -> None:
    """Proves, before any run, that every scene's labels are there and can be divided."""
    for run in {run.scene: run for run in reversed(ablation.runs)}.values():
        make_split(load_ground_truth(run.config.scene, data), run.config.split, seed=run.seed, data=data)


def check_runs(ablation: Ablation, folder: AblationFolder) -> None:
    """Proves that the runs that are there already are of these settings."""
    for planned in ablation.runs:
        run = folder.run_of(planned.variant, planned.seed, scene=planned.scene)
        if run.record.is_file() and run.read_record().config_digest != planned.config.digest:
            raise RunError(
                f"{run}: holds a run of other settings than variants.{planned.variant} has now; give the "
                "variant another name, or name another folder with --out DIR"
            )


def _note_finished(run: PlannedRun, folder: AblationFolder, watcher: Watcher) -> bool:
    if not is_finished(run, folder):
        return False
    report = folder.run_of(run.variant, run.seed, scene=run.scene).read_report()
    watcher.change(run, "finished", accuracy=report["overall_accuracy"])
    return True


def _note_failed(run: PlannedRun, error: BaseException, failed: list[FailedRun], watcher: Watcher) -> None:
    is_users = isinstance(error, HsiError)
    text = " ".join(str(error).split()) if is_users else f"{type(error).__name__}: {error}"
    failed.append(
        FailedRun(scene=run.scene, variant=run.variant, seed=run.seed, error=text, is_users=is_users)
    )
    watcher.change(run, "failed")


# ------------------------------------------------------------------------------------- one run


def run_once(config: Config, path: Path, *, session: Session, threads: int) -> None:
    """Trains and evaluates a config into `path`; a run that is trained already is only evaluated."""
    with _ONE_AT_A_TIME, fixed_threads(threads):
        _warm_up()
        train_unless_finished(config, path, session=session)
        if not RunFolder(path).is_evaluated:
            assess_run(path, session=session)


@functools.cache
def _warm_up() -> None:
    """One step of anything, since the first of a process takes seconds that are no run's."""
    layer = nn.Linear(1, 1)
    torch.autograd.backward(layer(torch.zeros(1, 1)))
    torch.optim.AdamW(layer.parameters(), fused=True).step()


def _work_here(todo: Sequence[PlannedRun], job: Job, failed: list[FailedRun], watcher: Watcher) -> None:
    """One after another; what another process is at comes last, in case that process does not finish it."""
    while todo:
        elsewhere = []
        for run in todo:
            with ExitStack() as claims:
                if not _claim(run, job, claims, watcher):
                    elsewhere.append(run)
                elif not _note_finished(run, job.folder, watcher):
                    watcher.change(run, "running")
                    path = job.folder.run_of(run.variant, run.seed, scene=run.scene).path
                    try:
                        run_once(run.config, path, session=job.session, threads=job.threads)
                    except Exception as error:  # whatever it is, the other runs go on
                        _note_failed(run, error, failed, watcher)
                    else:
                        _note_finished(run, job.folder, watcher)
        if len(elsewhere) == len(todo):
            time.sleep(1)
        todo = elsewhere


def _claim(run: PlannedRun, job: Job, claims: ExitStack, watcher: Watcher) -> bool:
    try:
        claims.enter_context(job.folder.hold_run(job.folder.run_of(run.variant, run.seed, scene=run.scene)))
    except RunError:
        watcher.change(run, "elsewhere")
        return False
    return True


def _work_on_cluster(
    todo: Sequence[PlannedRun], job: Job, client: Any, failed: list[FailedRun], watcher: Watcher
) -> None:
    """Works on as many runs at a time as there are workers; their folders come back and are written here."""
    with ExitStack() as all_claims:
        calls = _claim_each(todo, job, all_claims, watcher)
        tasks = all_claims.enter_context(closing(run_tasks(client, calls, per_slot=1)))
        for (run, claims), files in tasks:
            with claims:
                _collect(files, run, job, failed, watcher)


def _claim_each(
    todo: Sequence[PlannedRun], job: Job, all_claims: ExitStack, watcher: Watcher
) -> Iterator[Call[tuple[PlannedRun, ExitStack]] | None]:
    """Yields the runs that no other process works on; None while another works on all that are left."""
    while todo:
        elsewhere = []
        for run in todo:
            claims = all_claims.enter_context(ExitStack())
            if not _claim(run, job, claims, watcher):
                elsewhere.append(run)
            elif _note_finished(run, job.folder, watcher):
                claims.close()
            else:
                watcher.change(run, "running")
                yield (run, claims), run_on_worker, (run.config, job.session, job.threads)
        todo = elsewhere
        again = time.monotonic() + 1
        while todo and time.monotonic() < again:
            yield None


def _collect(
    files: dict[str, bytes] | BaseException,
    run: PlannedRun,
    job: Job,
    failed: list[FailedRun],
    watcher: Watcher,
) -> None:
    try:
        if isinstance(files, BaseException):  # the run's own, or Dask's, which has given it up
            raise files
        job.folder.place(job.folder.run_of(run.variant, run.seed, scene=run.scene), files)
    except Exception as error:
        _note_failed(run, error, failed, watcher)
    else:
        _note_finished(run, job.folder, watcher)


def run_on_worker(config: Config, session: Session, threads: int) -> dict[str, bytes]:
    """Returns the files of a finished run, by name. What a killed worker leaves, Dask sweeps up."""
    from distributed import get_worker

    with tempfile.TemporaryDirectory(dir=get_worker().local_directory) as folder:
        path = Path(folder) / "run"
        run_once(config, path, session=session, threads=threads)
        return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
