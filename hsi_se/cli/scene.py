"""The commands of `hsi-se scene`: look into scene files, and list, show or download known scenes."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hsi_se.cli.usage import Command, DataFolder, Group, SceneOverrides, out_option

if TYPE_CHECKING:
    from hsi_se.workflows.inspect_scene import Survey

app = typer.Typer(
    cls=Group,
    help="Look into scene files; list, show and download known scenes.",
    epilog="Example: hsi-se scene inspect cube.mat labels.mat --write-config my.yaml",
    no_args_is_help=True,
)

SceneName = Annotated[
    str, typer.Argument(metavar="NAME", help="A known scene: its name or an alias, see `hsi-se scene list`.")
]
_DATASETS = Path("datasets")


@app.command(cls=Command, epilog="Example: hsi-se scene inspect cube.mat labels.mat --write-config my.yaml")
def inspect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="A cube, a label map, or both, in any order.")],
    overrides: SceneOverrides = None,
    data: DataFolder = None,
    out: Annotated[Path | None, out_option("Folder for the pictures. By default runs/.")] = None,
    write_config: Annotated[
        Path | None,
        typer.Option("--write-config", metavar="FILE", help="Also write a config that trains on the files."),
    ] = None,
) -> None:
    """Print what is in one or two scene files; draw a quick look and the mean spectra of the classes."""
    from hsi_se.errors import RunError
    from hsi_se.system.files import replacing
    from hsi_se.workflows.inspect_scene import save_survey_figures, suggest_config, survey_files

    for path in files:
        if not path.exists():
            raise RunError(f"{path}: no such file; check the path")
    if write_config is not None and write_config.exists():
        raise RunError(f"--write-config {write_config}: already exists; name another file")
    survey = survey_files(files, overrides or [], data=data)
    config = None if write_config is None else suggest_config(survey)
    written = save_survey_figures(survey, out or Path("runs"))
    if out is not None and not written:
        raise RunError(f"--out {out}: has no effect without a cube, as nothing is drawn; leave it out")
    if write_config is not None and config is not None:
        with replacing(write_config) as draft:
            draft.write_text(config, encoding="utf-8")
        written.append(write_config)
    _print_survey(survey)
    for path in written:
        print(f"wrote:  {path}")


@app.command(name="list", cls=Command, epilog="Example: hsi-se scene list")
def list_scenes() -> None:
    """List the known scenes."""
    from rich.table import Table

    from hsi_se.cli.terminal import make_console, say
    from hsi_se.scene.catalogue import list_known_scenes

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("name", "scene", "rows × cols × bands", "classes", "m", "nm"):
        table.add_column(heading, justify="right" if heading in ("classes", "m") else "left", no_wrap=heading == "name")
    for known in list_known_scenes():
        name, span = known.name + " *" * bool(known.registration), "-".join(map(str, known.wavelengths_nm))
        size = " × ".join(map(str, known.shape))
        table.add_row(name, known.title, size, str(len(known.class_names)), f"{known.gsd_m:g}", span)
    make_console(width=80).print(table)
    say("* to be requested from its owners; get all others with `hsi-se scene fetch NAME`; sources: `scene show NAME`")


@app.command(cls=Command, epilog="Example: hsi-se scene show indian-pines")
def show(name: SceneName) -> None:
    """Print all known facts about the scene NAME: size, sensor, files, sources and classes."""
    from hsi_se.scene.fetch import list_sources
    from hsi_se.scene.loading import get_known
    from hsi_se.system.files import fill_template

    facts = {"known": get_known(name), "list_sources": list_sources, "folder": _DATASETS}
    print(fill_template("hsi_se.cli", "scene.txt", **facts), end="")


@app.command(cls=Command, epilog="Example: hsi-se scene fetch indian-pines")
def fetch(name: SceneName, out: Annotated[Path, out_option("Folder for the files.")] = _DATASETS) -> None:
    """Get the files of the scene NAME from the first of their sources, see `hsi-se scene show NAME`; check them."""
    from hsi_se.cli.terminal import say_notes, start_session
    from hsi_se.scene.fetch import fetch_scene
    from hsi_se.scene.folders import Folders
    from hsi_se.scene.loading import get_known, load_scene

    known = get_known(name)
    with start_session() as session:
        paths = fetch_scene(known, out, progress=session.observer)
    for path in paths:
        print(f"file:  {path}")
    scene = load_scene(known.name, Folders((out,), ()))
    print(f"scene: {scene.cube.shape} {scene.cube.dtype}, {(scene.labels > 0).sum():,} labelled pixels")
    say_notes(scene.notes)
    print(f"data:  {known.credit}")
    options = ["--set", f"scene={known.name}", *([] if out == _DATASETS else ["--data", str(out)])]
    print(f"next:  {shlex.join(['hsi-se', 'train', 'configs/demo.yaml', *options])}")


def _print_survey(survey: "Survey") -> None:
    from hsi_se.cli.terminal import print_table, say, say_notes
    from hsi_se.scene.labels import name_kind
    from hsi_se.system.files import fill_template
    from hsi_se.workflows.inspect_scene import suggest_names

    for path, held in survey.files:
        what = name_kind(path) if held is None else held.format
        print(f"{path}: {what}{f'; {held.listing}' if held and ', ' in held.listing else ''}")
    image, cube, truth = survey.image, survey.cube, survey.truth
    if image is not None and cube is not None:
        print(fill_template("hsi_se.cli", "cube.txt", image=image, cube=cube), end="")
        say_notes((*image.raster.notes, *cube.notes))
    if truth is not None:
        named = [*((str(label), name, label) for label, name in truth.class_names.items()), ("", "unlabelled", 0)]
        counts = [(text, name, f"{(truth.labels == label).sum():,}") for text, name, label in named]
        size = " × ".join(map(str, truth.shape))
        print_table(f"labels: {size} pixels", ("label", "class", "pixels"), counts, left=(1,))
        say_notes(truth.notes)
    if survey.likely is not None:
        say(f"note: {suggest_names(survey.likely)}, set scene.class_names: {survey.likely.name}")
