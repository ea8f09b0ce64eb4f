"""Fonts for names in pictures: DejaVu Sans, and installed ones for the letters that it lacks.

A letter that no font has is spelled in Latin letters, and an emoji by its name.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from anyascii import anyascii
from matplotlib import font_manager, get_data_path
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.ft2font import FaceFlags, FT2Font
from matplotlib.text import Text

_COVERED = 0x250  # DejaVu Sans has every letter below
_PREFERRED = ("cjk", "sourcehan", "wqy", "yahei", "simhei", "pingfang", "hiragino", "meiryo", "malgun")


def find_fonts(texts: Iterable[str]) -> tuple[Path, ...]:
    """Returns the font files to write the texts with, in the order of preference; DejaVu Sans is the first.

    Fonts without outlines, as some with coloured emoji, are passed over.
    """
    found = [Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")]
    missing = {ord(letter) for text in texts for letter in text if not letter.isspace() and ord(letter) >= _COVERED}
    if missing:
        missing -= _list_letters(found[0])
    for path in _list_installed() if missing else ():
        if missing & _list_letters(path):
            found.append(path)
            missing -= _list_letters(path)
        if not missing:
            break
    return tuple(found)


def spell(text: str, fonts: tuple[Path, ...]) -> str:
    """Returns a text with the letters that no font has written in Latin letters: 玉米 as YuMi."""
    if all(ord(letter) < _COVERED for letter in text):
        return text
    known = frozenset[int]().union(*map(_list_letters, fonts))
    known |= {ord(letter) for letter in text if letter.isspace() or ord(letter) < _COVERED}
    return "".join(letter if ord(letter) in known else anyascii(letter).strip(":").replace("_", " ") for letter in text)


def write_names(figure: Figure) -> None:
    """Prints all texts of a figure as they are: dollar signs too, and letters of any script; _ becomes a space.

    Matplotlib sets mathematics only in the ticks of logarithmic axes.
    """
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
        spelled = [spell(label.replace("_", " "), fonts) for label in labels]
        if spelled != labels:
            axis.set_ticks(axis.get_ticklocs(), spelled)
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(families)
        text.set_text(spell(text.get_text().replace("_", " "), fonts))


@functools.cache
def _list_installed() -> list[Path]:
    def rank(path: Path) -> tuple[bool, str]:
        name = path.name.casefold().replace("-", "")
        return not any(preferred in name for preferred in _PREFERRED), name

    return sorted(map(Path, font_manager.findSystemFonts()), key=rank)


@functools.cache
def _list_letters(path: Path) -> frozenset[int]:
    """The characters that a font file has outlines for; none if it cannot be read."""
    try:
        font = FT2Font(str(path))
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap() if font.face_flags & FaceFlags.SCALABLE else ())
