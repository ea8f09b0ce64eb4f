"""Exceptions for user mistakes. Each message names the setting or file, its value and the remedy."""


class HsiError(Exception):
    """Base class of user mistakes: the command line prints one line and exits with code 2, a notebook one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class ConfigError(HsiError):
    """A setting is unknown, has the wrong type, or conflicts with another setting."""


class SceneError(HsiError):
    """A scene is missing, unreadable or unusable."""


class SplitError(HsiError):
    """The labelled pixels cannot be split as requested."""


class RunError(HsiError):
    """A run folder is missing, incomplete, not written by hsi-se, or would be overwritten."""


class TrainingError(HsiError):
    """Training cannot start or continue with these settings, or on this device."""


class DivergedError(TrainingError):
    """The loss or a weight became NaN or infinite, so the training cannot be resumed."""


class ClusterError(HsiError):
    """The Dask cluster cannot be reached or did not finish its work."""


class Interrupted(BaseException):
    """A signal interrupted the work. All state needed to resume has been saved; the message says how.

    It is not a `KeyboardInterrupt`, which typer would end without a message, and not an `Exception`, so that
    `except Exception` does not catch it.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


def how_to_install(extra: str) -> str:
    """Returns the remedy where an extra is missing; the package is installed from a clone."""
    return f"in the clone of hsi-se, pip install '.[{extra}]'"
