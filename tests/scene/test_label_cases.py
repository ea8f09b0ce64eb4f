"""Every label file of the public cases is read rightly: the spectra of its classes tell them apart."""

import numpy as np
import pytest

from hsi_se.config.yaml_file import load_config
from hsi_se.scene.loading import load_scene
from tests.conftest import CASES, needs_cases


@needs_cases
@pytest.mark.parametrize(
    ("case", "labels", "options", "least"),
    [
        *(("03", f"{name}.tif", (), 0.99) for name in ("same", "shifted", "region", "southup")),
        *(("05", f"fields.{ending}", (), 0.99) for ending in ("gpkg", "shp", "geojson", "dbf")),
        *(("05", name, (), 0.97) for name in ("gps_points.csv", "extra_columns.csv", "pixel_names.csv")),
        *(("06", name, (), 0.98) for name in ("grey.png", "rgb.png", "rgb.tif", "onehot.npy", "text.npy")),
        ("06", "probabilities_like.npy", (), 0.98),
        ("06", "minus_one.npy", ("scene.unlabelled=-1",), 0.98),
        ("06", "flat_gt.mat", ("scene.labels.pixel_order=columns",), 0.98),
        ("06", "{soil: mask_soil.tif, maize: mask_maize.tif, beet: mask_beet.tif}", (), 0.98),
    ],
)
def test_every_file_of_the_cases_is_read_rightly(case, labels, options, least):
    (folder,) = CASES.glob(f"{case}-*")
    settings = (f"scene.labels={labels}", *options, "model={name: svm}")
    config = load_config(folder / "run.yaml", settings)
    scene = load_scene(config.scene, folder)
    pixels = np.argwhere(scene.labels > 0)
    chosen = np.random.default_rng(0).permutation(len(pixels))
    spectra = scene.cube[tuple(pixels.T)].astype(float)
    means = np.stack([spectra[chosen[::2]][scene.labels[tuple(pixels[chosen[::2]].T)] == label].mean(axis=0)
                      for label in scene.class_ids])  # fmt: skip
    rest = chosen[1::2]
    nearest = np.linalg.norm(spectra[rest][:, None] - means, axis=2).argmin(axis=1)
    assert (scene.class_ids[nearest] == scene.labels[tuple(pixels[rest].T)]).mean() > least
