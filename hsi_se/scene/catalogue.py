"""Looks up the known benchmark scenes; their files, sizes and classes are facts in `catalogue.toml`."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, TypeAdapter

from hsi_se.config.nearest import squash
from hsi_se.system.files import read_facts

_NUMBERED = BeforeValidator(lambda names: dict(enumerate(names, start=1)) if isinstance(names, list) else names)


@dataclass(frozen=True, kw_only=True)
class KnownFile:
    """One file of a scene.

    Attributes:
        names: accepted file names; `scene fetch` writes the first.
        keys: names of its arrays; several label maps are merged into one.
        sources: URLs in the order in which they are tried; `pip:PACKAGE==VERSION#MEMBER` is a file in a package.
        packaged: another file with the same array, if there is one in a package.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    sources: tuple[str, ...] = ()
    num_bytes: int | None = None
    sha256: str | None = None
    packaged: "KnownFile | None" = None

    @property
    def forms(self) -> "tuple[KnownFile, ...]":
        """Returns this file and the other one with the same array, if there is one."""
        return (self,) if self.packaged is None else (self, self.packaged)


@dataclass(frozen=True, kw_only=True)
class KnownScene:
    """One known scene: its two files, size, sensor and classes.

    Attributes:
        shape: `(rows, cols, bands)`.
        labels_digest: `digest_labels` of the published labels, if known.
        gsd_m: ground sampling distance in metres.
        wavelengths_nm: first and last wavelength in nanometres.
        band_centres_nm: wavelength of every band in nanometres, if known.
        natural_colour: 0-based red, green and blue bands, if known.
        credit: authors and licence of the data.
        registration: website that requires registration, for files that cannot be downloaded directly.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    cube: KnownFile
    labels: KnownFile
    shape: tuple[int, int, int]
    class_names: Annotated[dict[int, str], _NUMBERED]
    sensor: str
    gsd_m: float
    wavelengths_nm: tuple[int, int]
    band_centres_nm: tuple[float, ...] = ()
    labels_digest: str | None = None
    natural_colour: tuple[int, int, int] | None = None
    credit: str = "authors and licence not stated"
    registration: str | None = None


@functools.cache
def list_known_scenes() -> tuple[KnownScene, ...]:
    """Returns all known scenes, in the order of `catalogue.toml`."""
    scenes = [{"name": name, **facts} for name, facts in read_facts("hsi_se.scene", "catalogue.toml").items()]
    return TypeAdapter(tuple[KnownScene, ...]).validate_python(scenes)


def find_known_scene(name: str) -> KnownScene | None:
    """Returns the scene with this name or alias; case, spaces, dashes and underscores are ignored."""
    scenes = list_known_scenes()
    return next((each for each in scenes if squash(name) in map(squash, (each.name, *each.aliases))), None)


def digest_labels(labels: NDArray[np.int32]) -> str:
    """Returns the SHA-256 of a label map's size and values, whatever their type and file format."""
    rows, cols = labels.shape
    values = np.ascontiguousarray(labels, dtype="<i4")
    return hashlib.sha256(f"{rows} {cols} ".encode() + values.tobytes()).hexdigest()


def recognise_labels(labels: NDArray[np.int32]) -> tuple[KnownScene | None, KnownScene | None]:
    """Returns the known scene whose published labels these are; else None, and one of this size that has these ids."""
    digest, ids, scenes = digest_labels(labels), {*np.unique(labels).tolist()} - {0}, list_known_scenes()
    known = next((each for each in scenes if each.labels_digest == digest), None)
    likely = (each for each in scenes if each.shape[:2] == labels.shape and ids <= {*each.class_names})
    return known, next(likely, None) if known is None else None
