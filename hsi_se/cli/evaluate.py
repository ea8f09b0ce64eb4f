"""The commands that evaluate a run or a split, or deliver a map: `hsi-se eval`, `gap`, `split`, `map`, `export`."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from hsi_se.cli import usage
from hsi_se.errors import ConfigError, RunError

_PICTURES = (".png", ".pdf", ".svg")


def evaluate(
    run: usage.RunPath,
    data: usage.DataFolder = None,
    device: usage.Device = "auto",
    scene: usage.Scene = None,
    overrides: usage.SceneOverrides = None,
    log: usage.Log = None,
) -> None:
    """Print the accuracies of RUN next to its location floor and spectral baseline; write its reports.

    Folds, the folder of a config with split.kind: folds, are pooled.
    """
    from hsi_se.ablation.record import AblationFolder
    from hsi_se.cli.terminal import start_session
    from hsi_se.runs.folder import RunFolder

    if scene is not None:
        if log:
            raise ConfigError(f"--log {log[0]}: has no effect with --scene; leave it out")
        from hsi_se.cli.tables import print_cross_scene
        from hsi_se.workflows.evaluate import evaluate_on

        with start_session(data=data, device=device) as session:
            found = evaluate_on(run, scene, overrides=overrides or [], session=session)
        print_cross_scene(found)
        return
    if overrides:
        raise ConfigError(f"--set {overrides[0]}: has no effect without --scene; leave it out")

    folders, is_series = [RunFolder(run)], AblationFolder(run).plan.is_file()
    if is_series:
        from hsi_se.workflows.pool import find_draws

        folders = find_draws(run)
    if not folders or len({folder.path.parent for folder in folders}) > 1:
        reason = "`hsi-se ablate` and `hsi-se train --seeds` evaluate each run themselves"
        remedy = f"show the results with `hsi-se report {run}`"
        raise RunError(f"{run}: is an ablation, or a config over seeds: {reason}; {remedy}")
    folder = RunFolder.open(folders[0], pooled=True) if not folders[0].folds else folders[0]

    from hsi_se.cli.tables import print_assessment, print_draws
    from hsi_se.workflows.evaluate import assess_run

    with start_session(data=data, device=device, log=log) as session:
        assessments = [assess_run(each, session=session) for each in folders]
    print_assessment(assessments[0], folder)
    print_draws(assessments)
    print(f"map:    {folder.map_figure}")
    print(f"page:   {folder.page}")
    print(f"report: {folder.report_text}")
    if is_series:
        from hsi_se.ablation.run import report_draws

        print(f"draws:  {report_draws(AblationFolder(run), folders).report_text}")


def split(
    config: usage.ConfigPath,
    overrides: usage.Overrides = None,
    data: usage.DataFolder = None,
    out: Annotated[
        list[Path] | None,
        usage.out_option(
            "File to write: the picture (.png, .pdf, .svg), the audit (.json) or the partition map or fold numbers "
            "(.mat, .npz). Repeatable. By default the picture goes into runs/.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Draw the split of CONFIG and print its counts, leakage and location floor. Trains nothing."""
    from hsi_se.cli.tables import print_audit
    from hsi_se.config.yaml_file import load_config
    from hsi_se.reports.figures import describe_sides, save_values
    from hsi_se.runs.report import SplitReport
    from hsi_se.sampling.masks import PARTITIONS, write_partition
    from hsi_se.sampling.splits import number_pixels
    from hsi_se.system.files import replacing
    from hsi_se.workflows.preview import audit_config
    from hsi_se.workflows.train import RUNS

    endings = (*_PICTURES, ".json", *PARTITIONS)
    for path in out or []:
        if path.is_dir() or path.suffix.casefold() not in endings:
            raise ConfigError(f"--out {path}: name a file that ends in {', '.join(endings)}")
    settings = load_config(config, overrides or [])
    truth, audit, splits = audit_config(settings, data=data)
    sides, title = number_pixels(splits, truth.shape), f"{truth.name}: {settings.split.kind} split"
    written = out or [RUNS / f"{settings.name or 'config'}-split-{audit.digest[:8]}.png"]
    for path in written:
        ending = path.suffix.casefold()
        if ending in _PICTURES:
            save_values(sides, describe_sides(sides, num_folds=len(audit.folds)), path, title=title)
            continue
        with replacing(path) as draft:
            if ending == ".json":
                draft.write_text(f"{SplitReport.of_split(audit).model_dump_json(indent=2)}\n", encoding="utf-8")
            else:
                write_partition(sides, draft)
    print_audit(audit)
    for path in written:
        print(f"wrote:  {path}")


def gap(
    config: usage.ConfigPath,
    overrides: usage.Overrides = None,
    data: usage.DataFolder = None,
    out: Annotated[Path | None, usage.out_option("Folder for the runs. By default below runs/.")] = None,
    log: usage.Log = None,
    device: usage.Device = "auto",
) -> None:
    """Train CONFIG's network on spatial folds and on a random split of the same size; print the gap."""
    from hsi_se.config.yaml_file import load_config

    settings = load_config(config, overrides or [])

    from hsi_se.cli.tables import print_gap
    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows.gap import measure_gap

    with start_session(data=data, device=device, log=log) as session:
        found = measure_gap(settings, out=out, session=session)
    print_gap(found)


def map_scene(
    run: usage.RunPath,
    scene: usage.Scene = None,
    overrides: usage.SceneOverrides = None,
    out: Annotated[
        Path | None, usage.out_option("Folder to write. By default RUN/map, or RUN/map-NAME with --scene.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write each class's probability, and the entropy.")
    ] = False,
    min_probability: Annotated[
        float | None,
        typer.Option("--min-probability", metavar="P", help="Leave pixels unclassified below this probability."),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option("--mask", metavar="FILE", help="Map only inside these polygons, or where a raster is not 0."),
    ] = None,
    polygons: Annotated[
        Path | None,
        typer.Option("--polygons", metavar="FILE", help="Also write the classes as polygons (.gpkg, .geojson, .shp)."),
    ] = None,
    stac: Annotated[bool, typer.Option("--stac", help="Also write a STAC item.")] = False,
    engine: Annotated[
        str, usage.choose("--engine", "dense", "patches", help="patches computes the same map patch by patch, slowly.")
    ] = "dense",
    scheduler: usage.Scheduler = None,
    data: usage.DataFolder = None,
    device: usage.Device = "auto",
) -> None:
    """Map a whole scene with the classifier of RUN, as Cloud-Optimised GeoTIFF, ENVI and PNG.

    Can be interrupted and resumed with the same command.
    """
    from hsi_se.runs.folder import RunFolder

    folder = RunFolder.open(run)

    from hsi_se.cli.terminal import start_session
    from hsi_se.maps import write as cartography

    with start_session(data=data, device=device) as session:
        written = cartography.write_map(
            folder,
            scene=scene,
            overrides=overrides or [],
            out=out,
            probabilities=probabilities,
            min_probability=min_probability,
            mask=mask,
            polygons=polygons,
            stac=stac,
            engine=cast(Literal["dense", "patches"], engine),
            scheduler=scheduler,
            session=session,
        )
    for path in (*written, *([] if polygons is None else [polygons])):
        print(f"wrote:  {path}")


def export(
    run: usage.RunPath,
    file_format: Annotated[str, usage.choose("--format", "onnx", "torch", help="ONNX, or a torch.export program.")],
    out: Annotated[
        Path | None, usage.out_option("File to write. By default RUN/model.onnx or RUN/model.pt2.", metavar="FILE")
    ] = None,
) -> None:
    """Write RUN's network, including its reduction, as one file for other runtimes."""
    from hsi_se.runs.folder import RunFolder

    folder = RunFolder.open(run)

    from hsi_se.workflows import export as exporting

    print(f"wrote:  {exporting.export(folder, file_format=file_format, out=out)}")
