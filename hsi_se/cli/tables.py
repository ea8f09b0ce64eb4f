"""The tables and sentences that commands print; each command imports them when it has results."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hsi_se.ablation.record import AblationReport
from hsi_se.ablation.tables import HEADINGS, Table, list_rows, list_tables
from hsi_se.cli.terminal import print_table, say, say_notes
from hsi_se.evaluation.assessment import Assessment
from hsi_se.evaluation.audit import SplitAudit
from hsi_se.evaluation.metrics import Evaluation
from hsi_se.evaluation.verdict import Outcome
from hsi_se.progress import clock
from hsi_se.reports.finding import describe_finding
from hsi_se.reports.tables import describe_draws, describe_leakage, list_methods, number, percent
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.report import list_class_accuracies
from hsi_se.system.files import fill_template, read_facts

if TYPE_CHECKING:
    from hsi_se.ablation.plan import PlannedVariant
    from hsi_se.models.cost import BlockCost
    from hsi_se.workflows.evaluate import CrossScene
    from hsi_se.workflows.gap import Gap
    from hsi_se.workflows.preview import NetworkDescription

_COLOURS: Mapping[Outcome, str] = {"better": "green", "worse": "red", "no difference shown": "yellow"}
_ACCURACIES = ("overall accuracy", "average accuracy", "kappa")
_COUNTED = ("training", "validation", "test", "buffer")  # the columns of `SplitAudit.counts`


def print_finding(folder: RunFolder) -> None:
    """Prints the finding of an evaluated run in whole words: green, red, or yellow where no difference is shown."""
    report = folder.read_report()
    say(describe_finding(report, folder.read_config()), style=f"bold {_COLOURS[report.outcome]}")


def print_assessment(assessment: Assessment, folder: RunFolder) -> None:
    print_finding(folder)
    say(assessment.verdict.findings)
    evaluation = assessment.evaluation
    floor = [percent(value) for value in assessment.audit.location_floor.producers_accuracy]
    _print_classes(f"{evaluation.num_test:,} test pixels", evaluation, {"floor\n%": floor})
    rows = [(name, *_list_accuracies(numbers)) for name, numbers in list_methods(assessment)]
    print_table("", ("", *_ACCURACIES), rows, whole=range(4), width=80)
    say(describe_leakage(assessment.audit.leakage))
    say(assessment.about_certainty)
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
    if rows:
        headings = ("fold", *_COUNTED, "leak\n%", "floor\n%", "overall\naccuracy %", "cannot learn\n(test)")
        print_table("folds", headings, rows, left=(0, 8), width=80)


def print_draws(draws: Sequence[Assessment]) -> None:
    """Prints the accuracies of each draw of the folds, and their mean with its interval, if there are several."""
    for of_draws in zip(*map(list_methods, draws), strict=True) if len(draws) > 1 else ():
        say(f"{of_draws[0][0]}: {describe_draws([found.overall_accuracy for _, found in of_draws])}")


def print_cross_scene(found: "CrossScene") -> None:
    evaluation = found.evaluation
    title = f"cross-scene: trained on {found.trained_on}, {evaluation.num_test:,} pixels of {found.scene}"
    _print_classes(title, evaluation, {})
    say_notes(found.notes)
    say(f"cross-scene: {_describe(evaluation)}", style="bold")
    overlap = "Where the two scenes overlap, these include pixels that trained the network."
    say(f"No split is involved: every labelled pixel is a test pixel. {overlap}")


def print_audit(audit: SplitAudit) -> None:
    floor = audit.location_floor
    counts = zip(floor.class_ids, floor.class_names, audit.counts, strict=True)
    _print_folds(audit)
    means = ": test pixels of all folds, others are means per fold" if audit.folds else ""
    print_table(
        f"split {audit.digest[:8]}{means}",
        ("label", "class", *_COUNTED),
        [(str(label), name, *map(str, numbers)) for label, name, numbers in counts],
        footer=("", "all", *(f"{total:,}" for total in audit.counts.sum(axis=0))),
        left=(1,),
    )
    if audit.digest in (known := read_facts("hsi_se.sampling", "known_splits.toml")):
        print(f"known split: {known[audit.digest]}")
    say_notes(audit.notes)
    say(describe_leakage(audit.leakage))
    say(f"location floor: {_describe(floor)}")


def _print_classes(title: str, evaluation: Evaluation, more: Mapping[str, Sequence[str]]) -> None:
    headings = ("label", "class", "test\npixels", "producer's\n%", "user's\n%", "F1 %", *more)
    rows = []
    for row, *cells in zip(list_class_accuracies(evaluation), *more.values(), strict=True):
        accuracies = map(percent, (row.producers_accuracy, row.users_accuracy, row.f1))
        rows.append((str(row.label), row.name, str(row.support), *accuracies, *cells))
    print_table(title, headings, rows, left=(1,), width=80)


def _say_next(assessment: Assessment, folder: RunFolder) -> None:
    say(f"next: {assessment.verdict.next_step.replace('CONFIG', shlex.quote(str(folder.config)))}")


def _list_accuracies(evaluation: Evaluation) -> tuple[str, ...]:
    oa, aa = percent(evaluation.overall_accuracy), percent(evaluation.average_accuracy)
    return f"{oa} %", f"{aa} %", number(evaluation.kappa, 4)


def _describe(evaluation: Evaluation) -> str:
    found = zip(_ACCURACIES, _list_accuracies(evaluation), strict=True)
    return ", ".join(f"{name} {value}" for name, value in found)


def print_gap(found: "Gap") -> None:
    sides = (found.random, found.folds)
    rows: list[tuple[str, ...]] = []
    for (name, one), (_, other) in zip(*map(list_methods, sides), strict=True):
        accuracies = one.overall_accuracy, other.overall_accuracy, one.average_accuracy, other.average_accuracy
        rows.append((name, *map(percent, accuracies)))
    audits = [each.audit for each in sides]
    leaking = [percent(audit.leakage.test_patches_with_train_pixels) for audit in audits]
    rows.append(("test patches that leak", *leaking, "", ""))
    for place, name in ((0, "training pixels"), (2, "test pixels")):
        rows.append((name, *(f"{audit.counts[:, place].sum():,}" for audit in audits), "", ""))
    named = [name.replace(" ", "\n") for name in _ACCURACIES[:2]]
    headings = ("", *(f"{side},\n{name} %" for name in named for side in ("random", "folds")))
    print_table("the same network with as many training pixels per class as the folds have on average", headings, rows)
    origin = (
        "without an interval: one random split and one draw of the folds; repeat it with other seeds (--set seed=1)"
    )
    say(f"optimism gap: {100 * found.optimism:.2f} points of overall accuracy, {origin}", style="bold")
    say(f"random: {found.random.verdict.findings}")
    say(f"folds: {found.folds.verdict.findings}")
    _say_next(found.folds, RunFolder(found.folder / "folds"))
    say_notes(found.folds.audit.notes)
    for name, side in zip(("at random", "on new ground"), sides, strict=True):
        say(f"{name}: {_describe(side.evaluation)}", style="bold")
    print(f"report:        {RunFolder(found.folder / 'folds').page}")


def print_network(network: "NetworkDescription") -> None:
    total = (f"{network.num_parameters:,}", f"{network.macs:,}", f"FLOPs = 2 × MACs = {2 * network.macs:,}")
    print_table(
        network.title,
        ("stage", "output", "parameters", "MACs", "layers"),
        [(row.name, str(row.shape), f"{row.num_parameters:,}", f"{row.macs:,}", row.contents) for row in network.rows],
        footer=(f"total for {network.input_shape}", "", *total),
        left=(0, 1, 4),
        whole=range(4),
        width=140,
    )
    say(fill_template("hsi_se.cli", "surplus.txt", network=network))


def print_points(name: str, points: "list[tuple[str, list[str]]]") -> None:
    rows = [(point, ", ".join(kinds)) for point, kinds in points]
    print_table(f"attention points of {name}, in order", ("model.attention key", "blocks that fit"), rows, left=(0, 1))


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


def print_plan(plan: "list[PlannedVariant]") -> None:
    first = 0 if any(row.scene for row in plan) else 1  # one scene has no name, and no column
    total_s, rows = 0.0, []
    for row in plan:
        left_s = None if row.training_s is None else row.training_s * (len(row.seeds) - row.num_finished)
        total_s += left_s or 0
        changes = ", ".join(f"{key}={json.dumps(value)}" for key, value in row.settings.items()).replace('"', "")
        sizes = ("–" if count is None else f"{count:,}" for count in (row.num_parameters, row.macs))
        times = ("–" if seconds is None else clock(seconds) for seconds in (row.training_s, left_s))
        first_seed, last_seed = row.seeds[0], row.seeds[-1]
        is_range = len(row.seeds) > 2 and row.seeds == tuple(range(first_seed, last_seed + 1))
        seeds = f"{first_seed}-{last_seed}" if is_range else ",".join(map(str, row.seeds))
        rows.append((row.scene, row.name, changes, seeds, str(row.num_finished), *sizes, *times)[first:])
    headings = ("scene", "variant", "changes", "seeds", "finished", "parameters", "MACs per patch", "time per run")
    num_runs, num_finished = sum(len(row.seeds) for row in plan), sum(row.num_finished for row in plan)
    print_table(
        "",
        (*headings, "remaining")[first:],
        rows,
        footer=("", f"{num_runs} runs", "", "", str(num_finished), "", "", "", clock(total_s))[first:],
        left=range(4 - first),
        whole={position - first for position in (1, 5, 6, 7, 8)},
        width=150,
    )
    say("Times are for training only, one run after another, estimated from one training step per variant.")


def print_answer(report: AblationReport) -> None:
    of_seeds = f", n = {len(report.seeds)} seeds" if report.is_of_seeds else ""
    for scene in report.scenes:
        title = f"{report.name} on {scene.name}{of_seeds}: mean ± standard deviation"
        variants = Table(title, HEADINGS, list_rows(scene))
        for table in (variants, *list_tables(scene, with_interval=report.is_of_seeds)):
            left = range(table.num_texts)
            print_table(table.title, table.headings, table.rows, left=left, width=150)
        for variant in scene.variants:
            if variant.comparison is not None:
                say(f"{variant.name} against {report.baseline}: {variant.comparison.sentence}", style="bold")
        say_notes(scene.notes)
    say_notes(report.caveats)
    if report.no_friedman:
        say(f"note: no critical-difference diagram: {report.no_friedman}.")
    if report.num_missing:
        say(f"note: {report.missing}")
