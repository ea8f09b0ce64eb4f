"""The `scene` section of the config: your own files, a known scene, or a synthetic one."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from hsi_se.config.base import Seed, Settings, _tag_by_shape, mistake

_NM = {"nm": 1, "um": 1000, "µm": 1000, "μm": 1000}
_NM_RANGE = re.compile(rf"(\d+(?:\.\d+)?)\s*[-–]\s*(\d+(?:\.\d+)?)\s*({'|'.join(_NM)})")


def _check_bands(value: object) -> str:
    """Returns bands as text: `150` or `104-108`, counted from 1, or a range of wavelengths as `1340-1450 nm`."""
    text = str(value).strip()
    if (found := _NM_RANGE.fullmatch(text)) and float(found[1]) < float(found[2]):
        low, high = (f"{float(end) * _NM[found[3]]:.10g}" for end in found.groups()[:2])
        return f"{low}-{high} nm"
    match = re.fullmatch(r"([1-9]\d{0,6})(?:\s*[-–]\s*([1-9]\d{0,6}))?", text)
    if match is None or isinstance(value, bool) or int(match[2] or match[1]) < int(match[1]):
        raise mistake("write bands as 150 or 104-108, counted from 1, or as a range of wavelengths, 1340-1450 nm")
    return f"{match[1]}-{match[2]}" if match[2] else match[1]


def _name_nan(value: object) -> object:
    """Replaces NaN by the word "nan", because NaN does not equal itself."""
    return "nan" if isinstance(value, float) and value != value else value


def _tag_files(value: object) -> str:
    return "a list" if isinstance(value, list | tuple) else _tag_by_shape(value)


def _name_of(what: str) -> BeforeValidator:
    """Validates a name, and refuses a list of them with what to do instead."""

    def check(value: object) -> object:
        if isinstance(value, list | tuple):
            raise mistake("several files have no meaning here; name one")
        if not isinstance(value, str):
            raise mistake(f"write the name of {what}")
        return value

    return BeforeValidator(check, json_schema_input_type=str)


OF_CUBE = ("cube_key", "axes", "shape", "drop_bands", "wavelengths", "nodata", "scale", "name")  # without labels
OF_LABELS = ("labels", "labels_key", "class_names", "palette", "unlabelled")
Bands = Annotated[str, BeforeValidator(_check_bands, json_schema_input_type=PositiveInt | str)]
FileName = Annotated[str, _name_of("a file")]
Axes = Literal[
    "rows-cols-bands", "rows-bands-cols", "cols-rows-bands", "cols-bands-rows",
    "bands-rows-cols", "bands-cols-rows", "bands-first",
]  # fmt: skip
Byte = Annotated[int, Field(ge=0, le=255)]
Names = Annotated[tuple[FileName, ...], Field(min_length=1)]
# Files of one image each: one name, a pattern such as `images/*.tif`, or a list of either.
Files = Annotated[Annotated[FileName, Tag("a value")] | Annotated[Names, Tag("a list")], Discriminator(_tag_files)]


def _check_unlabelled(value: object) -> object:
    """Returns the number or name of unlabelled pixels; NaN as the word "nan"."""
    if isinstance(value, bool) or not isinstance(value := _name_nan(value), int | str) or value == "":
        raise mistake('write the label of unlabelled pixels: a whole number, nan, a class name or a colour "#rrggbb"')
    return value


class LabelFile(Settings):
    """A label file with settings of its own."""

    file: FileName
    """vector file, table or label map; searched for like cube"""
    layer: str | None = None
    """layer of a vector file; default: the only one"""
    field: str | None = None
    """attribute or column with the class; default: the only one, or one named class, label, crop, …"""
    all_touched: bool = False
    """whether a shape labels every pixel that it touches, instead of those whose centre lies inside; default false"""
    crs: str | None = None
    """coordinate system of shapes or points, such as EPSG:32633; default: the file's, then WGS 84 for lon and lat,
    then the cube's"""
    pixel_order: Literal["rows", "columns"] | None = None
    """order of the labels in a list of all pixels: by rows, as in NumPy, or by columns, as in MATLAB"""


def _tag_labels(value: object) -> str:
    """Returns the union tag of labels: a file name, a label file with settings, or a mask for each class."""
    is_file = isinstance(value, Mapping) and (
        "file" in value or bool({*value} and {*value} <= {*LabelFile.model_fields})
    )
    return "masks of classes" if isinstance(value, Mapping) and not is_file else _tag_files(value)


OneLabels = (
    Annotated[FileName, Tag("a value")]
    | Annotated[LabelFile, Tag("a section")]
    | Annotated[dict[str, FileName], Tag("masks of classes")]
)
LabelSettings = Annotated[OneLabels, Discriminator(_tag_labels)]
Labels = Annotated[OneLabels | Annotated[Names, Tag("a list")], Discriminator(_tag_labels)]


def _check_image_name(value: object) -> object:
    """Returns a name that may be that of a folder, which `hsi-se map` makes for each image."""
    if isinstance(value, str) and (value.strip(". ") == "" or any(sign in value for sign in "/\\\0")):
        raise mistake("a folder is named after the image; write a name without / and \\")
    return value


class ImageFiles(Settings):
    """One of several images."""

    cube: FileName
    """file of the image, as scene.cube"""
    labels: LabelSettings
    """its labels, as scene.labels"""
    name: Annotated[str | None, BeforeValidator(_check_image_name)] = None
    """name of the image in reports, splits and maps; default: the cube file's name without its suffix"""


class SceneFiles(Settings):
    """Your own scene: files of an image and its labels, in any supported format, or of several images."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["cube", "labels"]}, {"required": ["images"]}]})

    cube: Files | None = None
    """file or folder of the image, rows × cols × bands; an absolute path, or relative to the working or data folder; a
    list, or a pattern such as images/*.tif, for several images that train one classifier"""
    labels: Labels | None = None
    """file of the labels (a map, shapes or a table), searched for like cube; {file: FILE, field: NAME} with more
    settings; or a mask file for each class, {soil: FILE, maize: FILE}; for several images a list in their order, a
    pattern, or one file of which each image reads its part"""
    images: Annotated[tuple[ImageFiles, ...], Field(min_length=1)] | None = None
    """several images, in place of cube and labels: a list of {cube: FILE, labels: FILE, name: NAME}"""
    cube_key: str | None = None
    """array in the cube file, also GROUP/NAME or STRUCT.FIELD; default: the product's or the file's only cube"""
    axes: Axes | None = None
    """order of the axes of the cube's array, for a file that does not state it; default: rows-cols-bands"""
    shape: tuple[PositiveInt, PositiveInt] | None = None
    """[rows, cols] of a cube that is stored as bands × pixels or pixels × bands; default: none, the cube is 3-D"""
    labels_key: str | None = None
    """variable in the labels file, or attribute like labels.field; default: the file's only label map"""
    class_names: tuple[str, ...] | str | None = None
    """class names in ascending order of label, or the name of a known scene; default: the file's names, or numbers"""
    palette: tuple[tuple[Byte, Byte, Byte], ...] | None = None
    """class colours as [red, green, blue], 0 to 255, in ascending order of label; default: the file's
    colours, or ones that colour-blind readers can tell apart"""
    unlabelled: Annotated[int | str, BeforeValidator(_check_unlabelled)] = 0
    """label of unlabelled pixels: a number, nan, or the name or colour ("#rrggbb") of a class; default 0, and
    black in a colour picture"""
    drop_bands: tuple[Bands, ...] = ()
    """bands of the file to leave out, counted from 1 or by wavelength, as in [104-108, 1340-1450 nm]; default: none"""
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
        for key in ("cube", "labels"):
            if (getattr(self, key) is None) != bool(self.images):
                problem = "has no effect with images; leave it out" if self.images else "is missing; add it"
                raise mistake(problem, key=key)
        if isinstance(self.labels, dict) and len({*map(str.strip, self.labels)} - {""}) < 2:
            raise mistake(
                "give the masks of two classes or more, {soil: FILE, maize: FILE}, or {file: FILE}", key="labels"
            )
        names = self.class_names if isinstance(self.class_names, tuple) else ()
        for name in names:
            if not name or names.count(name) > 1:
                problem = f"class name {name!r} is empty or used twice"
                raise mistake(f"{problem}; give every class its own name", key="class_names")

    @property
    def label_file(self) -> LabelFile:
        """Returns the settings of the label file; of masks, those that each of them has."""
        if isinstance(self.labels, LabelFile):
            return self.labels
        names = self.labels.values() if isinstance(self.labels, dict) else [self.labels or ""]
        return LabelFile(file=", ".join(map(str, names)))

    def list_dropped_bands(self, num_bands: int) -> list[int]:
        """Returns the indices, counted from 0, that `drop_bands` names by number, and the first beyond `num_bands`."""
        named = [part for part in self.drop_bands if not part.endswith("nm")]
        ends = [(part.partition("-")[0], part.rpartition("-")[2]) for part in named]
        most = num_bands + 1
        return [band - 1 for first, last in ends for band in range(min(int(first), most), min(int(last), most) + 1)]

    def list_dropped_ranges(self) -> list[tuple[float, float]]:
        """Returns the ranges of wavelengths in `drop_bands`, in nanometres."""
        ranges = [part.removesuffix(" nm").split("-") for part in self.drop_bands if part.endswith("nm")]
        return [(float(low), float(high)) for low, high in ranges]


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


class InMemoryScene(Settings):
    """A scene whose arrays were given from Python. `hsi_se.train(config, scene=scene)` writes this section."""

    arrays: str
    """name of the scene; its arrays are not saved, so that every function that reads the run needs them again"""
    digest: str
    """SHA-256 of the arrays, which tells whether they are the same"""


def _tag_scene(value: object) -> str:
    if isinstance(value, InMemoryScene) or (isinstance(value, Mapping) and "arrays" in value):
        return "a scene in memory"
    if isinstance(value, SyntheticScene) or (isinstance(value, Mapping) and "synthetic" in value):
        return "a synthetic scene"
    return _tag_by_shape(value)


SceneSettings = Annotated[
    Annotated[str, _name_of("a known scene, or {cube: FILE, labels: FILE}"), Tag("a value")]
    | Annotated[SceneFiles, Tag("a section")]
    | Annotated[SyntheticScene, Tag("a synthetic scene")]
    | Annotated[InMemoryScene, Tag("a scene in memory")],
    Discriminator(_tag_scene),
]
