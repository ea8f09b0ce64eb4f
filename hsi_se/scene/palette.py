"""Chooses the colour of each class by its label."""

from collections.abc import Iterable, Mapping

from spectral import spy_colors

from hsi_se.scene.raster import Colour as Colour
from hsi_se.scene.scene import UNLABELLED


def make_palette(class_ids: Iterable[int], *, given: Mapping[int, Colour] | None = None) -> dict[int, Colour]:
    """Returns an 8-bit RGB colour for unlabelled pixels and for each label.

    Labels have the colours of Spectral Python (`spectral.spy_colors`); labels beyond its list get
    evenly spaced hues. Colours in `given` take precedence.
    """
    ids = sorted(int(label) for label in class_ids)
    beyond = [label for label in ids if label >= len(spy_colors)]
    palette = {}
    if beyond:
        import matplotlib  # half a second, which most scenes can do without

        hues = matplotlib.colormaps["hsv"].resampled(len(beyond) + 1)
        palette = {label: hues(index, bytes=True)[:3] for index, label in enumerate(beyond)}
    palette |= {label: spy_colors[label] for label in (UNLABELLED, *ids) if label < len(spy_colors)}
    palette |= {label: colour for label, colour in (given or {}).items() if label in palette}
    return {label: (int(red), int(green), int(blue)) for label, (red, green, blue) in sorted(palette.items())}
