"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML config, such as configs/demo.yaml.")
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `hsi-se train` prints it.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="a.b=c", help="Change a setting: any dotted key, any YAML value. Repeatable."
    ),
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Where scenes are looked for before datasets/.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


RunOption = Annotated[
    Path | None,
    typer.Option("--run", metavar="DIR", help="The run folder. Unless given: runs/DATE-NAME-DIGEST."),
]
