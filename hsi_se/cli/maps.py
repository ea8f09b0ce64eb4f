"""`hsi-se map` and `hsi-se export`."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from hsi_se.cli.options import DataFolder, Device, RunPath, Scene, SceneOverrides, Scheduler, choose, out_folder


def map_scene(
    run: RunPath,
    scene: Scene = None,
    overrides: SceneOverrides = None,
    out: Annotated[
        Path | None, out_folder("Folder to write. By default RUN/map, or RUN/map-NAME with --scene.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write each class's probability, and the entropy.")
    ] = False,
    engine: Annotated[
        str, choose("--engine", "dense", "patches", help="patches computes the same map patch by patch, slowly.")
    ] = "dense",
    scheduler: Scheduler = None,
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Map a whole scene with the classifier of RUN, as ENVI, GeoTIFF and PNG.

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
            engine=cast(Literal["dense", "patches"], engine),
            scheduler=scheduler,
            session=session,
        )
    for path in written:
        print(f"wrote:  {path}")


def export(
    run: RunPath,
    file_format: Annotated[str, choose("--format", "onnx", "torch", help="ONNX, or a torch.export program.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write. By default RUN/model.onnx or RUN/model.pt2."),
    ] = None,
) -> None:
    """Write RUN's network, including its reduction, as one file for other runtimes."""
    from hsi_se.runs.folder import RunFolder

    folder = RunFolder.open(run)

    from hsi_se.workflows import export as exporting

    print(f"wrote:  {exporting.export(folder, file_format=file_format, out=out)}")
