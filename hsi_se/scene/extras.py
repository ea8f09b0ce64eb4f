"""Libraries that only some files need."""

import importlib
from pathlib import Path
from typing import Any

from hsi_se.errors import SceneError


def import_extra(name: str, *, path: Path) -> Any:
    """Returns a module of the extra `[geo]`.

    Raises:
        SceneError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SceneError(f"{path}: reading it needs {name}; pip install 'hsi-se[geo]'") from None
