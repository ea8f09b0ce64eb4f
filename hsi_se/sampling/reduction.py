"""Reduces bands to components: fitted once on the training scene, applied unchanged to other scenes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from hsi_se.config.experiment import NoReduction, PcaReduction
from hsi_se.errors import ConfigError, SceneError
from hsi_se.sampling.splits import Pixels
from hsi_se.scene.raster import chunk_rows


@dataclass(frozen=True, eq=False)
class Reduction:
    """A fitted linear map: component = ((band - mean) @ components.T) / scale.

    Attributes:
        mean: `(bands,)`, in the units of the cube.
        components: `(K, bands)` with orthonormal rows.
        scale: `(K,)`, positive, in the units of the cube.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    scale: NDArray[np.float64]

    @property
    def num_bands(self) -> int:
        return int(self.components.shape[1])

    @property
    def num_components(self) -> int:
        return int(self.components.shape[0])

    def apply(self, cube: NDArray[np.generic], *, nodata: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Returns the components `(rows, cols, K)` of a cube `(rows, cols, bands)`.

        Pixels of the mask `nodata` are set to zero, which is the mean of the fit.

        Raises:
            SceneError: the number of bands differs from that of the fit.
        """
        if cube.shape[2] != self.num_bands:
            raise SceneError(
                f"the cube has {cube.shape[2]} bands, but the reduction was fitted on {self.num_bands}; "
                "give a scene with the same bands"
            )
        components = np.empty((*cube.shape[:2], self.num_components), dtype=np.float32)
        for rows in chunk_rows(len(cube)):  # in chunks, to bound the memory of float64 copies
            components[rows] = (cube[rows].astype(np.float64) - self.mean) @ (self.components.T / self.scale)
        if nodata is not None:
            components[nodata] = 0
        return components


def fit_reduction(
    cube: NDArray[np.generic],
    settings: PcaReduction | NoReduction,
    *,
    train_pixels: Pixels,
    nodata: NDArray[np.bool_] | None = None,
) -> Reduction:
    """Returns the reduction described by the config, fitted on the training pixels or the scene.

    `pca` with `whiten` scales every component to unit variance. Without `whiten`, all components are
    divided by the standard deviation of the first. This keeps their ratios, and values stay of order one.
    `none` keeps the bands, optionally standardized over the training pixels.

    The cube is `(rows, cols, bands)`; pixels of the mask `nodata` are excluded from the fit.

    Raises:
        ConfigError: there are more components than bands, or than the pixels of the fit allow.
        SceneError: all training pixels have the same spectrum.
    """
    num_bands = cube.shape[2]
    train = cube[train_pixels[:, 0], train_pixels[:, 1]].astype(np.float64)
    if len(train) > 1 and (train == train[0]).all():
        raise SceneError(
            f"the cube: all {len(train):,} training pixels have the same spectrum; check the file, "
            "scene.nodata and scene.scale"
        )
    if isinstance(settings, NoReduction):
        identity = np.eye(num_bands)
        if not settings.standardize:
            return Reduction(np.zeros(num_bands), identity, np.ones(num_bands))
        return Reduction(train.mean(axis=0), identity, _positive(train.std(axis=0)))

    samples = train
    if settings.fit_on != "train":
        samples = (cube.reshape(-1, num_bands) if nodata is None else cube[~nodata]).astype(np.float64)
    most = min(num_bands, len(samples) - 1)
    if settings.components > most:
        wider = "write reduction.fit_on: scene, or " if settings.fit_on == "train" and most < num_bands else ""
        raise ConfigError(
            f"reduction.components = {settings.components}: the scene has {num_bands} bands and the fit "
            f"{len(samples)} pixels; {wider}use at most {most}"
        )
    # The band covariance needs memory for the bands only; decomposing the pixel matrix would need far more.
    pca = PCA(settings.components, svd_solver="covariance_eigh", copy=False).fit(samples)
    deviations = _positive(np.sqrt(pca.explained_variance_))
    scale = deviations if settings.whiten else np.full_like(deviations, deviations[0])
    return Reduction(pca.mean_, pca.components_, scale)


def _positive(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replaces zeros by 1, so that a constant band becomes zero instead of NaN."""
    return np.where(scale > 0, scale, 1.0)
