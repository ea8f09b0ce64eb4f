"""What a paper prints of evaluated runs: the accuracies of all classes in one table, and the methods in a paragraph."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from textwrap import fill

import numpy as np

from hsi_se.ablation.record import AblationFolder
from hsi_se.ablation.tables import Table, spread
from hsi_se.config.base import Settings
from hsi_se.config.experiment import Config
from hsi_se.config.model import Network
from hsi_se.errors import RunError
from hsi_se.evaluation.assessment import TestPixels
from hsi_se.evaluation.metrics import Evaluation, evaluate_labels
from hsi_se.evaluation.statistics import LEVEL, CorrelatedTest, Summary, adjust_holm, compare_runs, summarize
from hsi_se.reports.explorer import Explorer
from hsi_se.reports.tables import render_template
from hsi_se.runs.folder import RunFolder
from hsi_se.runs.records import flatten
from hsi_se.runs.report import RunReport
from hsi_se.system.files import Folder, to_csv

Measure = Callable[[Evaluation], float]
Accuracies = dict[tuple[int, int], Evaluation]  # of a method, by seed and fold; fold 0 is a whole run
_BASELINES = {"location floor": "by_location", "spectral baseline": "by_spectrum"}  # their columns in `TestPixels`
_SIDES = {"random": "random split", "folds": "spatial folds"}  # of `hsi-se gap`
_FOOT: Mapping[str, Measure] = {
    "OA": lambda found: found.overall_accuracy,
    "AA": lambda found: found.average_accuracy,
    "κ × 100": lambda found: found.kappa,
}


@dataclass(frozen=True, eq=False)
class Results:
    """The evaluated runs of one scene and one kind of split, by variant and seed."""

    name: str
    runs: Mapping[str, Mapping[int, RunFolder]]
    kind: str = ""  # of the split, where the same network has two

    @cached_property
    def first(self) -> RunFolder:
        return next(iter(next(iter(self.runs.values())).values()))

    @cached_property
    def scene(self) -> str:
        return self.first.read_record().scene

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({seed for of_seeds in self.runs.values() for seed in of_seeds})

    @cached_property
    def num_splits(self) -> int:
        return len({run.read_record().split_digest for run in next(iter(self.runs.values())).values()})

    @cached_property
    def reports(self) -> dict[RunFolder, RunReport]:
        """The report of each training: of a run, or of each fold of one."""
        runs = (run for of_seeds in self.runs.values() for run in of_seeds.values())
        return {part: part.read_report() for run in runs for part in run.folds or [run]}

    @cached_property
    def unit(self) -> str:
        """What the means and deviations are over: `3 seeds`, `5 folds`; empty for a single run."""
        folds, num_seeds = f"{len(self.first.folds)} folds" if self.first.folds else "", len(self.seeds)
        return folds if num_seeds == 1 else f"{num_seeds} draws of {folds}" if folds else f"{num_seeds} seeds"

    @cached_property
    def methods(self) -> dict[str, Accuracies]:
        """The accuracies of each variant, and of the baselines that the variants share or of those of each."""
        found = {name: _read(of_seeds, "predicted") for name, of_seeds in self.runs.items()}
        for name, column in _BASELINES.items():
            groups: list[tuple[list[str], Accuracies]] = []
            for variant, of_seeds in self.runs.items():
                mine = _read(of_seeds, column)
                for variants, known in groups:
                    common = known.keys() & mine.keys()
                    if common and all(np.array_equal(known[key].confusion, mine[key].confusion) for key in common):
                        variants.append(variant)
                        known.update(mine)
                        break
                else:
                    groups.append(([variant], mine))
            told = [f" ({', '.join(variants)})" if len(groups) > 1 else "" for variants, _ in groups]
            found |= {name + which: known for which, (_, known) in zip(told, groups, strict=True)}
        return found

    @cached_property
    def measures(self) -> dict[tuple[str, str], Measure]:
        """How each row of the table is computed, by label and name."""
        names = {row.label: row.name for report in self.reports.values() for row in report.per_class}
        classes = {(str(label), name): partial(_measure_class, label=label) for label, name in names.items()}
        return classes | {("", name): measure for name, measure in _FOOT.items()}

    def summarize(self, method: str, measure: Measure) -> Summary:
        """Returns the mean over seeds, or over the folds of a single draw."""
        of_folds = bool(self.first.folds) and len(self.seeds) == 1
        return summarize([measure(each) for (_, fold), each in self.methods[method].items() if (fold > 0) == of_folds])

    def test(self, method: str, other: str, measure: Measure) -> CorrelatedTest:
        """Returns the correlated test of one method minus another, over the runs and folds that both have."""
        parts, ours, theirs = range(1, len(self.first.folds) + 1) or [0], self.methods[method], self.methods[other]
        seeds = sorted({seed for seed, _ in ours} & {seed for seed, _ in theirs})
        differences = [[measure(ours[seed, fold]) - measure(theirs[seed, fold]) for fold in parts] for seed in seeds]
        sizes = [(each.num_train + each.num_val, each.num_test) for each in self.reports.values()]
        return compare_runs(differences, sizes=sizes, is_one_split=self.num_splits == 1)

    def find_best(self, measure: Measure) -> str | None:
        """Returns the method whose mean is the highest, if it is shown to be better than every other one.

        With a single run, a network has the better overall accuracy if its own verdict says so.
        """
        if not self.unit:
            is_better = measure is _FOOT["OA"] and next(iter(self.reports.values())).outcome == "better"
            return next(iter(self.methods)) if is_better else None
        means = {name: np.nan_to_num(self.summarize(name, measure).mean, nan=-1.0) for name in self.methods}
        best = max(means, key=lambda name: means[name])
        p = adjust_holm([self.test(best, other, measure).p for other in means if other != best])
        return best if (p <= LEVEL).all() else None


def _read(of_seeds: Mapping[int, RunFolder], column: str) -> Accuracies:
    found = {}
    for seed, run in of_seeds.items():
        for fold, part in enumerate([run, *run.folds]):
            tested, known = part.read_arrays(TestPixels, part.predictions), part.read_report().evaluation
            ids, names = known.class_ids, known.class_names
            labels = getattr(tested, column)
            found[seed, fold] = evaluate_labels(tested.truth, labels, class_ids=ids, class_names=names)
    return found


def _measure_class(found: Evaluation, label: int) -> float:
    return float(found.producers_accuracy[found.class_ids.index(label)])


def is_gap(path: Path) -> bool:
    """Whether a folder is that of `hsi-se gap`."""
    return all((path / side).is_dir() for side in _SIDES)


def open_results(paths: Iterable[Path]) -> list[Results]:
    """Returns the evaluated runs in folders of runs, folds, seeds, ablations and `gap`; RunError if there are none."""
    found: list[Results] = []
    for path in paths:
        if AblationFolder(path).is_one:
            folder = AblationFolder.open(path)
            report = folder.read_report()
            for scene in report.scenes:
                runs = {each.name: {run.seed: folder.open_run(run.folder) for run in each.runs} for each in scene.begun}
                runs = {_name_kind(each): each for each in runs.values()} if report.is_of_seeds else runs
                found += [Results(report.name, runs)] if runs else []
            continue
        for side, kind in _SIDES.items() if is_gap(path) else [("", "")]:
            record = (run := RunFolder.open(path / side, pooled=True)).read_record()
            found.append(Results(record.name, {_name_kind({0: run}): {record.seed: run}}, kind))
    if not found:
        raise RunError(f"{', '.join(map(str, paths))}: no finished runs yet; rerun the command that writes this folder")
    return found


def _name_kind(runs: Mapping[int, RunFolder]) -> str:
    return "network" if isinstance(next(iter(runs.values())).read_config().model, Network) else "classifier"


def make_table(found: Sequence[Results]) -> Table:
    """Returns producer's accuracy of each class, OA, AA and κ of each method, one block for each scene or split."""
    columns = list(dict.fromkeys(name for results in found for name in results.methods))
    columns.sort(key=lambda name: name.startswith(tuple(_BASELINES)))
    rows: list[tuple[str, ...]] = []
    bold, rules = set(), set()
    for results in found:
        if len(found) > 1:
            rules |= {len(rows)} - {0}
            rows.append((_name_block(results, found),))
        for (label, name), measure in results.measures.items():
            rules |= {len(rows)} if measure is _FOOT["OA"] else set()
            if (best := results.find_best(measure)) is not None:
                bold.add((len(rows), 2 + columns.index(best)))
            known = {each: spread(results.summarize(each, measure)) for each in results.methods}
            rows.append((label, name.replace("_", " "), *(known.get(each, "–") for each in columns)))
    title = render_template("table_caption.txt", found=found, name_block=partial(_name_block, found=found))
    name, title = f"accuracy-{found[0].name}", " ".join(title.split())
    return Table(title, ("", "class", *columns), rows, 2, name, frozenset(bold), frozenset(rules))


def _name_block(results: Results, found: Sequence[Results]) -> str:
    """A scene, with the run's name and the kind of split where another has the same."""
    like = [each for each in found if each.scene == results.scene]
    told = [key for key in ("name", "kind") if len({getattr(each, key) for each in like}) > 1]
    return ", ".join([results.scene, *(getattr(results, key) for key in told)])


def render_values(found: Sequence[Results]) -> str:
    """Returns the numbers of the table as CSV: fractions, one row for each method and class."""
    rows = []
    for results in found:
        for (label, name), measure in results.measures.items():
            best = results.find_best(measure)
            for method in results.methods:
                summary = results.summarize(method, measure)
                numbers = (None if np.isnan(value) else value for value in (summary.mean, summary.std))
                start = (results.scene, results.name, results.kind, label, name.removesuffix(" × 100"), method)
                rows.append((*start, summary.n, *numbers, int(method == best)))
    headings = ("scene", "run", "split", "label", "class", "method", "n", "mean", "std", "is_best")
    return to_csv(headings, rows)


def write_tables(paths: Sequence[Path]) -> list[Path]:
    """Writes the table of all runs in some folders into `tables` in the first one; LaTeX, Markdown and CSV."""
    found = open_results(paths)
    table, written = make_table(found), [paths[0] / "tables" / f"accuracy.{ending}" for ending in ("tex", "md", "csv")]
    texts = (render_template("paper.tex", table=table), render_template("table.md", table=table), render_values(found))
    for path, text in zip(written, texts, strict=True):
        Folder(paths[0]).write(path, text)
    return written


def describe_methods(found: Sequence[Results]) -> str:
    """Returns the methods of the runs in the past tense, a paragraph for each scene or kind of split."""
    return "\n".join(fill(" ".join(_describe(each).split()), 88, break_on_hyphens=False) + "\n" for each in found)


def _describe(results: Results) -> str:
    run = results.first
    configs = {name: next(iter(each.values())).read_config() for name, each in results.runs.items()}
    config = next(iter(configs.values()))
    model = config.model
    options = {
        name.replace("_", " "): getattr(model, name)
        for name, field in type(model).model_fields.items()
        if getattr(model, name) != field.get_default(call_default_factory=True)
    }
    return render_template(
        "methods.txt",
        config=config,
        record=run.read_record(),
        records=[part.read_record() for part in results.reports],
        reports=list(results.reports.values()),
        results=results,
        num_folds=len(run.folds),
        facts=next(iter(run.folds), run).read_facts(),
        explorer=run.read_arrays(Explorer, run.explorer),
        it="network" if isinstance(model, Network) else "classifier",
        described=_cite(model),
        options=[f"{name} {value}" for name, value in options.items() if name not in ("name", "attention")],
        attention=_describe_attention(model),
        variants={name: _list_changes(config, each) for name, each in configs.items()},
    )


def _describe_attention(model: Settings) -> str:
    points = [f"{_cite(block)} at {point}" for point, block in getattr(model, "attention", {}).items()]
    return " and ".join(points) or "no attention"


def _list_changes(base: Config, config: Config) -> list[str]:
    """What a variant changes; a model or its attention is named, not listed setting by setting."""
    ours, theirs = (flatten(each.model_dump(mode="json", exclude={"name", "seed"})) for each in (base, config))
    keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    summed = {"model.": _cite(config.model)} if "model.name" in keys else {}
    summed = summed or {"model.attention": _describe_attention(config.model)}
    changes = [
        f"the {name.strip('.').split('.')[-1]} to {text}"
        for name, text in summed.items()
        if any(key.startswith(name) for key in keys)
    ]
    return changes + [f"{key} to {theirs.get(key)}" for key in keys if not key.startswith(tuple(summed))]


def _cite(settings: Settings) -> str:
    """The name of a network or a block with its source, as its settings begin: `HybridSN (Roy et al. 2020)`."""
    text = str(type(settings).__doc__).splitlines()[0].rstrip(".")
    cited = re.match(r"[^:]+?\(.+? \d{4}[a-z]?\)", text)
    name = cited[0] if cited else text.partition(":")[0]
    return name if any(map(str.isupper, name.partition(" ")[0][1:])) else f"{name[0].lower()}{name[1:]}"
