"""Whether the bands of one scene are those of another."""

from collections.abc import Sequence

import numpy as np

from hsi_se.errors import SceneError

_LISTED = 5


def compare_wavelengths(
    trained: Sequence[float] | None, given: Sequence[float] | None, *, name: str, bands: Sequence[int]
) -> tuple[str, ...]:
    """Proves that as many bands lie where they lay in training, where both are known.

    Args:
        trained: `(bands,)` nanometres of the training.
        given: `(bands,)` nanometres of the other scene.
        name: what the message calls that scene.
        bands: `(bands,)` what it calls the bands.

    Returns:
        What the user should know, one sentence each.

    Raises:
        SceneError: a band lies more than half a band from that of the training; half a band is half
            the distance to the nearer neighbour.
    """
    if trained is None or given is None:
        who = "the training scene" if trained is None else name
        return (f"the wavelengths of {who} are unknown, so the bands were compared by their number alone",)
    if len(trained) < 2:
        return ()
    steps = np.abs(np.diff(trained))
    widths = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
    apart = np.flatnonzero(np.abs(np.subtract(given, trained)) > widths / 2).tolist()
    if apart:
        pairs = [
            f"band {bands[band]}: {trained[band]:.1f} and {given[band]:.1f} nm" for band in apart[:_LISTED]
        ]
        more = f" and {len(apart) - _LISTED} more" if len(apart) > _LISTED else ""
        raise SceneError(
            f"{name}: {len(apart)} of {len(trained)} bands are more than half a band from those of the "
            f"training (trained and given: {', '.join(pairs)}{more}); "
            "give a scene of the same sensor, or resample it"
        )
    return ()
