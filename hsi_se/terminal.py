"""What a command shows: a progress bar while it works, or plain lines off a terminal; tables at the end.

Progress goes to standard error, so that standard output holds results alone.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hsi_se.evaluation.assessment import Assessment
from hsi_se.evaluation.audit import SplitAudit
from hsi_se.launcher import is_first
from hsi_se.report.tables import (
    clock,
    describe_leakage,
    describe_summary,
    kappa_text,
    list_accuracy_rows,
    list_class_rows,
    list_series_rows,
    percent,
)
from hsi_se.series_record import SeriesReport
from hsi_se.training.history import EpochRecord, Observer, Silent

if TYPE_CHECKING:
    from hsi_se.cross_scene import CrossScene
    from hsi_se.models.cost import BlockCost
    from hsi_se.preview import NetworkDescription
    from hsi_se.series import Gap
    from hsi_se.training.profile import StepProfile

_LINE_EVERY_S = 10.0


@contextmanager
def show_progress() -> Iterator[Observer]:
    """Yields an observer that shows what it is told until the block ends."""
    if not is_first():  # of several processes, one speaks
        yield Silent()
        return
    console = Console(stderr=True, markup=False, emoji=False)
    if not console.is_terminal:
        yield PlainLines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left  {task.fields[state]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield ProgressBar(progress)


class ProgressBar:
    """One bar a task, with its rate and the last epoch's loss and validation accuracy."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._unit = ""
        self._task = progress.add_task("", total=None, visible=False, rate="", state="")

    def start(self, task: str, *, total: int, unit: str) -> None:
        self._unit = unit
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(task, total=total, rate="", state="")

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)
        speed = self._progress.tasks[-1].speed
        if speed is not None:
            self._progress.update(self._task, rate=f"{speed:,.0f} {self._unit}/s")

    def epoch(self, record: EpochRecord) -> None:
        self._progress.update(self._task, state=_describe(record))

    def note(self, text: str) -> None:
        self._progress.console.print(f"note: {text}", highlight=False, markup=False)


class PlainLines:
    """One line an epoch, and one every ten seconds of other work."""

    def __init__(self) -> None:
        self._task, self._unit, self._total, self._done = "", "", 0, 0
        self._start = self._last = 0.0

    def start(self, task: str, *, total: int, unit: str) -> None:
        self._task, self._unit, self._total, self._done = task, unit, total, 0
        self._start = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._last >= _LINE_EVERY_S:
            self._print("")

    def epoch(self, record: EpochRecord) -> None:
        self._print(_describe(record))

    def note(self, text: str) -> None:
        print(f"note: {text}", file=sys.stderr, flush=True)

    def _print(self, state: str) -> None:
        self._last = time.monotonic()
        rate = self._done / max(self._last - self._start, 1e-9)
        left = clock((self._total - self._done) / max(rate, 1e-9))
        print(
            f"{self._task}  {100 * self._done / self._total:3.0f} %  {rate:,.0f} {self._unit}/s  "
            f"{left} left  {state}".rstrip(),
            file=sys.stderr,
            flush=True,
        )


def _describe(record: EpochRecord) -> str:
    text = f"epoch {record.epoch}  loss {record.loss:.3f}"
    if record.validation_accuracy is not None:
        text += f"  validation OA {100 * record.validation_accuracy:.1f} %"
    return text


# ------------------------------------------------------------------------------------- results


def make_console(*, width: int = 110) -> Console:
    """As wide as the terminal; off one, as wide as the tables need. Names are no markup: [x] and :x: stay."""
    return Console(width=None if sys.stdout.isatty() else width, markup=False, emoji=False)


def print_assessment(assessment: Assessment) -> None:
    evaluation, floor = assessment.evaluation, assessment.audit.location_floor
    table = Table(title=f"{evaluation.num_test:,} test pixels", title_justify="left")
    table.add_column("label", justify="right")
    table.add_column("class", overflow="fold")
    for heading in ("support", "producer's %", "user's %", "F1 %", "floor's producer's %"):
        table.add_column(heading, justify="right")
    for row, of_floor in zip(list_class_rows(evaluation), floor.producers_accuracy, strict=True):
        accuracies = (percent(value) for value in (row.producers, row.users, row.f1, of_floor))
        table.add_row(str(row.label), row.name, str(row.support), *accuracies)
    console = make_console()
    console.print(table)
    for method in list_accuracy_rows(assessment):
        numbers = method.evaluation
        print(
            f"{method.name + ':':<18} OA {percent(numbers.overall_accuracy):>6} %   "
            f"AA {percent(numbers.average_accuracy):>6} %   κ {kappa_text(numbers.kappa)}"
        )
    print(describe_leakage(assessment.audit.leakage))
    print(assessment.about_certainty)
    print(assessment.verdict)


def print_cross_scene(found: "CrossScene") -> None:
    evaluation = found.evaluation
    title = f"cross-scene: trained on {found.trained_on}, {evaluation.num_test:,} pixels of {found.scene}"
    table = Table(title=title, title_justify="left")
    table.add_column("label", justify="right")
    table.add_column("class", overflow="fold")
    for heading in ("support", "producer's %", "user's %", "F1 %"):
        table.add_column(heading, justify="right")
    for row in list_class_rows(evaluation):
        accuracies = (percent(value) for value in (row.producers, row.users, row.f1))
        table.add_row(str(row.label), row.name, str(row.support), *accuracies)
    make_console().print(table)
    for note in found.notes:
        print(f"note: {note}")
    print(
        f"cross-scene:  OA {percent(evaluation.overall_accuracy)} %   "
        f"AA {percent(evaluation.average_accuracy)} %   κ {kappa_text(evaluation.kappa)}"
    )
    print(
        "No split is involved: every labelled pixel counts. Where the two scenes share ground, pixels that "
        "trained the network are among them."
    )


def print_audit(audit: SplitAudit) -> None:
    table = Table(title=f"split {audit.split.digest[:8]}", title_justify="left", show_footer=True)
    totals = [f"{total:,}" for total in audit.counts.sum(axis=0)]
    table.add_column("label", justify="right")
    table.add_column("class", "all", overflow="fold")
    for heading, total in zip(("training", "validation", "test", "buffer"), totals, strict=True):
        table.add_column(heading, total, justify="right")
    for label, name, counts in zip(audit.class_ids, audit.class_names, audit.counts, strict=True):
        table.add_row(str(label), name, *(str(count) for count in counts))
    make_console().print(table)
    for note in audit.split.notes:
        print(f"note: {note}")
    print(describe_leakage(audit.leakage))
    floor = audit.location_floor
    print(
        f"location floor: OA {percent(floor.overall_accuracy)} %   AA {percent(floor.average_accuracy)} %   "
        f"κ {kappa_text(floor.kappa)}"
    )


def print_series(report: SeriesReport) -> None:
    title = (
        f"{report.name} on {report.scene}, n = {len(report.seeds)} seeds, mean ± sample std [95 % interval]"
    )
    classes = Table(title=title, title_justify="left")
    classes.add_column("label", justify="right")
    classes.add_column("class", overflow="fold")
    classes.add_column("producer's %", justify="right")
    for label, name, summary in report.per_class:
        classes.add_row(str(label), name, describe_summary(summary))
    table = Table()
    for heading in ("", "OA %", "AA %", "κ × 100"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in list_series_rows(report):
        table.add_row(*row)
    console = make_console()
    console.print(classes)
    console.print(table)
    leaking = report.summaries["leakage.test_patches_with_train_pixels"].mean
    print(f"{percent(leaking)} % of the test patches hold pixels of the training side. {report.about_splits}")


def print_gap(found: "Gap") -> None:
    table = Table(title="the same network, as many training pixels of each class", title_justify="left")
    for heading in ("", "random OA %", "blocks OA %", "random AA %", "blocks AA %"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row, other in zip(list_accuracy_rows(found.random), list_accuracy_rows(found.blocks), strict=True):
        pair = (row.evaluation, other.evaluation)
        table.add_row(
            row.name,
            *(percent(evaluation.overall_accuracy) for evaluation in pair),
            *(percent(evaluation.average_accuracy) for evaluation in pair),
        )
    sides = (found.random.audit, found.blocks.audit)
    leaking = [percent(audit.leakage.test_patches_with_train_pixels) for audit in sides]
    table.add_row("test patches that leak", *leaking, "", "")
    table.add_row("training pixels", *(f"{len(audit.split.train):,}" for audit in sides), "", "")
    table.add_row("test pixels", *(f"{len(audit.split.test):,}" for audit in sides), "", "")
    make_console().print(table)
    print(f"optimism gap: {100 * found.optimism:.2f} points of OA")
    print(f"random: {found.random.verdict}")
    print(f"blocks: {found.blocks.verdict}")
    for note in found.blocks.audit.split.notes:
        print(f"note: {note}")


def print_network(network: "NetworkDescription") -> None:
    table = Table(title=network.title, title_justify="left", show_footer=True)
    table.add_column("stage", f"total for {network.input_shape}", no_wrap=True)
    table.add_column("output", no_wrap=True)
    table.add_column("parameters", f"{network.num_parameters:,}", justify="right", no_wrap=True)
    table.add_column("MACs", f"{network.macs:,}", justify="right", no_wrap=True)
    table.add_column("what it is", f"FLOPs = 2 × MACs = {2 * network.macs:,}")
    for row in network.rows:
        table.add_row(row.name, str(row.shape), f"{row.num_parameters:,}", f"{row.macs:,}", row.contents)
    make_console(width=140).print(table)


def print_points(name: str, points: "list[tuple[str, list[str]]]") -> None:
    table = Table(title=f"the points of {name}, in order", title_justify="left")
    table.add_column("model.attention key", no_wrap=True)
    table.add_column("blocks that fit")
    for point, kinds in points:
        table.add_row(point, ", ".join(kinds))
    make_console().print(table)


def print_block_costs(rows: "list[BlockCost]") -> None:
    table = Table(title="what a block adds, with its default settings", title_justify="left")
    table.add_column("point", no_wrap=True)
    table.add_column("block", no_wrap=True)
    for heading in ("parameters", "MACs a patch", "forward µs a patch"):
        table.add_column(heading, justify="right")
    last = ""
    for row in rows:
        if row.misfit:
            costs = ["–", "–", "does not fit"]
        else:
            costs = [f"{row.num_parameters:,}", f"{row.macs:,}", f"{row.forward_us:,.1f}"]
        table.add_row(row.point if row.point != last else "", row.kind, *costs)
        last = row.point
    make_console().print(table)


def print_profile(profile: "StepProfile") -> None:
    title = f"a training step of {profile.batch_size} patches"
    table = Table(title=title, title_justify="left", show_footer=True)
    total = sum(stage.macs for stage in profile.stages)
    rate = total / profile.step_s
    table.add_column("", "step", no_wrap=True)
    for heading, footer in (
        ("M MACs", f"{total / 1e6:,.0f}"),
        ("forward ms", f"{1e3 * sum(stage.forward_s for stage in profile.stages):,.1f}"),
        ("backward ms", f"{1e3 * sum(stage.backward_s for stage in profile.stages):,.1f}"),
        ("% of step", "100"),
        ("G MACs/s", f"{rate / 1e9:,.1f}"),
        ("% of product rate", f"{100 * rate / profile.product_rate:.0f}"),
    ):
        table.add_column(heading, footer, justify="right")
    for stage in profile.stages:
        seconds = stage.forward_s + stage.backward_s
        rate = stage.macs / seconds
        table.add_row(
            stage.name,
            f"{stage.macs / 1e6:,.0f}" if stage.macs else "–",
            f"{1e3 * stage.forward_s:,.1f}",
            f"{1e3 * stage.backward_s:,.1f}",
            f"{100 * seconds / profile.step_s:.0f}",
            f"{rate / 1e9:,.1f}" if stage.macs else "–",
            f"{100 * rate / profile.product_rate:.0f}" if stage.macs else "–",
        )
    make_console().print(table)
    print(
        f"{profile.step_s:.3f} s a step, {profile.batch_size / profile.step_s:,.0f} patches/s; at least "
        f"{profile.floor_s:.3f} s, its MACs at the {profile.product_rate / 1e9:,.0f} G MACs/s of a matrix "
        "product here."
    )
    print(_describe_sharing(profile))


def _describe_sharing(profile: "StepProfile") -> str:
    cost = profile.cost
    if cost is None:
        return f"Patch by patch: {profile.obstacle}."
    way = "over the area that the patches share" if cost.is_shared else "patch by patch"
    return (
        f"The last batch went {way}, which is {cost.area[0]} × {cost.area[1]} pixels: forward, sharing takes "
        f"{cost.shared_macs / 1e9:,.2f} G MACs, patch by patch {cost.patchwise_macs / 1e9:,.2f}."
    )
