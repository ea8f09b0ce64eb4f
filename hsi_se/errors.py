"""The mistakes a user can make; each message names the setting or file, its value and the remedy."""


class HsiError(Exception):
    """A mistake of the user's: the command line prints it as one line and exits with code 2."""


class ConfigError(HsiError):
    """A setting is unknown, of the wrong kind, or does not fit the others."""


class SceneError(HsiError):
    """A scene cannot be found, read or used."""


class SplitError(HsiError):
    """The labelled pixels cannot be divided as asked."""


class RunError(HsiError):
    """A run folder is missing, incomplete, foreign, or in the way."""


class TrainingError(HsiError):
    """The settings do not train: the loss is no longer a number, or the device is not there."""


class DivergedError(TrainingError):
    """The loss or a weight is no longer a number: nothing of the training is worth going on with."""


class ClusterError(HsiError):
    """The machines that should share the work cannot be reached, or do not finish it."""


class Interrupted(BaseException):
    """A signal asked for an end; all state needed to resume has been saved, and the message says how.

    It is not a `KeyboardInterrupt`, which typer would swallow, and `except Exception` does not catch it.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
