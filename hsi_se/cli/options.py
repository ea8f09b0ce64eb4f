"""Arguments and options that several commands share, each declared once."""

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from hsi_se.config.nearest import did_you_mean
from hsi_se.errors import ConfigError
from hsi_se.scene.folders import Folders


def choose(option: str, *choices: str, help: str) -> Any:
    """Declares an option that takes one of some values."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            hint = did_you_mean(value, choices)
            raise ConfigError(f"{option} {value}: {hint}choose from {', '.join(choices)}")
        return value

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    metavar = f"[{'|'.join(choices)}]"
    return typer.Option(option, metavar=metavar, help=help, callback=check, autocompletion=complete)


def _check_data(folder: Path | None) -> Path | None:
    Folders.of(folder)
    return folder


def out_folder(help: str) -> Any:
    """Declares `--out DIR`."""
    return typer.Option("--out", metavar="DIR", help=help)


def _check_overrides(overrides: list[str] | None) -> list[str] | None:
    """Refuses an override that a later one replaces."""
    keys = [override.partition("=")[0].strip().split(".") for override in overrides or []]
    for (first, key), (second, later) in itertools.combinations(zip(overrides or [], keys, strict=True), 2):
        if key[: len(later)] == later:
            raise ConfigError(f"--set {first}: is replaced by --set {second}; leave one of them out")
    return overrides


def _change(metavar: str, *, help: str) -> Any:
    return typer.Option("--set", metavar=metavar, help=help, callback=_check_overrides)


ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML config, such as configs/demo.yaml.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as printed by `hsi-se train`.")]
RunOrAblation = Annotated[Path, typer.Argument(metavar="RUN|ABLATION", help="The folder of a run or of an ablation.")]
Overrides = Annotated[list[str] | None, _change("a.b=c", help="Change a setting: dotted key, YAML value. Repeatable.")]
SceneOverrides = Annotated[
    list[str] | None, _change("scene.b=c", help="Change a setting of the scene: scene.scale=10000. Repeatable.")
]
Scene = Annotated[
    str | None,
    typer.Option(
        "--scene", metavar="SCENE", help="Another scene: a known name, a config, a file, or {cube: FILE, labels: FILE}."
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Search this folder for scenes before datasets/.", callback=_check_data),
]
RunOut = Annotated[Path | None, out_folder("Run folder to write. By default runs/DATE-NAME-DIGEST.")]
Device = Annotated[
    str, choose("--device", "auto", "cpu", "cuda", help="Device to compute on; auto is the GPU, if any.")
]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Start a Dask cluster of N processes on this machine.")]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Spread the work over this Dask cluster.")
]
