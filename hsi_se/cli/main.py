"""The commands: parse, call one function, print. A user's mistake is one line and exit code 2.

Whatever needs torch is imported inside the command that needs it, so that `--help` answers at once.
"""

import atexit
import codecs
import errno
import gc
import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from hsi_se.cli.evaluate import evaluate, export, gap, map_scene, split
from hsi_se.cli.look import explain, info, report, schema, watch
from hsi_se.cli.scene import app as scene_app
from hsi_se.cli.train import ablate, quickstart, resume, train, tune
from hsi_se.cli.usage import Command, Group, UsageError, check_words, describe_mistake, take_plugins
from hsi_se.errors import HsiError, Interrupted
from hsi_se.system.processes import is_first, listening
from hsi_se.version import __version__

app = typer.Typer(
    name="hsi-se",
    cls=Group,
    help="Hyperspectral image classification with HybridSN and attention.",
    epilog="Example: hsi-se train configs/demo.yaml --out runs/demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(scene_app, name="scene", rich_help_panel="Data")
for _panel, _name, _function, _example in (
    ("Data", "split", split, "split configs/demo.yaml --out split.png --out split.mat"),
    ("Train", "quickstart", quickstart, "quickstart cube.tif labels.tif --out runs/first"),
    ("Train", "train", train, "train configs/demo.yaml --set train.epochs=5 --out runs/demo"),
    ("Train", "resume", resume, "resume runs/demo"),
    ("Train", "eval", evaluate, "eval runs/demo"),
    ("Train", "gap", gap, "gap configs/demo.yaml --out runs/demo-gap"),
    ("Look", "info", info, "info configs/demo.yaml --set model.order=2d-3d"),
    ("Look", "report", report, "report runs/demo --figures pdf"),
    ("Look", "watch", watch, "watch runs/demo"),
    ("Look", "explain", explain, "explain runs/demo"),
    ("Look", "schema", schema, "schema > hsi-se.schema.json"),
    ("Compare", "ablate", ablate, "ablate configs/ablations/placement.yaml --workers 2"),
    ("Compare", "tune", tune, "tune configs/studies/demo.yaml --workers 2"),
    ("Deliver", "map", map_scene, "map runs/demo --scene field.img --set scene.scale=10000"),
    ("Deliver", "export", export, "export runs/demo --format onnx"),
):
    app.command(_name, cls=Command, rich_help_panel=_panel, epilog=f"Example: hsi-se {_example}")(
        take_plugins(_function)
    )
_PROBLEMS: dict[type[OSError], str] = {
    FileExistsError: "already exists",
    FileNotFoundError: "does not exist",
    IsADirectoryError: "is a folder",
    NotADirectoryError: "is inside a file",
    PermissionError: "may not be opened",
}
_INTERRUPTED = 130
_RERUN = "interrupted; rerun the same command to resume (finished work is kept)"
_OBJECTS_BETWEEN_COLLECTIONS = 50_000  # 700 unless set
# What torch says in a RuntimeError where memory, or numbers for it, do not suffice.
_TOO_LARGE = ("memory", "Storage size")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"hsi-se {__version__}")
        raise typer.Exit


@app.callback()
def _take_options_of_all_commands(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 2 the user's mistake, 1 ours, 130 or 143 interrupted."""
    # Importing torch creates many objects and no garbage. Looking for garbage among them, meanwhile and when
    # the process ends, costs a third of the CPU time of a short command.
    _prepare_streams()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 100)
    atexit.register(gc.freeze)
    try:
        with listening(signal.SIGTERM) as stop, stop.at_once(_RERUN):
            check_words(sys.argv[1:])
            code = app(prog_name="hsi-se", standalone_mode=False)
            if code == _INTERRUPTED:  # typer has caught a Ctrl-C
                raise KeyboardInterrupt
            sys.stdout.flush()
        sys.exit(code or 0)
    except UsageError as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
            print(context.get_help(), file=sys.stderr)
            sys.exit(2)
        _fail(describe_mistake(error))
    except HsiError as error:
        _fail(f"hsi-se: {' '.join(str(error).splitlines())}")
    except OSError as error:
        from hsi_se.system.files import DISK_IS_FULL

        if error.filename is None and error.errno not in (*DISK_IS_FULL, errno.EIO, errno.EPIPE):
            raise
        # The target, if a file was moved.
        path = error.filename2 or error.filename or "standard output, or a temporary file"
        if error.filename is None:
            # Let what the stream still holds go nowhere, or Python would fail to write it once more at its end.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = _PROBLEMS.get(type(error), error.strerror)
        _fail(f"hsi-se: {path}: {problem}; check the path, its permissions and the free disk space")
    except (MemoryError, RuntimeError) as error:
        what = next(iter(str(error).splitlines()), "")
        if isinstance(error, RuntimeError) and not any(words in what for words in _TOO_LARGE):
            raise
        _fail(f"hsi-se: out of memory{what and f' ({what})'}; use a smaller scene, patch or batch")
    except Interrupted as end:
        _fail(f"hsi-se: {end}", code=end.exit_code)
    except KeyboardInterrupt:
        _fail(f"hsi-se: {_RERUN}", code=_INTERRUPTED)


def _fail(message: str, *, code: int = 2) -> None:
    from hsi_se.cli.terminal import say

    if is_first():  # of several processes, one prints
        with suppress(OSError):  # standard error is full or closed
            say(message, to_stderr=True)
    sys.exit(code)


def _prepare_streams() -> None:
    """Makes letters that a stream cannot encode similar ones, and a closed stream one that takes everything."""
    codecs.register_error("similar", _write_similar)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - stays open
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="similar")


def _write_similar(error: UnicodeError) -> tuple[str, int]:
    from anyascii import anyascii

    assert isinstance(error, UnicodeEncodeError)
    return anyascii(error.object[error.start : error.end]) or "?", error.end
