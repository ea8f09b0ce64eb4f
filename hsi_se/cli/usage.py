"""The form that commands have in common: their help, the options that several share, and mistakes in their words."""

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from hsi_se.config.nearest import did_you_mean, find_nearest, find_setting, read_other_words
from hsi_se.errors import ConfigError
from hsi_se.scene.folders import Folders

# Every mistake in the words of a command is of this class; typer has no public name for it.
UsageError: Any = typer.BadParameter.__base__


class _Form:
    """Help that names the kind of a value by its placeholder alone; mistakes that know their command."""

    def get_params(self, ctx: Any) -> Any:
        parameters = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""  # in place of <bool>
            elif parameter.param_type_name == "argument":
                parameter.display_type_rich = lambda ctx: None  # noqa: ARG005 - in place of <path>
        return parameters

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [re.sub(r"[{}]", "", piece) for piece in pieces]

    def parse_args(self, ctx: Any, args: Any) -> Any:
        try:
            if args and not ctx.resilient_parsing:
                self._refuse_repetition(ctx, list(args))
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def _refuse_repetition(self, ctx: Any, words: list[str]) -> None:
        """Refuses an option that repeats or replaces an earlier one, which would have no effect."""
        values, _, given = self.make_parser(ctx).parse_args(args=words)  # type: ignore[attr-defined]
        for option in (each for each in given if each.param_type_name == "option"):
            found = values[option.name] if option.multiple else []
            if len({*found}) < len(found) or (not option.multiple and given.count(option) > 1):
                raise ConfigError(f"{max(option.opts, key=len)}: is given twice; leave one of them out")


class Command(_Form, TyperCommand):
    """A command."""


class Group(_Form, TyperGroup):
    """A group of commands that lists the groups in it first."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: not hasattr(self.commands[name], "commands"))


def check_words(words: Sequence[str]) -> None:
    """Raises ConfigError where a word is empty, or is not UTF-8, which not every library beneath can open."""
    for before, word in zip(["", *words], words, strict=False):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{word!a}: is not UTF-8 text; rename the file or folder") from None
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if equals and not value.strip():
            name = f"{option}:" if option.startswith("--") else "an argument"
            raise ConfigError(f"{name} is empty; give it a value or leave it out")


def describe_mistake(error: Any) -> str:
    """Returns a mistake in the words of a command as one line: what is wrong, and what was meant."""
    context = getattr(error, "ctx", None)
    command = "hsi-se" if context is None else context.command_path
    message = " ".join(error.format_message().split())
    hint = ""
    name = getattr(error, "option_name", None)
    if name is not None and hasattr(error, "possibilities"):
        message, hint = f"unknown option {name}", _find_option(name, context)
    elif name is not None and context is not None and "requires" in message:
        parameter = next(each for each in context.command.params if name in each.opts)
        message = f"{name} needs a value: {parameter.metavar}"
    elif (unknown := re.match(r"No such command '(.*?)'", message)) is not None:
        message, hint = f"unknown command '{unknown[1]}'", _find_command(unknown[1], context)
    elif (extra := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message)) is not None:
        message = f"unexpected argument {extra[1]}"
    message = re.sub(r"(: )?Input should be a valid (integer|number).*", r": write a whole number", message)
    message = f"{message[0].lower()}{message[1:]}".rstrip(".")
    hint = hint and f"did you mean `{hint}`? "
    return f"{command}: {message}; {hint}see `{command} --help`"


def _find_option(name: str, context: Any) -> str:
    options = [option for parameter in context.command.params for option in parameter.opts if option[0] == "-"]
    near = find_nearest(name.lstrip("-"), [option.lstrip("-") for option in options])
    if near is not None:
        return f"--{near}"
    if name == "--resume":
        return "hsi-se resume RUN"
    usual = read_other_words()["options"].get(name, "")
    if usual.partition(" ")[0] in options:
        return usual
    if "--set" in options:
        from hsi_se.config.experiment import Config
        from hsi_se.config.yaml_file import list_settings

        setting = find_setting(name.lstrip("-").replace("-", "_"), list_settings(Config))
        return "" if setting is None else f"--set {setting}=…"
    return ""


def _find_command(name: str, context: Any) -> str:
    """Returns the nearest command, also one of a group's."""
    found = {}
    for first, command in context.command.commands.items():
        found[first] = f"{context.command_path} {first}"
        for second in getattr(command, "commands", {}):
            found.setdefault(second, f"{context.command_path} {first} {second}")
    near = find_nearest(name, list(found))
    return "" if near is None else found[near]


def choose(option: str, *choices: str, help: str) -> Any:
    """Declares an option that takes one of some values."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise ConfigError(f"{option} {value}: {did_you_mean(value, choices)}choose from {', '.join(choices)}")
        return value

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return typer.Option(option, metavar=f"[{'|'.join(choices)}]", help=help, callback=check, autocompletion=complete)


def _check_data(folder: Path | None) -> Path | None:
    Folders.of(folder)
    return folder


def out_option(help: str, *, metavar: str = "DIR") -> Any:
    """Declares `--out DIR`, or `--out FILE`."""
    return typer.Option("--out", metavar=metavar, help=help)


def _check_overrides(overrides: list[str] | None) -> list[str] | None:
    """Refuses an override that a later one replaces."""
    keys = [override.partition("=")[0].strip().split(".") for override in overrides or []]
    for (first, key), (second, later) in itertools.combinations(zip(overrides or [], keys, strict=True), 2):
        if key[: len(later)] == later:
            raise ConfigError(f"--set {first}: is replaced by --set {second}; leave one of them out")
    return overrides


def _change(metavar: str, *, help: str) -> Any:
    return typer.Option("--set", metavar=metavar, help=help, callback=_check_overrides)


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE", envvar="HSI_SE_PLUGIN", show_envvar=False,
        help="Load attention blocks and networks from this Python file. Repeatable.",
    ),
]  # fmt: skip


def take_plugins(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the option `--plugin` to a command, whose files are loaded before it is called."""

    @functools.wraps(command)
    def call(*arguments: Any, plugin: list[Path] | None, **others: Any) -> None:
        for file in plugin or []:
            from hsi_se.config.registry import load_plugin

            load_plugin(file)
        command(*arguments, **others)

    signature = inspect.signature(command)
    option = inspect.Parameter("plugin", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Plugins)
    call.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    call.__annotations__ = {**command.__annotations__, "plugin": Plugins}
    return call


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
Device = Annotated[
    str, choose("--device", "auto", "cpu", "cuda", help="Device to compute on; auto is the GPU, if any.")
]
Log = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="TOOL[:DIR]", help="Also log to tensorboard, wandb or mlflow. Repeatable."),
]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Start a Dask cluster of N processes on this machine.")]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Spread the work over this Dask cluster.")
]
