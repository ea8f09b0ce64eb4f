"""The `scene` section of the config: your own files, a known scene, or a synthetic one."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from hsi_se.config.base import Seed, Settings, _tag_by_shape, mistake


def _check_bands(value: object) -> str:
    """Returns a band or range of bands as text, such as `150` or `104-108`, counted from 1."""
    match = re.fullmatch(r"([1-9]\d{0,6})(?:\s*[-–]\s*([1-9]\d{0,6}))?", str(value).strip())
    if match is None or isinstance(value, bool) or int(match[2] or match[1]) < int(match[1]):
        raise mistake("write bands as 150 or 104-108, counted from 1")
    return f"{match[1]}-{match[2]}" if match[2] else match[1]


def _name_nan(value: object) -> object:
    """Replaces NaN by the word "nan", because NaN does not equal itself."""
    return "nan" if isinstance(value, float) and value != value else value


def _name_of(what: str) -> BeforeValidator:
    """Validates a name, and refuses a list of them with what to do instead."""

    def check(value: object) -> object:
        if isinstance(value, list | tuple):
            raise mistake("several are not read together yet; name one, or join them into one with NumPy")
        if not isinstance(value, str):
            raise mistake(f"write the name of {what}")
        return value

    return BeforeValidator(check, json_schema_input_type=str)


OF_CUBE = ("cube_key", "drop_bands", "wavelengths", "nodata", "scale", "name")  # settings without labels
OF_LABELS = ("labels_key", "class_names", "palette", "unlabelled")
Bands = Annotated[str, BeforeValidator(_check_bands, json_schema_input_type=PositiveInt | str)]
FileName = Annotated[str, _name_of("a file")]
Byte = Annotated[int, Field(ge=0, le=255)]


class SceneFiles(Settings):
    """Your own scene: an image file and a label file, in any supported format."""

    cube: FileName
    """file of the image, rows × cols × bands; an absolute path, or relative to the working or data folder"""
    labels: FileName
    """file of the label map, rows × cols of integers; searched for like cube"""
    cube_key: str | None = None
    """variable or layer in the cube file; default: the file's only cube"""
    labels_key: str | None = None
    """variable or attribute in the labels file; default: the file's only label map"""
    class_names: tuple[str, ...] | str | None = None
    """class names in ascending order of label, or the name of a known scene; default: the file's names, or numbers"""
    palette: tuple[tuple[Byte, Byte, Byte], ...] | None = None
    """class colours as [red, green, blue], 0 to 255, in ascending order of label; default: the file's
    colours, or ones that colour-blind readers can tell apart"""
    unlabelled: int = 0
    """label value of unlabelled pixels; default 0"""
    drop_bands: tuple[Bands, ...] = ()
    """bands of the file to leave out, counted from 1, such as [104-108, 150]; default: none"""
    wavelengths: tuple[PositiveFloat, ...] | str | None = None
    """wavelength of each band of the file, or a text file of them; in nm, or in µm if all are below 100;
    default: the file's"""
    nodata: Annotated[float | Literal["nan", "none"] | None, BeforeValidator(_name_nan)] = None
    """stored value that marks pixels without data, or nan, or none if all are data; default: the file's"""
    scale: PositiveFloat | None = None
    """number that stored values are divided by, above 0, such as 10000; default: the file's"""
    byte_order: Literal["little", "big"] | None = None
    """byte order of an ENVI image whose header does not give it; default: the header's"""
    name: str | None = None
    """name of the scene in reports and maps; default: the cube file's name without its suffix"""

    def check_together(self) -> None:
        names = self.class_names if isinstance(self.class_names, tuple) else ()
        for name in names:
            if not name or names.count(name) > 1:
                problem = f"class name {name!r} is empty or used twice"
                raise mistake(f"{problem}; give every class its own name", key="class_names")

    def list_dropped_bands(self) -> list[int]:
        """Returns the indices of the bands in `drop_bands`, counted from 0."""
        ends = [(part.partition("-")[0], part.rpartition("-")[2]) for part in self.drop_bands]
        return [band - 1 for first, last in ends for band in range(int(first), int(last) + 1)]


class SyntheticScene(Settings):
    """The built-in demo scene: synthetic farmland generated from a seed."""

    synthetic: Seed
    """seed of the generated scene, from 0 to 2⁶³ - 1"""
    rows: int = Field(default=72, ge=24)
    """height in pixels, 24 or more; default 72"""
    cols: int = Field(default=72, ge=24)
    """width in pixels, 24 or more; default 72"""
    bands: int = Field(default=64, ge=16)
    """number of bands, 16 or more; default 64"""

    @model_validator(mode="before")
    @classmethod
    def _has_no_files(cls, data: object) -> object:
        for key in ("cube", "labels"):
            if isinstance(data, Mapping) and key in data:
                raise mistake("a synthetic scene has no files; write scene: {cube: …, labels: …}", key=key)
        return data


def _tag_scene(value: object) -> str:
    if isinstance(value, SyntheticScene) or (isinstance(value, Mapping) and "synthetic" in value):
        return "a synthetic scene"
    return _tag_by_shape(value)


SceneSettings = Annotated[
    Annotated[str, _name_of("a known scene, or {cube: FILE, labels: FILE}"), Tag("a value")]
    | Annotated[SceneFiles, Tag("a section")]
    | Annotated[SyntheticScene, Tag("a synthetic scene")],
    Discriminator(_tag_scene),
]
