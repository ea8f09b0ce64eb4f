"""`map.png`: a class map between its axes and its legend.

Drawn with Pillow, since loading matplotlib takes longer than the rest of a small evaluation. All lengths are in pixels.
"""

from pathlib import Path

from PIL import Image, ImageDraw

from hsi_se.prediction.class_map import ClassMap
from hsi_se.report.charts import list_ticks
from hsi_se.report.fonts import PillowFont, load_font
from hsi_se.scene.scene import UNLABELLED
from hsi_se.system.files import replacing

_SHORTER_SIDE = 675  # of the map, at least, unless the longer side is then too long
_LONGER_SIDE = 1800
_MARGIN, _TICK, _SWATCH, _LINE = 20, 5, 16, 24
_TITLE_SIZE, _TEXT_SIZE = 20, 15
_FEWEST_LINES = 16  # of the legend, before it gets another column
_FRAME = (90, 90, 90)


def save_map(class_map: ClassMap, path: Path, *, title: str) -> None:
    """Writes the map as a PNG in the class colours, oriented as in the file, with a legend beside it.

    A pixel of the scene is a square of whole pixels, so every class keeps its exact colour.
    """
    rows, cols = class_map.labels.shape
    scale = max(1, min(round(_SHORTER_SIDE / min(rows, cols)), _LONGER_SIDE // max(rows, cols)))
    picture = Image.fromarray(class_map.to_rgb()).resize((cols * scale, rows * scale), Image.Resampling.NEAREST)
    names = {label: f"{label}  {name}" for label, name in class_map.class_names.items()}
    if (class_map.labels == UNLABELLED).any():
        names = {UNLABELLED: "unlabelled", **names}

    (text, _), (large, title) = load_font("", _TEXT_SIZE), load_font(title, _TITLE_SIZE)
    left, top = _MARGIN + 3 * _LINE + _TICK, _MARGIN + 2 * _LINE  # of the map
    legend = left + picture.width + _MARGIN
    entries = {label: load_font(name, _TEXT_SIZE) for label, name in names.items()}
    column = _SWATCH + 8 + max(font.getlength(name) for font, name in entries.values()) + _MARGIN
    per_column = max(picture.height // _LINE, _FEWEST_LINES)
    num_columns = -(-len(entries) // per_column)
    width = max(legend + num_columns * column, left + large.getlength(title) + _MARGIN)
    num_lines = min(len(entries), per_column)
    height = max(top + picture.height + _TICK + 2 * _LINE, top + num_lines * _LINE) + _MARGIN
    canvas = Image.new("RGB", (round(width), round(height)), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((left, _MARGIN), title, fill="black", font=large)
    pen.rectangle((left - 1, top - 1, left + picture.width, top + picture.height), outline=_FRAME)
    canvas.paste(picture, (left, top))
    bottom = top + picture.height + 1
    for col in map(round, list_ticks(0, cols - 1)):
        x = left + (col + 0.5) * scale
        pen.line((x, bottom, x, bottom + _TICK), fill=_FRAME)
        pen.text((x, bottom + _TICK + 3), str(col), fill="black", font=text, anchor="mt")
    for row in map(round, list_ticks(0, rows - 1)):
        y = top + (row + 0.5) * scale
        pen.line((left - 2 - _TICK, y, left - 2, y), fill=_FRAME)
        pen.text((left - _TICK - 6, y), str(row), fill="black", font=text, anchor="rm")
    across, down = left + picture.width / 2, top + picture.height / 2
    pen.text((across, bottom + _TICK + _LINE), "column", fill="black", font=text, anchor="mt")
    _write_upwards(canvas, "row", (_MARGIN, round(down)), text)
    for place, (label, (font, name)) in enumerate(entries.items()):
        x, y = legend + place // per_column * round(column), top + place % per_column * _LINE
        pen.rectangle((x, y, x + _SWATCH, y + _SWATCH), fill=class_map.palette[label], outline=_FRAME)
        pen.text((x + _SWATCH + 8, y + _SWATCH / 2), name, fill="black", font=font, anchor="lm")
    with replacing(path) as draft:
        canvas.save(draft, format="PNG")


def _write_upwards(canvas: Image.Image, word: str, at: tuple[int, int], font: PillowFont) -> None:
    """Writes a word from bottom to top, with the middle of its left edge at (x, y)."""
    strip = Image.new("RGB", (round(font.getlength(word)) + 2, _LINE), "white")
    ImageDraw.Draw(strip).text((1, _LINE / 2), word, fill="black", font=font, anchor="lm")
    strip = strip.transpose(Image.Transpose.ROTATE_90)
    canvas.paste(strip, (at[0], at[1] - strip.height // 2))
