"""The report page and its pictures; `hsi_se.report(run)` is a call of this package."""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """The package `hsi_se.report`, which once imported hides the function of the same name, and so stands for it."""

    def __call__(self, run: Any) -> Any:
        return importlib.import_module("hsi_se.api").report(run)


sys.modules[__name__].__class__ = _Callable
