"""Fonts for names in pictures: DejaVu Sans, and installed ones for the letters that it lacks.

A letter that no font has is spelled in Latin letters, and an emoji by its name.
"""

import functools
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageFont

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COVERED = 0x250  # DejaVu Sans has every letter below
_PREFERRED = ("cjk", "sourcehan", "wqy", "yahei", "simhei", "pingfang", "hiragino", "meiryo", "malgun")

PillowFont = ImageFont.FreeTypeFont | ImageFont.ImageFont


def find_fonts(texts: Iterable[str]) -> tuple[Path, ...]:
    """Returns the font files to write the texts with, in the order of preference; DejaVu Sans is the first.

    Fonts without outlines, as some with coloured emoji, are passed over.
    """
    letters = {ord(letter) for text in texts for letter in text if not letter.isspace()}
    return _find_fonts(frozenset(code for code in letters if code >= _COVERED))


def spell(text: str, fonts: tuple[Path, ...]) -> str:
    """Returns a text with the letters that no font has written in Latin letters: 玉米 as YuMi."""
    if all(ord(letter) < _COVERED for letter in text):
        return text
    from anyascii import anyascii

    known = frozenset[int]().union(*map(_list_letters, fonts))
    is_known = [letter.isspace() or ord(letter) < _COVERED or ord(letter) in known for letter in text]
    return "".join(
        letter if drawn else anyascii(letter).strip(":").replace("_", " ")
        for letter, drawn in zip(text, is_known, strict=True)
    )


def load_font(text: str, size: int) -> tuple[PillowFont, str]:
    """Returns a font for Pillow, which takes one font per text, and the text as that font can write it."""
    fonts = find_fonts([text])
    if not fonts:
        return ImageFont.load_default(size), text
    spelled = [(path, spell(text, (path,))) for path in reversed(fonts)]
    path, shown = next(((path, shown) for path, shown in spelled if shown == text), spelled[-1])
    return ImageFont.truetype(str(path), size), shown


def write_names(figure: "Figure") -> None:
    """Prints all texts of a figure as they are: dollar signs too, and letters of any script.

    Matplotlib sets mathematics only in the ticks of logarithmic axes.
    """
    from matplotlib.font_manager import FontEntry, fontManager
    from matplotlib.text import Text

    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    powers = {tick for axis in axes if axis.get_scale() == "log" for tick in axis.get_ticklabels(which="both")}
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text not in powers]
    fonts = find_fonts(text.get_text() for text in texts)
    families = ["DejaVu Sans", *map(str, fonts[1:])]
    known = {entry.name for entry in fontManager.ttflist}
    for path in families[1:]:  # under a name of its own, and in the one weight that we use
        if path not in known:
            fontManager.ttflist.append(FontEntry(fname=path, name=path, weight=400, size="scalable"))
    for axis in axes:
        labels = [label.get_text() for label in axis.get_ticklabels()]
        spelled = [spell(label, fonts) for label in labels]
        if spelled != labels:
            axis.set_ticks(axis.get_ticklocs(), spelled)
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(families)
        text.set_text(spell(text.get_text(), fonts))


@functools.cache
def _find_fonts(letters: frozenset[int]) -> tuple[Path, ...]:
    found = [path] if (path := _find_dejavu()) is not None else []
    if not letters:
        return tuple(found)
    missing = letters.difference(*map(_list_letters, found))
    for path in _list_installed() if missing else ():
        if missing & _list_letters(path):
            found.append(path)
            missing -= _list_letters(path)
        if not missing:
            break
    return tuple(found)


def _find_dejavu() -> Path | None:
    """The file in matplotlib, which is found without loading it."""
    matplotlib = find_spec("matplotlib")
    if matplotlib is None or matplotlib.origin is None:
        return None
    path = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return path if path.is_file() else None


def _list_installed() -> list[Path]:
    from matplotlib.font_manager import findSystemFonts

    def rank(path: Path) -> tuple[bool, str]:
        name = path.name.casefold().replace("-", "")
        return not any(preferred in name for preferred in _PREFERRED), name

    return sorted(map(Path, findSystemFonts()), key=rank)


@functools.cache
def _list_letters(path: Path) -> frozenset[int]:
    """The characters that a font file has outlines for; none if it cannot be read."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with path.open("rb") as stream, TTFont(stream, fontNumber=0, lazy=True) as font:
            has_outlines = "glyf" in font or "CFF " in font or "CFF2" in font
            return frozenset(font.getBestCmap() or ()) if has_outlines else frozenset()
    except (OSError, TTLibError):
        return frozenset()
