"""The folder of a map: the names of its files, the draft in which they are made, and their publication."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hsi_se.errors import RunError
from hsi_se.system.files import Folder, sync_folder
from hsi_se.system.locks import hold

_PUBLISHED = "published "  # in a journal, before the names of files


class MapFolder(Folder):
    """A folder with the map of a scene, in every format that could be written."""

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
        self.journal = self.path / "journal"  # only in a draft

    def refuse_other(self, scene: Path) -> None:
        """Raises RunError if a map of `scene` would replace the map of another file."""
        try:
            mapped = Path(json.loads(self.facts.read_text(encoding="utf-8"))["scene"])
        except (OSError, KeyError, TypeError, ValueError):
            return
        if mapped != scene.resolve():
            raise RunError(f"{self}: contains the map of {mapped}; choose another folder with --out DIR")

    def list_files(self) -> list[Path]:
        """Returns every file that a map may have, in the order of writing: a header comes after its data."""
        layers = (self.probabilities, self.entropy, self.image)
        endings = (".img", ".hdr", ".tif", ".tif.aux.xml")
        return [*(layer.with_suffix(end) for layer in layers for end in endings), self.figure, self.facts]

    def log(self, line: str) -> None:
        """Appends a line to the journal and syncs it to the disk."""
        with self.journal.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
            stream.flush()
            os.fsync(stream.fileno())

    @contextmanager
    def open_draft(self) -> Iterator["MapFolder"]:
        """Yields the hidden folder in which the map is made; a later start finds what is done in it.

        RunError if another process is making a map here, a file in the way is not of a map, or the disk is full.
        """
        with hold(self.path, "making a map"):
            draft = MapFolder(self.path / ".unfinished")
            if not self.facts.is_file() and not draft.path.is_dir():
                for path in self.list_files():
                    if path.exists():
                        raise RunError(
                            f"{path}: already exists but is not part of a finished map; choose another "
                            "folder with --out DIR"
                        )
            draft.path.mkdir(exist_ok=True)
            try:
                yield draft
            except OSError as error:
                if error.errno is None:  # of a network connection, not of a file
                    raise
                raise RunError(
                    f"{error.filename or draft.path}: {error.strerror}; check its rights and the room on the "
                    "disk, then rerun the same command to resume (finished work is kept)"
                ) from None

    def publish(self, draft: "MapFolder") -> list[Path]:
        """Moves the files of a finished draft here and returns them. All files of an earlier map are removed.

        The draft's journal names the files first, so that a later start can finish the moves.
        """
        made = draft.list_published()
        if not made:
            made = [path.name for path in draft.list_files() if path.exists()]
            for name in made:
                with (draft.path / name).open("rb+") as stream:
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
        """Returns the journal's header and its other lines; empty if there is no valid journal."""
        try:
            head, *lines = self.journal.read_text(encoding="utf-8").splitlines()
            return dict(json.loads(head)), lines
        except (FileNotFoundError, TypeError, ValueError):
            return {}, []

    def list_published(self) -> list[str]:
        """Returns the names of the files that a complete draft was about to move; empty before that."""
        _, lines = self.read_journal()
        with suppress(ValueError):
            if lines and lines[-1].startswith(_PUBLISHED):
                return [str(name) for name in json.loads(lines[-1].removeprefix(_PUBLISHED))]
        return []
