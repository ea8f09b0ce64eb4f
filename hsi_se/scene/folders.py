"""Finds the files of a scene: as named, or below the folders that are searched."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsi_se.errors import SceneError

DEFAULT_DATA_DIR = Path("datasets")
_DEPTHS = ("*", "*/*", "*/*/*")  # levels below a folder that are searched


@dataclass(frozen=True)
class Folders:
    """The folders in which the files of a scene are looked for.

    Attributes:
        starts: folders from which relative paths are tried, in order.
        below: folders searched up to three levels deep, in order.
        scene: a `Scene` in memory, which takes the place of the one that a config describes; or None.
    """

    starts: tuple[Path, ...]
    below: tuple[Path, ...]
    scene: Any = None

    @classmethod
    def of(cls, data: "Data") -> "Folders":
        """Returns the current folder, with `--data` and `datasets/` below; SceneError if `--data` does not exist."""
        if isinstance(data, Folders):
            return data
        if data is None:
            return cls((Path(),), (DEFAULT_DATA_DIR,))
        if not Path(data).is_dir():
            problem = "is a file" if Path(data).is_file() else "no such folder"
            raise SceneError(f"--data {data}: {problem}; give the folder that contains the scenes")
        return cls((Path(),), (Path(data), DEFAULT_DATA_DIR))

    def then(self, others: "Folders") -> "Folders":
        """Returns these folders, followed by those of the others that are not the same."""
        scene = others.scene if self.scene is None else self.scene
        return Folders(_distinct(self.starts + others.starts), _distinct(self.below + others.below), scene)


def _distinct(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """The folders without repetitions, in the shorter of two spellings."""
    spellings: dict[Path, Path] = {}
    for folder in folders:
        known = spellings.setdefault(folder.resolve(), folder)
        spellings[folder.resolve()] = min(known, folder, key=lambda path: len(path.parts))
    return tuple(spellings.values())


Data = str | Path | Folders | None


def find_file(
    name: str | Path,
    folders: Folders,
    *,
    setting: str,
    also: Sequence[str] = (),
    hint: str = "",
    or_folder: bool = False,
) -> Path:
    """Returns the path of a file: `name`, or one of `also`, as given or found below a folder, ignoring case.

    `setting` is the setting that names the file, `hint` a first thing to do if there is none; a folder is found
    only where a file `or_folder` is wanted. SceneError if there is none; the message lists the folders searched.
    """
    for asked in (Path(name).expanduser(), *map(Path, also)):
        for start in folders.starts:
            if (start / asked).is_file() or (or_folder and (start / asked).is_dir()):
                return start / asked
        if not asked.is_absolute():
            tail = tuple(part.casefold() for part in asked.parts)
            candidates = (path for top in folders.below for depth in _DEPTHS for path in sorted(top.glob(depth)))
            for path in candidates:
                is_wanted = path.is_file() or (or_folder and path.is_dir())
                if tuple(part.casefold() for part in path.parts[-len(tail) :]) == tail and is_wanted:
                    return path
    if Path(name).expanduser().is_dir():
        raise SceneError(f"{setting}: {name} is a folder; give a file in it")
    starts = " or ".join("the current folder" if start == Path() else str(start) for start in folders.starts)
    where = "" if Path(name).is_absolute() else f" in {starts} or below {', '.join(map(str, folders.below))}"
    raise SceneError(f"{setting}: no file {name}{where}; {hint or 'put it there'}, or give its folder with --data DIR")
