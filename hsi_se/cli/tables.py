"""The tables and sentences that commands print; each command imports them when it has results."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from hsi_se.cli.terminal import make_console, print_table, say, say_notes
from hsi_se.evaluation.assessment import Assessment
from hsi_se.evaluation.audit import SplitAudit
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.report.tables import describe_draws, describe_leakage, kappa_text, list_methods, percent
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
    _print_folds(assessment.audit, assessment.folds)
    _say_next(assessment, folder)


def _print_folds(audit: SplitAudit, evaluations: Sequence[Evaluation] = ()) -> None:
    rows = [
        (
            str(number),
            *(f"{count:,}" for count in fold.counts.sum(axis=0)),
            percent(fold.leakage.test_patches_with_train_pixels),
            percent(fold.location_floor.overall_accuracy),
            percent(evaluations[number - 1].overall_accuracy) if evaluations else "–",
            ", ".join(f"{name} ({count})" for name, count in fold.unlearnable.items()) or "–",
        )
        for number, fold in enumerate(audit.folds, start=1)
    ]
    headings = (
        "fold",
        "training",
        "validation",
        "test",
        "buffer",
        "leak %",
        "floor OA %",
        "OA %",
        "cannot learn (test)",
    )
    if rows:
        print_table("folds", headings, rows, left=(0, 8))


def print_draws(draws: Sequence[Assessment]) -> None:
    """Prints the accuracies of each draw of the folds, and their mean with its interval, if there are several."""
    for of_draws in zip(*map(list_methods, draws), strict=True) if len(draws) > 1 else ():
        say(f"{of_draws[0][0]}: {describe_draws([found.overall_accuracy for _, found in of_draws])}")


def print_cross_scene(found: "CrossScene") -> None:
    evaluation = found.evaluation
    title = f"cross-scene: trained on {found.trained_on}, {evaluation.num_test:,} pixels of {found.scene}"
    _print_classes(title, evaluation, {})
    say_notes(found.notes)
    print(f"cross-scene:  {_describe(evaluation)}")
    say(
        "No split is involved: every labelled pixel is a test pixel. Where the two scenes overlap, these "
        "include pixels that trained the network."
    )


def print_audit(audit: SplitAudit) -> None:
    floor = audit.location_floor
    counts = zip(floor.class_ids, floor.class_names, audit.counts, strict=True)
    _print_folds(audit)
    means = ": test pixels of all folds, others are means per fold" if audit.folds else ""
    print_table(
        f"split {audit.digest[:8]}{means}",
        ("label", "class", "training", "validation", "test", "buffer"),
        [(str(label), name, *map(str, numbers)) for label, name, numbers in counts],
        footer=("", "all", *(f"{total:,}" for total in audit.counts.sum(axis=0))),
        left=(1,),
    )
    say_notes(audit.notes)
    say(describe_leakage(audit.leakage))
    print(f"location floor: {_describe(floor)}")


def _print_classes(title: str, evaluation: Evaluation, more: Mapping[str, Sequence[str]]) -> None:
    headings = ("label", "class", "test pixels", "producer's %", "user's %", "F1 %", *more)
    rows = []
    for row, *cells in zip(list_class_accuracies(evaluation), *more.values(), strict=True):
        accuracies = map(percent, (row.producers_accuracy, row.users_accuracy, row.f1))
        rows.append((str(row.label), row.name, str(row.support), *accuracies, *cells))
    print_table(title, headings, rows, left=(1,))


def _say_next(assessment: Assessment, folder: RunFolder) -> None:
    say(f"next: {assessment.verdict.next_step.replace('CONFIG', shlex.quote(str(folder.config)))}")


def _describe(evaluation: Evaluation, *, width: int = 0) -> str:
    oa, aa = percent(evaluation.overall_accuracy), percent(evaluation.average_accuracy)
    return f"OA {oa:>{width}} %   AA {aa:>{width}} %   κ {kappa_text(evaluation.kappa)}"


def print_gap(found: "Gap") -> None:
    sides = (found.random, found.folds)
    rows: list[tuple[str, ...]] = []
    for (name, of_random), (_, of_folds) in zip(*map(list_methods, sides), strict=True):
        overall = (of_random.overall_accuracy, of_folds.overall_accuracy)
        average = (of_random.average_accuracy, of_folds.average_accuracy)
        rows.append((name, *map(percent, overall), *map(percent, average)))
    audits = [each.audit for each in sides]
    leaking = [percent(audit.leakage.test_patches_with_train_pixels) for audit in audits]
    rows.append(("test patches that leak", *leaking, "", ""))
    for place, name in ((0, "training pixels"), (2, "test pixels")):
        rows.append((name, *(f"{audit.counts[:, place].sum():,}" for audit in audits), "", ""))
    headings = ("", "random OA %", "folds OA %", "random AA %", "folds AA %")
    print_table("the same network with as many training pixels per class as the folds have on average", headings, rows)
    say(
        f"optimism gap: {100 * found.optimism:.2f} points of OA, without an interval: one random split and one "
        "draw of the folds; repeat it with other seeds (--set seed=1)",
        style="bold",
    )
    say(f"random: {found.random.verdict.findings}")
    say(f"folds: {found.folds.verdict.findings}")
    _say_next(found.folds, RunFolder(found.folder / "folds"))
    say_notes(found.folds.audit.notes)
    for name, side in zip(("at random", "on new ground"), sides, strict=True):
        evaluation = side.evaluation
        accuracies = f"OA {percent(evaluation.overall_accuracy)} %   AA {percent(evaluation.average_accuracy)} %"
        say(f"{name + ':':<15}{accuracies}", style="bold")
    print(f"report:        {RunFolder(found.folder / 'folds').page}")


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
    rows = [(point, ", ".join(kinds)) for point, kinds in points]
    headings = ("model.attention key", "blocks that fit")
    print_table(f"attention points of {name}, in order", headings, rows, left=(0, 1))


def print_block_costs(rows: "list[BlockCost]") -> None:
    print_table(
        "cost of each block, with its default settings",
        ("point", "block", "parameters", "MACs per patch", "forward µs per patch"),
        [
            (row.point, row.kind, "–", "–", "does not fit")
            if row.misfit
            else (row.point, row.kind, f"{row.num_parameters:,}", f"{row.macs:,}", f"{row.forward_us:,.1f}")
            for row in rows
        ],
        left=(0, 1),
    )
