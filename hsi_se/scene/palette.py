"""Class colours by label: the field's usual ones, and ones that colour-blind readers tell apart."""

from collections.abc import Iterable, Mapping

from spectral import spy_colors

from hsi_se.scene.raster import Colour as Colour
from hsi_se.scene.scene import UNLABELLED


def make_palette(class_ids: Iterable[int], *, given: Mapping[int, Colour] | None = None) -> dict[int, Colour]:
    """Returns an 8-bit RGB colour for unlabelled ground and for each label.

    Labels keep the colours that Spectral Python gives them (`spectral.spy_colors`); those beyond its
    list get evenly spread hues. A colour that is `given` wins.
    """
    ids = sorted(int(label) for label in class_ids)
    beyond = [label for label in ids if label >= len(spy_colors)]
    palette = {}
    if beyond:
        import matplotlib  # which is slow to load, and few scenes have so many classes

        hues = matplotlib.colormaps["hsv"].resampled(len(beyond) + 1)
        palette = {label: hues(place, bytes=True)[:3] for place, label in enumerate(beyond)}
    palette |= {label: spy_colors[label] for label in (UNLABELLED, *ids) if label < len(spy_colors)}
    palette |= {label: colour for label, colour in (given or {}).items() if label in palette}
    return {label: (int(red), int(green), int(blue)) for label, (red, green, blue) in sorted(palette.items())}
