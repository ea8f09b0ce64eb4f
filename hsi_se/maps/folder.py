"""The folder of a map: the names of its files, the draft they are made in, and how they are published."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hsi_se.errors import RunError
from hsi_se.system.files import sync_folder
from hsi_se.system.folder import Folder
from hsi_se.system.locks import hold

_PUBLISHED = "published "  # in a journal, before names


class MapFolder(Folder):
    """A folder with the map of a scene in every format that it could be written in."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.facts = self.path / "map.json"
        self.image = self.path / "map.img"
        self.header = self.path / "map.hdr"
        self.geotiff = self.path / "map.tif"
        self.geotiff_facts = self.path / "map.tif.aux.xml"
        self.figure = self.path / "map.png"
        self.probabilities = self.path / "probabilities.img"
        self.entropy = self.path / "entropy.img"
        self.journal = self.path / "journal"  # of a draft alone

    def refuse_other(self, scene: Path) -> None:
        """Proves that no map of another scene's file would be replaced by one of `scene`.

        Raises:
            RunError: it would.
        """
        try:
            mapped = Path(json.loads(self.facts.read_text(encoding="utf-8"))["scene"])
        except (OSError, KeyError, TypeError, ValueError):
            return
        if mapped != scene.resolve():
            raise RunError(f"{self}: holds the map of {mapped}; name another folder with --out DIR")

    def list_files(self) -> list[Path]:
        """Every file that a map may have, in the order of their appearance: a header comes after its data."""
        floats = [
            layer.with_suffix(ending)
            for layer in (self.probabilities, self.entropy)
            for ending in (".img", ".hdr", ".tif")
        ]
        labels = [self.image, self.header, self.geotiff, self.geotiff_facts, self.figure]
        return [*floats, *labels, self.facts]

    def log(self, line: str) -> None:
        """Adds a line to the journal; it is on the disk afterwards."""
        with self.journal.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())

    @contextmanager
    def open_draft(self) -> Iterator["MapFolder"]:
        """Yields the hidden folder in which the map is made, so that a later start finds what is done.

        Raises:
            RunError: another process makes a map here, a file that no map wrote is in the way, or the disk
                takes no more; what is done stays.
        """
        with hold(self.path, "making a map"):
            draft = MapFolder(self.path / ".unfinished")
            if not self.facts.is_file() and not draft.path.is_dir():
                for path in self.list_files():
                    if path.exists():
                        raise RunError(
                            f"{path}: exists and is of no finished map; name another folder with --out DIR"
                        )
            draft.path.mkdir(exist_ok=True)
            try:
                yield draft
            except OSError as error:
                if error.errno is None:  # of a network, not of a file
                    raise
                raise RunError(
                    f"{error.filename or draft.path}: {error.strerror}; check its rights and the room on the "
                    "disk, and the same command goes on with what is done"
                ) from None

    def publish(self, draft: "MapFolder") -> list[Path]:
        """Moves the files of a finished draft here, in place of all of an earlier map; returns them.

        The draft's journal names them first, so that a later start can finish the moves.
        """
        made = draft.list_published()
        if not made:
            made = [path.name for path in draft.list_files() if path.exists()]
            for name in made:
                with (draft.path / name).open("rb") as stream:
                    os.fsync(stream.fileno())
            draft.log(_PUBLISHED + json.dumps(made))
        self.facts.unlink(missing_ok=True)
        for path in self.list_files():
            if path.name not in made:
                path.unlink(missing_ok=True)
        for name in made:
            if (draft.path / name).exists():
                (draft.path / name).replace(self.path / name)
        sync_folder(self.path)
        shutil.rmtree(draft.path)
        return [self.path / name for name in made]

    def read_journal(self) -> tuple[dict[str, Any], list[str]]:
        """Returns what a draft says that it is of, and its other lines; nothing of what is no journal."""
        try:
            head, *lines = self.journal.read_text(encoding="utf-8").splitlines()
            return dict(json.loads(head)), lines
        except (FileNotFoundError, TypeError, ValueError):
            return {}, []

    def list_published(self) -> list[str]:
        """Returns the names of the files that a draft was about to give away; none before it is complete."""
        _, lines = self.read_journal()
        with suppress(ValueError):
            if lines and lines[-1].startswith(_PUBLISHED):
                return [str(name) for name in json.loads(lines[-1].removeprefix(_PUBLISHED))]
        return []
