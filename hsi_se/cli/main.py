"""The commands: parse, call one function, print. A user's mistake is one line and exit code 2.

Whatever needs torch is imported inside the command that needs it, so that `--help` answers at once.
"""

import atexit
import gc
import sys
from collections.abc import Iterable
from typing import Any

import typer

from hsi_se.cli.ablate import ablate
from hsi_se.cli.evaluate import evaluate, gap, split
from hsi_se.cli.explain import explain
from hsi_se.cli.info import info, schema
from hsi_se.cli.maps import export, map_scene
from hsi_se.cli.report import report, watch
from hsi_se.cli.scene import app as scene_app
from hsi_se.cli.train import train
from hsi_se.errors import ConfigError, HsiError, Interrupted
from hsi_se.system.processes import is_first

app = typer.Typer(
    name="hsi-se",
    help="Hyperspectral image classification with HybridSN and attention.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(scene_app, name="scene")
app.command()(split)
app.command()(train)
app.command(name="eval")(evaluate)
app.command()(gap)
app.command()(info)
app.command()(report)
app.command()(watch)
app.command()(explain)
app.command()(ablate)
app.command(name="map")(map_scene)
app.command()(export)
app.command()(schema)
# Of every mistake in the words of a command; typer has no public name for it.
_UsageError: Any = typer.BadParameter.__base__
_INTERRUPTED = 130
_OBJECTS_BETWEEN_COLLECTIONS = 50_000  # 700 unless set


def _refuse_bytes(words: Iterable[str]) -> None:
    """Raises ConfigError for a word that is no UTF-8: not every library beneath opens such files."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{word!a}: is no text in UTF-8; rename the file or folder") from None


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 2 the user's mistake, 1 ours, 130 or 143 interrupted."""
    # Importing torch creates many objects and no garbage. Looking for garbage among them, meanwhile and when
    # the process ends, costs a third of the CPU time of a short command.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 100)
    atexit.register(gc.freeze)
    try:
        _refuse_bytes(sys.argv)
        code = app(prog_name="hsi-se", standalone_mode=False)
        if code == _INTERRUPTED:  # a Ctrl-C that typer has taken
            raise KeyboardInterrupt
        sys.exit(code or 0)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        if context is not None and len(sys.argv) == 1:
            print(context.get_help(), file=sys.stderr)
        else:
            command = "hsi-se" if context is None else context.command_path
            message = " ".join(error.format_message().split()).rstrip(".")
            print(f"{command}: {message}; see `{command} --help`", file=sys.stderr)
        sys.exit(2)
    except HsiError as error:
        if is_first():  # of several processes, one speaks
            print("hsi-se:", *str(error).splitlines(), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        path = error.filename2 or error.filename  # of a move, where to
        message = f"{path}: {error.strerror}; check the path, its rights and the room on the disk"
        print(f"hsi-se: {message}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        what = next(iter(str(error).splitlines()), "") or "no more is to be had"
        if isinstance(error, RuntimeError) and "memory" not in what:  # torch's own kind of MemoryError
            raise
        print(f"hsi-se: not enough memory ({what}); take a smaller scene, patch or batch", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        if is_first():
            print(f"hsi-se: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        print("hsi-se: interrupted; the same command goes on with what is finished", file=sys.stderr)
        sys.exit(_INTERRUPTED)
