"""Reads names and colours of classes from files beside a label file: QGIS styles, and GDAL's facts of a raster."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from hsi_se.scene.guards import read_xml
from hsi_se.scene.raster import Colour

_LONGEST = 2**22  # bytes


@dataclass
class Style:
    """Names and 8-bit colours by the stored value of a class, as text, and the attribute that has these values."""

    names: dict[str, str] = field(default_factory=dict)
    colours: dict[str, Colour] = field(default_factory=dict)
    attribute: str | None = None
    notes: tuple[str, ...] = ()


def read_style(path: Path) -> Style:
    """Returns the style of a label file, whose NAME.qml precedes NAME.tif.aux.xml; one that is damaged is a note."""
    style = Style()
    for beside in (path.with_name(f"{path.name}.aux.xml"), path.with_suffix(".qml")):
        try:
            root = read_xml(beside, longest=_LONGEST) if beside.is_file() else ElementTree.Element("none")
            classes = list(_list_classes(root))
        except (ElementTree.ParseError, ValueError, OSError) as error:
            style.notes += (f"{beside.name}: is not a readable style ({error}), and is ignored",)
            continue
        style.names |= {value: name for value, name, _ in classes if name}
        style.colours |= {value: colour for value, _, colour in classes if colour}
        style.attribute = next((each.get("attr") for each in root.iter("renderer-v2")), style.attribute)
    return style


def _list_classes(root: ElementTree.Element) -> Iterator[tuple[str, str, Colour | None]]:
    """Yields value, name and colour of each class, of a raster or of categorised shapes or points."""
    yield from ((str(value), each.text or "", None) for value, each in enumerate(root.iter("Category")))
    symbols = {symbol.get("name"): symbol for symbol in root.iter("symbol")}
    for each in (*root.iter("paletteEntry"), *root.iter("category")):
        parts = symbols.get(each.get("symbol"), each).iter()
        named = [part.get("value") or part.get("v") for part in parts if "color" in (part.get("name"), part.get("k"))]
        text = each.get("color") or (named or [""])[0] or ""
        digits = [text[1:3], text[3:5], text[5:7]] if text.startswith("#") else text.split(",")[:3]
        values = [int(part, 16 if text.startswith("#") else 10) for part in digits if part]
        colour = (values[0], values[1], values[2]) if len(values) == 3 and {*values} <= {*range(256)} else None
        yield each.get("value", ""), each.get("label", ""), colour
