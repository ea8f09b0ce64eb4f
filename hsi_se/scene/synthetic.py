"""Makes a synthetic farmland scene from a seed, for tests and demonstrations without real data.

Axes: rows, cols, bands; f is the field, m the material in a mixture.
"""

import functools
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

from hsi_se.scene.raster import Floats
from hsi_se.scene.scene import UNLABELLED, Scene
from hsi_se.scene.wavelengths import NATURAL_COLOUR_NM
from hsi_se.system.files import read_facts


@functools.cache
def read_farmland() -> SimpleNamespace:
    """Returns the numbers in `farmland.toml`, where their meaning and units are stated."""
    return SimpleNamespace(**read_facts("hsi_se.scene", "farmland.toml"))


def make_synthetic_scene(*, seed: int = 0, rows: int = 72, cols: int = 72, bands: int = 64) -> Scene:
    """Returns a farmland scene in which a pixel's neighbourhood is more informative than its spectrum.

    The area is divided into fields with straight edges, some separated by tracks. Each field belongs to one class or is
    unlabelled; the largest contains a patch of about 20 pixels of a rare class. Each pixel is a mixture of leaf, soil
    and residue. Its fractions scatter around those of its field, which scatter around those of its class. A point
    spread function then mixes neighbouring pixels. Illumination varies by field and by pixel. Noise varies by band: it
    is strongest at both ends of the spectrum and in the water vapour bands. The same arguments give the same scene.

    Values are uint16 reflectance × 10,000 in evenly spaced bands from 400 to 2500 nm. Class ids run from 1 to 9; every
    class is present, and the last one is the rare one.

    Args:
        seed: determines all random draws.
        rows, cols: at least 24; in a smaller scene, two fields per class would have no interior.
        bands: at least 16, which are 140 nm apart; coarser bands would miss the red edge, red and blue.
    """
    rng, facts = np.random.default_rng(seed), read_farmland()
    wavelengths_nm = np.linspace(400.0, 2500.0, bands)
    field_map, class_of_field = _lay_out_fields(rng, rows=rows, cols=cols)
    light_of_field = np.exp(rng.normal(0.0, facts.field_light, len(class_of_field)))

    cover = _scatter(rng, _cover_fields(rng, class_of_field), facts.field_concentration)  # (f, m)
    cover = _scatter(rng, cover[field_map], facts.pixel_concentration)  # (rows, cols, m)
    lit = cover * light_of_field[field_map][..., None]
    seen = gaussian_filter(lit, (facts.point_spread, facts.point_spread, 0.0))  # (rows, cols, m)
    light = np.exp(rng.normal(0.0, facts.pixel_light, (rows, cols, 1)))
    reflectance = light * (seen @ _material_spectra(wavelengths_nm))  # (rows, cols, bands)
    noise = facts.noise / _transmit(wavelengths_nm, facts.lost_signal)
    reflectance += noise * rng.standard_normal(reflectance.shape)
    counts = np.clip(np.rint(reflectance * facts.counts_per_reflectance), 0, np.iinfo(np.uint16).max)

    red, green, blue = (int(np.abs(wavelengths_nm - nm).argmin()) for nm in NATURAL_COLOUR_NM)
    return Scene(
        name=f"synthetic farmland, seed {seed}",
        cube=counts.astype(np.uint16),
        labels=class_of_field[field_map],
        class_names=dict(list(enumerate(facts.cover))[1:]),
        wavelengths_nm=wavelengths_nm,
        natural_colour=(red, green, blue),
    )


def _lay_out_fields(rng: np.random.Generator, *, rows: int, cols: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Returns the field of each pixel, `(rows, cols)`, and the class id of each field, `(f,)`.

    Field 0 contains all tracks and is unlabelled; the last field is the patch of the rare class.
    """
    facts = read_farmland()
    rare = len(facts.cover) - 1
    wanted = round(rows * cols / facts.field_size * (1 - facts.unlabelled_fields))
    num_labelled = max(facts.min_fields_per_class * (rare - 1), wanted)
    num_unlabelled = max(1, round(num_labelled * facts.unlabelled_fields))
    pieces = _cut(rng, np.argwhere(np.ones((rows, cols))), num_labelled + num_unlabelled)
    classes = np.resize(np.arange(1, rare, dtype=np.int32), num_labelled + num_unlabelled)
    classes[num_labelled:] = UNLABELLED
    classes = rng.permutation(classes)

    field_map = np.zeros((rows, cols), dtype=np.intp)
    for field, piece in enumerate(pieces, start=1):
        field_map[piece[:, 0], piece[:, 1]] = field
    sizes = [len(piece) * (id_ != UNLABELLED) for piece, id_ in zip(pieces, classes, strict=True)]
    host = pieces[int(np.argmax(sizes))]
    off_centre = np.abs(host - host.mean(axis=0)).max(axis=1)
    # In a small scene the patch covers at most a third of its field, so the field's class remains.
    rare_size = min(int(rng.integers(*facts.rare_size)), len(host) // 3)
    patch = host[np.argsort(off_centre, kind="stable")[:rare_size]]
    field_map[patch[:, 0], patch[:, 1]] = len(pieces) + 1
    return field_map, np.concatenate(([UNLABELLED], classes, [rare])).astype(np.int32)


def _cut(rng: np.random.Generator, ground: NDArray[np.intp], num_fields: int) -> list[NDArray[np.intp]]:
    """Returns the (row, col) pixels of each field; the largest field is cut until there are enough."""
    facts = read_farmland()
    tilt = rng.uniform(-facts.tilt, facts.tilt)
    fields = [ground]
    while len(fields) < num_fields:
        field = fields.pop(int(np.argmax([len(field) for field in fields])))
        angle = tilt + rng.normal(0.0, facts.skew)
        turn = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
        turned = field @ turn
        length = turned[:, int(np.ptp(turned, axis=0).argmax())]
        beyond = length - np.quantile(length, rng.uniform(0.35, 0.65))  # about half each
        is_track = len(fields) < facts.main_tracks * num_fields or rng.random() < facts.track_chance
        gap = facts.track_width / 2 if is_track else 0.0
        fields += [field[beyond < -gap], field[beyond >= gap]]
    return fields


def _cover_fields(rng: np.random.Generator, class_of_field: NDArray[np.int32]) -> Floats:
    """Returns the cover of each field, `(f, m)`: that of its class, or random if it is unlabelled."""
    materials, recipes = read_farmland().continua, read_farmland().cover.values()
    cover = np.array([[recipe.get(m, 0.0) for m in materials] for recipe in recipes])[class_of_field]
    unlabelled = np.flatnonzero(class_of_field == UNLABELLED)[1:]  # the first are the tracks
    cover[unlabelled] = rng.dirichlet(np.ones(len(materials)), len(unlabelled))
    return cover


def _scatter(rng: np.random.Generator, mean: Floats, concentration: float) -> Floats:
    """Returns Dirichlet draws around the mixtures in the last axis; absent materials stay absent."""
    amounts = rng.standard_gamma(concentration * mean)
    return np.asarray(amounts / amounts.sum(axis=-1, keepdims=True))


def _material_spectra(wavelengths_nm: Floats) -> Floats:
    """Returns the reflectance of each pure material, `(m, bands)`."""
    facts = read_farmland()
    continua = PchipInterpolator(facts.knots_nm, list(facts.continua.values()), axis=1)(wavelengths_nm)
    features = [facts.absorption.get(m, facts.absorption["leaf"]) for m in facts.continua]
    absorbed = [_transmit(wavelengths_nm, each) for each in features]
    return np.asarray(continua * np.array(absorbed), dtype=np.float64)


def _transmit(wavelengths_nm: Floats, features: Sequence[Sequence[float]]) -> Floats:
    """Returns the fraction transmitted, `(bands,)`; a feature is a centre and deviation in nm and a depth."""
    centre, deviation, depth = np.array(features).T[..., None]  # each (features, 1)
    gaussians = np.exp(-0.5 * ((wavelengths_nm - centre) / deviation) ** 2)
    return np.asarray(np.prod(1 - depth * gaussians, axis=0), dtype=np.float64)
