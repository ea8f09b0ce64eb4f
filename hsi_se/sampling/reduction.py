"""Reduces bands to components: fitted once on the training scene, applied unchanged to other scenes."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from spectral import GaussianStats, LinearTransform, calc_stats, mnf, noise_from_diffs

from hsi_se.config.experiment import MnfReduction, NoReduction, ReductionSettings
from hsi_se.errors import ConfigError, SceneError
from hsi_se.sampling.splits import Pixels
from hsi_se.scene.cube import Cube, StoredCube, is_large
from hsi_se.scene.raster import chunk_rows
from hsi_se.system.forms import Form


@dataclass(frozen=True, eq=False)
class Reduction:
    """A fitted linear map: component = ((band - mean) @ components.T) / scale.

    Attributes:
        mean: `(bands,)`, in the units of the cube.
        components: `(K, bands)`. The rows C are orthonormal, C Cᵀ = I. For MNF they are not, but noise of the
            covariance N has unit variance in each and is uncorrelated between them, C N Cᵀ = I.
        scale: `(K,)`, positive, in the units of the cube; for MNF in standard deviations of the noise.
    """

    mean: Annotated[NDArray[np.float64], Form("bands")]
    components: Annotated[NDArray[np.float64], Form("components bands")]
    scale: Annotated[NDArray[np.float64], Form("components", low=np.nextafter(0, 1))]

    @property
    def num_bands(self) -> int:
        return int(self.components.shape[1])

    @property
    def num_components(self) -> int:
        return int(self.components.shape[0])

    def apply(self, cube: Cube, *, nodata: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Returns the components `(rows, cols, K)` of a cube `(rows, cols, bands)`; SceneError if it has other bands.

        Pixels of the mask `nodata` are set to zero, which is the mean of the fit.
        """
        if cube.shape[2] != self.num_bands:
            problem = f"has {cube.shape[2]} bands, but the reduction was fitted on {self.num_bands}"
            raise SceneError(f"the cube {problem}; give a scene with the same bands")
        components = np.empty((*cube.shape[:2], self.num_components), dtype=np.float32)
        for rows in chunk_rows(len(cube)):  # in chunks, to bound the memory of float64 copies
            components[rows] = (cube[rows].astype(np.float64) - self.mean) @ (self.components.T / self.scale)
        if nodata is not None:
            components[nodata] = 0
        return components

    def apply_to_scene(self, cube: Cube, *, nodata: NDArray[np.bool_] | None = None) -> Cube:
        """Returns the components as `apply` does; if there are too many, they are computed when they are read."""
        shape = (*cube.shape[:2], self.num_components)
        if not is_large(shape, itemsize=4):
            return self.apply(cube, nodata=nodata)

        def read(first: int, last: int) -> NDArray[np.float32]:
            return self.apply(cube[first:last], nodata=None if nodata is None else nodata[first:last])

        return StoredCube(shape, np.dtype(np.float32), read)


def fit_reduction(
    cube: Cube, settings: ReductionSettings, *, train_pixels: Pixels, nodata: NDArray[np.bool_] | None = None
) -> Reduction:
    """Returns the reduction described by the config, fitted on the training pixels or the scene.

    Without `whiten`, all components are divided by the standard deviation of the first. This keeps their
    ratios, and values stay of order one. `none` keeps the bands, optionally standardized over the training pixels.

    The cube is `(rows, cols, bands)`; pixels of the mask `nodata` are excluded from the fit. ConfigError if there are
    more components than bands, or than the pixels of the fit allow, or `mnf` has too few pairs of neighbouring pixels;
    SceneError if all training pixels have the same spectrum.
    """
    num_bands = cube.shape[2]
    train = cube[train_pixels[:, 0], train_pixels[:, 1]].astype(np.float64)
    if len(train) > 1 and (train == train[0]).all():
        problem = f"all {len(train):,} training pixels have the same spectrum"
        raise SceneError(f"the cube: {problem}; check the file, scene.nodata and scene.scale")
    if isinstance(settings, NoReduction):
        fitted = Reduction(train.mean(axis=0), np.eye(num_bands), _positive(train.std(axis=0)))
        return fitted if settings.standardize else Reduction(np.zeros(num_bands), fitted.components, np.ones(num_bands))
    valid = np.ones(cube.shape[:2], bool) if nodata is None else ~nodata
    num_pixels = len(train) if settings.fit_on == "train" else np.count_nonzero(valid)
    most = min(num_bands, num_pixels - 1)
    if settings.components > most:
        wider = "write reduction.fit_on: scene, or " if settings.fit_on == "train" and most < num_bands else ""
        problem = f"the scene has {num_bands} bands and the fit {num_pixels} pixels"
        raise ConfigError(f"reduction.components = {settings.components}: {problem}; {wider}use at most {most}")
    if isinstance(settings, MnfReduction):
        fitted = _fit_mnf(cube, settings, train_pixels, valid)
    elif isinstance(cube, StoredCube) and settings.fit_on == "scene":
        fitted = _fit_pca_in_parts(cube, settings.components, valid)
    else:
        rows, cols = np.nonzero(valid)
        samples = train if settings.fit_on == "train" else cube[rows, cols].astype(np.float64)
        # The band covariance needs memory for the bands only; decomposing the pixel matrix would need far more.
        pca = PCA(settings.components, svd_solver="covariance_eigh", copy=False).fit(samples)
        fitted = Reduction(pca.mean_, pca.components_, _positive(np.sqrt(pca.explained_variance_)))
    return fitted if settings.whiten else replace(fitted, scale=np.full_like(fitted.scale, fitted.scale[0]))


def _fit_pca_in_parts(cube: Cube, num_components: int, valid: NDArray[np.bool_]) -> Reduction:
    """Returns the principal components of all valid pixels, with unit variance, of a cube that stays in its file."""
    stats = measure(cube, np.flatnonzero(valid))
    axes = stats.principal_components
    components = axes.eigenvectors[:, :num_components].T
    scale = _positive(np.sqrt(axes.eigenvalues[:num_components].clip(min=0)))
    return Reduction(stats.mean, components * _signs(components), scale)


def _fit_mnf(cube: Cube, settings: MnfReduction, train: Pixels, valid: NDArray[np.bool_]) -> Reduction:
    """Returns noise-adjusted principal components (Lee et al. 1990, IEEE TGRS 28(3)) of unit variance.

    The noise covariance is half that of the differences of pixels to their right and lower neighbours, both valid
    and, with `fit_on: train`, one of them a training pixel. A noise fraction below 1e-10 is taken as 1e-10.
    A component that varies less than its noise is scaled to unit noise variance.
    """
    num_bands, chosen, fitted, wider = cube.shape[2], valid, np.flatnonzero(valid), ""
    if settings.fit_on == "train":
        wider = "reduction.fit_on: scene, or " if sum(map(len, _list_pairs(valid, valid))) > num_bands else ""
        chosen, fitted = np.zeros_like(valid), train[:, 0] * cube.shape[1] + train[:, 1]
        chosen[train[:, 0], train[:, 1]] = True
    pairs = _list_pairs(valid, chosen)
    firsts, num_pairs = np.concatenate(pairs), len(pairs[0]) + len(pairs[1])
    problem = f"{num_pairs} pairs of neighbouring pixels are too few for the noise of {num_bands} bands"
    if num_pairs <= num_bands:
        raise ConfigError(f"reduction.kind = mnf: {problem}; write {wider}reduction.kind: pca")
    steps = np.repeat(np.array([1, cube.shape[1]], np.int32), [len(each) for each in pairs])
    signal, noise = measure(cube, fitted), measure(cube, firsts, steps=steps)
    mean, total = signal.mean, signal.cov + noise.cov
    spread = np.sqrt(np.diag(total))
    spread[spread <= 1e-13 * np.abs(mean)] = np.inf  # a constant band is in no component
    axes = GaussianStats(mean, total / np.outer(spread, spread)).principal_components
    kept = axes.eigenvalues > num_bands * np.finfo(np.float64).eps * axes.eigenvalues[0]
    if settings.components > (most := np.count_nonzero(kept)):
        problem = f"only {most} of {num_bands} bands are neither constant nor a combination of others"
        raise ConfigError(f"reduction.components = {settings.components}: {problem}; use at most {most}")
    # To a basis (dimensions, bands) in which signal + noise has unit covariance: noise is then its fraction.
    basis = (axes.eigenvectors[:, kept] / np.sqrt(axes.eigenvalues[kept])).T / spread
    signal, noise = (stats.transform(LinearTransform(basis)) for stats in (signal, noise))
    axes = noise.principal_components
    noise.cov = axes.eigenvectors * axes.eigenvalues.clip(min=1e-10) @ axes.eigenvectors.T
    # `napc` itself is from a solver for matrices that are not symmetric, which may give complex numbers.
    axes = mnf(signal, noise).napc.stats.principal_components
    components = axes.eigenvectors[:, : settings.components].T @ noise.sqrt_inv_cov @ basis
    components *= _signs(components * np.sqrt(np.diag(total)))
    return Reduction(mean, components, np.sqrt(axes.eigenvalues[: settings.components].clip(min=1)))


def _signs(loadings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the sign `(K, 1)` that makes the largest loading `(K, bands)` of each component positive."""
    return np.sign(np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1))


def _list_pairs(valid: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """Returns the first pixel `(n,)` of each pair of valid neighbours, one of them chosen: in rows, then in columns."""
    firsts = []
    for one, two in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        is_first = np.zeros_like(valid)
        is_first[one] = valid[one] & valid[two] & (chosen[one] | chosen[two])
        firsts.append(np.flatnonzero(is_first).astype(np.int32))
    return firsts


def measure(cube: Cube, places: NDArray[np.integer], *, steps: NDArray[np.integer] | None = None) -> GaussianStats:
    """Returns the statistics of pixels `(n,)` of the flat cube, or of the noise between them and those `steps` behind.

    The pixels are copied in chunks.
    """
    counts, means, within, num_chunks = [], [], 0, -(-len(places) // 4096)
    offsets = [None] * num_chunks if steps is None else np.array_split(steps, num_chunks)
    for chunk, offset in zip(np.array_split(places, num_chunks), offsets, strict=True):
        pixels = chunk if offset is None else np.c_[chunk, chunk + offset]
        spectra = cube[np.divmod(pixels, cube.shape[1])].astype(np.float64)
        part = calc_stats(spectra) if offset is None else noise_from_diffs(spectra, direction="right")
        counts.append(part.nsamples)
        means.append(part.mean)
        within = within + (part.nsamples - 1) * np.atleast_2d(part.cov)
    deviations = np.stack(means) - (mean := np.average(means, axis=0, weights=counts))
    between = (np.array(counts) * deviations.T) @ deviations / (1 if steps is None else 2)  # half the variance is noise
    return GaussianStats(mean, (within + between) / (len(places) - 1), len(places))


def _positive(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replaces zeros by 1, so that a constant band becomes zero instead of NaN."""
    return np.where(scale > 0, scale, 1.0)
