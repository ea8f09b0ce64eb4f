"""`hsi-se map` and `hsi-se export`."""

from pathlib import Path
from typing import Annotated

import typer

from hsi_se.cli.options import DataFolder, Device, RunPath


def map_scene(
    run: RunPath,
    scene: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="Another scene: a file, or a known scene. Unless given: RUN's own."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="scene.b=c", help="A setting of the scene, such as scene.scale=10000."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder to write. Unless given: RUN/map, or RUN/map-NAME."),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write each class's probability, and the entropy.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="dense, or patches: the same map one patch at a time.")
    ] = "dense",
    scheduler: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:8786", help="A Dask cluster that takes the tiles.")
    ] = None,
    data: DataFolder = None,
    device: Device = "auto",
) -> None:
    """Map a whole scene with what RUN has learned: ENVI, GeoTIFF and PNG. Interrupted, it goes on later."""
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
            engine=cartography.parse_engine(engine),
            scheduler=scheduler,
            session=session,
        )
    for path in written:
        print(f"wrote:  {path}")


def export(
    run: RunPath,
    file_format: Annotated[str, typer.Option("--format", help="onnx or torch.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file. Unless given: RUN/model.onnx or RUN/model.pt2."),
    ] = None,
) -> None:
    """Write RUN's network, its reduction inside, as one file that other runtimes read."""
    from hsi_se.runs.folder import RunFolder

    folder = RunFolder.open(run)

    from hsi_se.workflows import export as exporting

    print(f"wrote:  {exporting.export(folder, file_format=file_format, out=out)}")
