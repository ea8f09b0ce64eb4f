"""The tables and sentences that commands print; each command imports them when it has results."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from hsi_se.cli.terminal import make_console, say
from hsi_se.evaluation.assessment import Assessment
from hsi_se.evaluation.audit import SplitAudit
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.report.tables import describe_leakage, kappa_text, list_methods, percent
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.report import list_class_accuracies

if TYPE_CHECKING:
    from hsi_se.models.cost import BlockCost
    from hsi_se.workflows.cross_scene import CrossScene
    from hsi_se.workflows.gap import Gap
    from hsi_se.workflows.preview import NetworkDescription


def print_assessment(assessment: Assessment, folder: RunFolder) -> None:
    evaluation = assessment.evaluation
    floor = [percent(value) for value in assessment.audit.location_floor.producers_accuracy]
    _print_classes(f"{evaluation.num_test:,} test pixels", evaluation, {"floor producer's %": floor})
    for name, numbers in list_methods(assessment):
        print(f"{name + ':':<18} {_describe(numbers, width=6)}")
    say(describe_leakage(assessment.audit.leakage))
    say(assessment.about_certainty)
    say(assessment.verdict.findings, style="bold")
    _say_next(assessment, folder)


def print_cross_scene(found: "CrossScene") -> None:
    evaluation = found.evaluation
    title = f"cross-scene: trained on {found.trained_on}, {evaluation.num_test:,} pixels of {found.scene}"
    _print_classes(title, evaluation, {})
    for note in found.notes:
        say(f"note: {note}")
    print(f"cross-scene:  {_describe(evaluation)}")
    say(
        "No split is involved: every labelled pixel is a test pixel. Where the two scenes overlap, these "
        "include pixels that trained the network."
    )


def print_audit(audit: SplitAudit) -> None:
    table = Table(title=f"split {audit.split.digest[:8]}", title_justify="left", show_footer=True)
    totals = [f"{total:,}" for total in audit.counts.sum(axis=0)]
    table.add_column("label", justify="right")
    table.add_column("class", "all", overflow="fold")
    for heading, total in zip(("training", "validation", "test", "buffer"), totals, strict=True):
        table.add_column(heading, total, justify="right")
    floor = audit.location_floor
    for label, name, counts in zip(floor.class_ids, floor.class_names, audit.counts, strict=True):
        table.add_row(str(label), name, *(str(count) for count in counts))
    make_console().print(table)
    for note in audit.split.notes:
        say(f"note: {note}")
    say(describe_leakage(audit.leakage))
    print(f"location floor: {_describe(floor)}")


def _print_classes(title: str, evaluation: Evaluation, more: Mapping[str, Sequence[str]]) -> None:
    """Prints one row per class; `more` are further columns."""
    table = Table(title=title, title_justify="left")
    table.add_column("label", justify="right")
    table.add_column("class", overflow="fold")
    for heading in ("test pixels", "producer's %", "user's %", "F1 %", *more):
        table.add_column(heading, justify="right")
    for row, *cells in zip(list_class_accuracies(evaluation), *more.values(), strict=True):
        accuracies = map(percent, (row.producers_accuracy, row.users_accuracy, row.f1))
        table.add_row(str(row.label), row.name, str(row.support), *accuracies, *cells)
    make_console().print(table)


def _say_next(assessment: Assessment, folder: RunFolder) -> None:
    say(f"next: {assessment.verdict.next_step.replace('CONFIG', shlex.quote(str(folder.config)))}")


def _describe(evaluation: Evaluation, *, width: int = 0) -> str:
    oa, aa = percent(evaluation.overall_accuracy), percent(evaluation.average_accuracy)
    return f"OA {oa:>{width}} %   AA {aa:>{width}} %   κ {kappa_text(evaluation.kappa)}"


def print_gap(found: "Gap") -> None:
    table = Table(
        title="the same network with the same number of training pixels per class", title_justify="left"
    )
    for heading in ("", "random OA %", "blocks OA %", "random AA %", "blocks AA %"):
        table.add_column(heading, justify="left" if not heading else "right")
    methods = zip(list_methods(found.random), list_methods(found.blocks), strict=True)
    for (name, of_random), (_, of_blocks) in methods:
        pair = (of_random, of_blocks)
        table.add_row(
            name,
            *(percent(evaluation.overall_accuracy) for evaluation in pair),
            *(percent(evaluation.average_accuracy) for evaluation in pair),
        )
    sides = (found.random.audit, found.blocks.audit)
    leaking = [percent(audit.leakage.test_patches_with_train_pixels) for audit in sides]
    table.add_row("test patches that leak", *leaking, "", "")
    table.add_row("training pixels", *(f"{len(audit.split.train):,}" for audit in sides), "", "")
    table.add_row("test pixels", *(f"{len(audit.split.test):,}" for audit in sides), "", "")
    make_console().print(table)
    say(
        f"optimism gap: {100 * found.optimism:.2f} points of OA, without an interval: one split and one "
        "training of each kind; repeat it with other seeds (--set seed=1)",
        style="bold",
    )
    say(f"random: {found.random.verdict.findings}")
    say(f"blocks: {found.blocks.verdict.findings}")
    _say_next(found.blocks, RunFolder(found.folder / "blocks"))
    for note in found.blocks.audit.split.notes:
        say(f"note: {note}")


def print_network(network: "NetworkDescription") -> None:
    table = Table(title=network.title, title_justify="left", show_footer=True)
    table.add_column("stage", f"total for {network.input_shape}", no_wrap=True)
    table.add_column("output", no_wrap=True)
    table.add_column("parameters", f"{network.num_parameters:,}", justify="right", no_wrap=True)
    table.add_column("MACs", f"{network.macs:,}", justify="right", no_wrap=True)
    table.add_column("layers", f"FLOPs = 2 × MACs = {2 * network.macs:,}")
    for row in network.rows:
        table.add_row(row.name, str(row.shape), f"{row.num_parameters:,}", f"{row.macs:,}", row.contents)
    make_console(width=140).print(table)
    say(network.surplus)


def print_points(name: str, points: "list[tuple[str, list[str]]]") -> None:
    table = Table(title=f"attention points of {name}, in order", title_justify="left")
    table.add_column("model.attention key", no_wrap=True)
    table.add_column("blocks that fit")
    for point, kinds in points:
        table.add_row(point, ", ".join(kinds))
    make_console().print(table)


def print_block_costs(rows: "list[BlockCost]") -> None:
    table = Table(title="cost of each block, with its default settings", title_justify="left")
    table.add_column("point", no_wrap=True)
    table.add_column("block", no_wrap=True)
    for heading in ("parameters", "MACs per patch", "forward µs per patch"):
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
