"""A model's bands are found in another file by their wavelengths."""

import numpy as np
import pytest

from hsi_se.errors import SceneError
from hsi_se.scene.wavelengths import match_wavelengths, to_widths

NM = np.array([400.0, 410.0, 420.0, 430.0, 500.0, 510.0])


def match(trained, given, *, widths=None, choices=None):
    choices = range(len(given)) if choices is None else choices
    given = np.array(given, dtype=float)
    return match_wavelengths(np.array(trained, dtype=float), given, widths=widths, name="b.tif", choices=choices)


def test_bands_are_found_among_more_and_in_another_order():
    given = np.concatenate([NM[::-1], [405.0, 2000.0]])
    assert match(NM, given) == [5, 4, 3, 2, 1, 0]
    assert match(NM, np.insert(NM, [2, 4], [415.0, 470.0])) == [0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize(("shift", "width"), [(4.9, None), (5.1, None), (2.9, 6.0), (3.1, 6.0), (7.9, 16.0)])
def test_the_limit_is_half_the_width_or_half_the_local_spacing(shift, width):
    widths = None if width is None else np.full(len(NM), width)
    given = NM + shift
    is_near = shift <= (10.0 if width is None else width) / 2
    if is_near:
        assert match(NM, given, widths=widths) == [0, 1, 2, 3, 4, 5]
        return
    with pytest.raises(SceneError, match=r"b\.tif: has no band for .* of the model's 6 within half a band"):
        match(NM, given, widths=widths)


def test_the_edge_of_a_gap_has_the_spacing_of_its_neighbours_on_the_other_side():
    with pytest.raises(SceneError, match=r"\(430\.0 nm, nearest 420\.0\)"):
        match(NM, [400, 410, 420, 445, 500, 510])


def test_overlapping_detectors_a_fraction_of_a_nanometre_apart_do_no_harm():
    trained = [400.0, 410.0, 420.0, 420.3, 430.0, 440.0]
    assert match(trained, trained) == [0, 1, 2, 3, 4, 5]
    shifted = np.array(trained) + 0.4  # the first detector's band is now nearest to the second's
    assert match(trained, shifted) == [0, 1, 2, 3, 4, 5]
    assert match(trained, np.round(trained)) == [0, 1, 2, 3, 4, 5]
    assert match(trained, shifted[::-1]) == [5, 4, 3, 2, 1, 0]


def test_bands_of_the_same_wavelength_keep_their_order():
    trained = [400.0, 410.0, 410.0, 420.0]
    assert match(trained, trained) == [0, 1, 2, 3]


def test_a_band_is_used_once():
    with pytest.raises(SceneError, match="has no band for 1 of the model's 2"):
        match([400.0, 401.0], [400.2, 900.0], widths=np.full(2, 10.0))


def test_bands_that_may_not_be_used_or_are_lacking_are_passed_over():
    given = [400.0, np.nan, 410.0, 420.0, 430.0, 500.0, 510.0]
    assert match(NM, given) == [0, 2, 3, 4, 5, 6]
    with pytest.raises(SceneError, match=r"1 of the model's 6 within half a band \(400\.0 nm, nearest 410\.0\)"):
        match(NM, given, choices=range(1, 7))
    with pytest.raises(SceneError, match="has no band for 6 of the model's 6"):
        match(NM, given, choices=[])


def test_the_first_lost_bands_are_listed():
    with pytest.raises(
        SceneError, match=r"for 6 of the model's 6 .*\(400\.0 nm, .*; 500\.0 nm, nearest 1400\.0 and 1 more\)"
    ):
        match(NM, NM + 1000)


def test_widths_are_in_the_unit_of_the_wavelengths():
    np.testing.assert_allclose(
        to_widths(["0.01", "0.02"], wavelengths=[0.5, 0.6], nanometres=np.array([500.0, 600.0])), [10, 20]
    )
    for widths in ([], [1, 0], [1]):
        assert to_widths(widths, wavelengths=[0.5, 0.6], nanometres=np.array([500.0, 600.0])) is None
    assert to_widths([1], wavelengths=[1], nanometres=None) is None
