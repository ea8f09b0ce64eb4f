"""The `scene` section of the config: files of one's own, a known scene, or a synthetic one."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from hsi_se.config.base import Seed, Settings, _tag_by_shape, mistake


def _check_bands(value: object) -> str:
    """`104-108` or `150`, counted from 1."""
    match = re.fullmatch(r"([1-9]\d{0,6})(?:\s*[-–]\s*([1-9]\d{0,6}))?", str(value).strip())
    if match is None or isinstance(value, bool) or int(match[2] or match[1]) < int(match[1]):
        raise mistake("write bands as 150 or 104-108, counted from 1")
    return f"{match[1]}-{match[2]}" if match[2] else match[1]


def _name_nan(value: object) -> object:
    """NaN is spelt as a word, because no two NaNs are equal."""
    return "nan" if isinstance(value, float) and value != value else value


Bands = Annotated[str, BeforeValidator(_check_bands, json_schema_input_type=PositiveInt | str)]
Byte = Annotated[int, Field(ge=0, le=255)]


class SceneFiles(Settings):
    """A scene of the user's own: two files in any format, found as given or below the data folder."""

    cube: str
    labels: str
    cube_key: str | None = None
    labels_key: str | None = None
    class_names: tuple[str, ...] | str | None = Field(
        default=None, description="names in ascending order of label, or a known scene to take them from"
    )
    palette: tuple[tuple[Byte, Byte, Byte], ...] | None = Field(
        default=None, description="[red, green, blue] from 0 to 255, in ascending order of label"
    )
    unlabelled: int = Field(default=0, description="the stored value of pixels without a label")
    drop_bands: tuple[Bands, ...] = Field(
        default=(), description="bands of the file to leave out, counted from 1: [104-108, 150]"
    )
    wavelengths: tuple[PositiveFloat, ...] | str | None = Field(
        default=None,
        description="of each band of the file, or a text file of them; in nm, or in µm if none reaches 100",
    )
    nodata: Annotated[float | Literal["nan"] | None, BeforeValidator(_name_nan)] = Field(
        default=None, description="the stored value that means nothing was measured; the file's unless given"
    )
    scale: PositiveFloat | None = Field(
        default=None, description="what values are divided by, such as 10000; the file's unless given"
    )
    byte_order: Literal["little", "big"] | None = Field(
        default=None, description="of an ENVI image whose header leaves it out"
    )
    name: str | None = None

    @model_validator(mode="after")
    def _classes_are_told_apart(self) -> Self:
        names = self.class_names if isinstance(self.class_names, tuple) else ()
        for name in names:
            if not name or names.count(name) > 1:
                raise mistake(
                    f"{name!r} is no class's name, or more than one's; give each one of its own",
                    key="class_names",
                )
        return self

    def list_dropped_bands(self) -> list[int]:
        """Returns the bands of `drop_bands`, 0-based."""
        ends = [(part.partition("-")[0], part.rpartition("-")[2]) for part in self.drop_bands]
        return [band - 1 for first, last in ends for band in range(int(first), int(last) + 1)]


class SyntheticScene(Settings):
    """The embedded demo scene, generated from a seed."""

    synthetic: Seed = Field(description="the seed that the scene is generated from")
    rows: int = Field(default=72, ge=24)
    cols: int = Field(default=72, ge=24)
    bands: int = Field(default=64, ge=16)

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
    Annotated[str, Tag("a value")]
    | Annotated[SceneFiles, Tag("a section")]
    | Annotated[SyntheticScene, Tag("a synthetic scene")],
    Discriminator(_tag_scene),
]
