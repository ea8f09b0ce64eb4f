"""The plugin of the documentation, and a registry that forgets what a test has registered."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hsi_se.config.model import Block, Model
from hsi_se.config.registry import import_own
from tests.conftest import ROOT
from tests.docs.pages import list_blocks, read

PAGE = read(ROOT / "docs" / "own-networks.md")
SOURCE = list_blocks(PAGE, "python")[0]


@contextmanager
def forgetting() -> Iterator[None]:
    """Forgets, at the end, the blocks and networks that were registered inside."""
    registries = Block.registry, Model.registry
    import_own()
    for registry in registries:
        vars(registry).pop("_entry_points", None)
    before = [dict(registry._entries) for registry in registries]
    try:
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry._entries.clear()
            registry._entries.update(entries)
            for cached in ("_adapter", "_entry_points"):
                vars(registry).pop(cached, None)
        for name in [name for name in sys.modules if name.startswith("hsi_se_plugin_")]:
            del sys.modules[name]
