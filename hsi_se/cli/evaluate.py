"""`hsi-se eval`, `gap` and `split`."""

from pathlib import Path
from typing import Annotated

import typer

from hsi_se.cli.options import ConfigPath, DataFolder, Device, Overrides, RunOption, RunPath
from hsi_se.errors import ConfigError, RunError

_PICTURES = (".png", ".pdf", ".svg")


def evaluate(
    run: RunPath,
    data: DataFolder = None,
    device: Device = "auto",
    scene: Annotated[
        str | None,
        typer.Option(
            metavar="SCENE",
            help="Evaluate on another scene: a known name, a config, a file, or {cube: FILE, labels: FILE}.",
        ),
    ] = None,
) -> None:
    """Print the accuracies of RUN beside the location floor; write its reports and maps."""
    from hsi_se.ablation.record import AblationFolder
    from hsi_se.runs.folder import RunFolder

    if scene is not None:
        from hsi_se.cli.tables import print_cross_scene
        from hsi_se.cli.terminal import start_session
        from hsi_se.workflows.cross_scene import evaluate_on, parse_scene

        with start_session(data=data, device=device) as session:
            found = evaluate_on(run, parse_scene(scene), session=session)
        print_cross_scene(found)
        return

    if AblationFolder(run).plan.is_file():
        raise RunError(
            f"{run}: is an ablation, or a config over seeds: `hsi-se ablate` and `hsi-se train --seeds` "
            f"evaluate each run themselves; show the results with `hsi-se report {run}`"
        )
    folder = RunFolder.open(run)

    from hsi_se.cli.tables import print_assessment
    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows.evaluate import assess_run

    with start_session(data=data, device=device) as session:
        assessment = assess_run(folder, session=session)
    print_assessment(assessment)
    print(f"maps:   {folder.map_figure}, {folder.labelled_map_figure}")
    print(f"page:   {folder.page}")
    print(f"report: {folder.report_text}")


def split(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    png: Annotated[
        Path | None,
        typer.Option("--png", metavar="FILE", help="The picture. Unless given: in runs/."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the audit, with the keys of report.json."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the partition map as .mat or .npz, as split.partition reads it."
        ),
    ] = None,
) -> None:
    """Draw the split of CONFIG and print what it gives away; trains nothing and needs no cube."""
    import json

    from hsi_se.cli.tables import print_audit
    from hsi_se.config.yaml_file import load_config
    from hsi_se.report.figures import save_split
    from hsi_se.sampling.masks import PARTITIONS, write_partition
    from hsi_se.system.files import replacing
    from hsi_se.workflows.preview import audit_config
    from hsi_se.workflows.train import RUNS

    for option, path, endings in (("--png", png, _PICTURES), ("--export", export, PARTITIONS)):
        if path is not None and (path.is_dir() or path.suffix.casefold() not in endings):
            raise ConfigError(f"{option} {path}: name a file that ends in {', '.join(endings)}")
    settings = load_config(config, overrides or [])
    truth, audit = audit_config(settings, data=data)
    sides = audit.split.to_sides(truth.shape)
    if export is not None:
        with replacing(export) as draft:
            write_partition(sides, draft)
    if json_file is not None:
        with replacing(json_file) as draft:
            draft.write_text(
                json.dumps(audit.values(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
    picture = png or RUNS / f"{settings.name or 'config'}-split-{audit.split.digest[:8]}.png"
    save_split(sides, picture, title=f"{truth.name}: {settings.split.kind} split")
    print_audit(audit)
    for path in (picture, json_file, export):
        if path is not None:
            print(f"wrote:  {path}")


def gap(
    config: ConfigPath,
    overrides: Overrides = None,
    data: DataFolder = None,
    run: RunOption = None,
    device: Device = "auto",
) -> None:
    """Train CONFIG's network on a random and on a blocks split of one size; print the gap."""
    from hsi_se.config.yaml_file import load_config

    settings = load_config(config, overrides or [])

    from hsi_se.cli.tables import print_gap
    from hsi_se.cli.terminal import start_session
    from hsi_se.workflows.gap import measure_gap

    with start_session(data=data, device=device) as session:
        found = measure_gap(settings, out=run, session=session)
    print_gap(found)
    print(f"runs:   {found.folder}")
