"""HTML that notebooks show for objects: a title, a picture, a table; names in it are escaped."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hsi_se.system.files import fill_template

MOST_PIXELS = 400  # of a side of a picture
Colour = tuple[int, int, int]


def thin(shape: Sequence[int]) -> tuple[slice, slice]:
    """Returns the rows and columns of an image that a picture shows: all, or every second one, and so on."""
    every = slice(None, None, -(-max(shape) // MOST_PIXELS))
    return every, every


def percent(fractions: Sequence[float | None]) -> list[str]:
    """Returns fractions as `98.77`, and None as a dash."""
    return ["–" if value is None or value != value else f"{100 * value:.2f}" for value in fractions]


def draw_html(
    title: str,
    *,
    picture: NDArray[np.uint8] | None = None,
    headings: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    colours: Sequence[Colour] = (),
    text: str = "",
) -> str:
    """Returns a picture `(rows, cols, 3)` and a table, whose rows may have colours, between a title and a text."""
    address = None
    if picture is not None:
        from matplotlib.image import imsave

        file = io.BytesIO()
        imsave(file, picture, format="png")
        address = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    hues = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours] or [""] * len(rows)
    table = list(zip(hues, rows, strict=True))
    return fill_template(
        "hsi_se.system", "notebook.html", title=title, address=address, headings=headings, table=table, text=text
    )
