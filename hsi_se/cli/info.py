"""`hsi-se info` and `schema`."""

from pathlib import Path
from typing import Annotated

import typer

from hsi_se.cli.options import DataFolder, Overrides
from hsi_se.errors import ConfigError


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
