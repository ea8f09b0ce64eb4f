"""The commands that look at a config, a run or an ablation: `hsi-se info`, `schema`, `report`, `watch`, `explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.cli.usage import DataFolder, Device, Overrides, RunOrAblation, choose, out_option
from hsi_se.errors import ConfigError

if TYPE_CHECKING:
    from hsi_se.ablation.record import AblationFolder


def info(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="A YAML config.")] = None,
    overrides: Overrides = None,
    data: DataFolder = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="ROWSxCOLUMNSxBANDS",
            help="Size of the network's input, after the reduction: 224x224x3. By default CONFIG's.",
        ),
    ] = None,
    classes: Annotated[int | None, typer.Option(metavar="N", help="Number of classes. By default the scene's.")] = None,
    points: Annotated[
        str | None, typer.Option(metavar="NAME", help="List a network's attention points and the blocks that fit them.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare-attention", help="Print the cost of every block at every point of CONFIG's network."),
    ] = False,
) -> None:
    """Print each stage of CONFIG's network: output shape, parameters and MACs, and what attention adds."""
    from hsi_se.config.yaml_file import load_config

    if (config is None) == (points is None):
        raise ConfigError("info: give either a CONFIG or --points NAME")
    if points is not None and (overrides or compare or (data, size, classes) != (None, None, None)):
        raise ConfigError("--points: no other option has an effect with it; leave them out")
    settings = None if config is None else load_config(config, overrides or [])

    from hsi_se.cli.tables import print_block_costs, print_network, print_points
    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows import preview

    if points is not None:
        print_points(points, preview.describe_points(points))
        return
    assert settings is not None
    sizes = preview.InputSize.parse(size, classes)
    if compare:
        with start_session(data=data) as session:
            rows = preview.compare_attention(settings, size=sizes, session=session)
        print_block_costs(rows)
    else:
        print_network(preview.describe_network(settings, size=sizes, data=data))


def schema() -> None:
    """Print the JSON Schema of a config, with which editors check and complete YAML."""
    import json

    from hsi_se.config.experiment import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|ABLATION...",
            help="A folder of runs, also of folds, seeds or `gap`; two are compared; more with --tables or --methods.",
        ),
    ],
    figures: Annotated[
        str | None, choose("--figures", "png", "pdf", "svg", help="Also draw all figures, one column (3.5 in) wide.")
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also write the accuracies of all classes as LaTeX, Markdown and CSV.")
    ] = False,
    methods: Annotated[
        bool, typer.Option("--methods", help="Print a paragraph that describes the methods, and write nothing.")
    ] = False,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    out: Annotated[
        Path | None, out_option("HTML file to write. By default report.html in the folder.", metavar="FILE")
    ] = None,
) -> None:
    """Write the report of an evaluated run or an ablation, or a comparison of two runs, as one offline HTML file."""
    from hsi_se.ablation.record import AblationFolder
    from hsi_se.runs.folder import RunFolder

    if out is not None and (out.is_dir() or out.suffix.casefold() not in (".html", ".htm")):
        raise ConfigError(f"--out {out}: name a file that ends in .html")
    given = {"--figures": figures, "--tables": tables, "--open": open_it, "--out": out}
    idle: list[str] = []
    if methods:
        idle, reason = [*given], "with --methods, which only prints"
    elif len(runs) > 1:
        idle, reason = ["--figures"], "with several runs"
        idle += ["--open", "--out"] if tables else []
    for name in idle:
        if value := given[name]:
            shown = name if value is True else f"{name} {value}"
            raise ConfigError(f"{shown}: has no effect {reason}; leave it out")
    if len(runs) > 2 and not (methods or tables):
        raise ConfigError(f"report: {len(runs)} folders have no page in common; name two, or add --tables or --methods")
    if tables or methods:
        from hsi_se.ablation import paper

        if methods:
            print(paper.describe_methods(paper.open_results(runs)), end="")
            return
        for path in paper.write_tables(runs):
            print(f"table:  {path}")
        if len(runs) > 1 or paper.is_gap(runs[0]):
            return
    run = runs[0]
    written: list[Path] = []
    folder: AblationFolder | RunFolder
    if len(runs) > 1:
        from hsi_se.reports.compare import write_comparison

        folder, second = (RunFolder.open(each, pooled=True) for each in runs)
        names = (each.path.resolve().name for each in (folder, second))
        page = folder.path.resolve().parent / f"{'-and-'.join(names)}.html"
        write_comparison(folder, second, out or page)
    elif AblationFolder(run).is_one:
        from hsi_se.ablation.figures import write_ablation_figures
        from hsi_se.ablation.tables import write_reports

        folder = AblationFolder.open(run)
        page, results = folder.page, folder.read_report()
        if figures is not None:
            written = write_ablation_figures(results, folder, file_format=figures)
        write_reports(results, folder)
    else:
        from hsi_se.reports.explorer import RunFiles
        from hsi_se.reports.page import write_page
        from hsi_se.reports.run_figures import write_figures

        folder = RunFolder.open(run, pooled=True)
        page = folder.page
        write_page(folder)
        if figures is not None:
            written = write_figures(RunFiles.read(folder), file_format=figures)
    for path in written:
        print(f"figure: {path}")
    if out is not None and len(runs) == 1:
        from hsi_se.system.files import replacing

        with replacing(out) as draft:
            draft.write_bytes(page.read_bytes())
    print(f"report: {out or page}")
    if open_it:
        import webbrowser

        webbrowser.open((out or page).resolve().as_uri())


def watch(run: RunOrAblation) -> None:
    """Follow the training in a folder: the epoch, loss, validation accuracy and time left of each run."""
    from contextlib import suppress

    from rich.console import Console

    from hsi_se.cli.watch import follow

    with suppress(KeyboardInterrupt):  # ends the watching; the training continues
        follow(run, console=Console(markup=False, emoji=False))


def explain(run: RunOrAblation, data: DataFolder = None, device: Device = "auto") -> None:
    """Show how attention gates treat the classes of the test pixels, and what training mode would cost.

    Of an ablation or of seeds, every run is explained; intervals are over the seeds.
    """
    from hsi_se.ablation.record import AblationFolder
    from hsi_se.runs.folder import RunFolder

    if AblationFolder(run).is_one:
        _explain_ablation(AblationFolder.open(run), data=data, device=device)
        return
    folder = RunFolder.open(run)

    import numpy as np

    from hsi_se.cli.terminal import print_table, say, start_session
    from hsi_se.reports.tables import number
    from hsi_se.workflows import explain as explaining

    with start_session(data=data, device=device) as session:
        explanation = explaining.explain(folder, session=session)
    if explanation.gates:
        print_table(
            "gates over the classes of the test pixels",
            ("point", "gate", "mean excitation", "standard deviation", "ω², %"),
            [
                (
                    gate.point,
                    gate.block,
                    f"{np.mean(gate.mean_excitation):.3f}",
                    f"{gate.between_class_std:.4f}",
                    number(gate.between_class_share, 1, factor=100),
                )
                for gate in explanation.gates
            ],
            left=(0, 1),
        )
    for block in explanation.skipped:
        say(f"note: {block}; it is skipped")
    for gate in explanation.gates:
        if gate.no_spectrum:
            say(f"note: {gate.point} is not mapped to the spectrum: {gate.no_spectrum}")
    for path in (folder.explanation, folder.explanation_figure):
        if path.is_file():
            print(f"wrote:  {path}")
    say(explanation.gates_in_words)
    say(explanation.modes_in_words)


def _explain_ablation(folder: "AblationFolder", *, data: Path | None, device: str) -> None:
    from hsi_se.ablation.run import explain_ablation
    from hsi_se.cli.terminal import print_table, say, start_session
    from hsi_se.reports.tables import describe_gates, describe_modes, number

    with start_session(data=data, device=device) as session:
        found = explain_ablation(folder, session=session)
    rows = []
    for variant, runs in found.items():
        for seed, run in runs.items():
            shares = [gate.between_class_share for gate in run.gates] or [None]
            passes = " and ".join(number(each, 1, factor=100) for each in run.modes.training or ()) or "–"
            ends = (number(each, 1, factor=100) for each in (shares[0], shares[-1], run.modes.evaluation))
            rows.append((variant, str(seed), *ends, passes))
    print_table(
        "gates and modes over the test pixels of every run",
        ("variant", "seed", "ω² first, %", "ω² last, %", "evaluation mode, %", "training mode, %"),
        rows,
    )
    for variant, runs in found.items():
        gates = describe_gates([run.gates for run in runs.values()])
        say(f"{variant}: {gates} {describe_modes([run.modes for run in runs.values()])}")
