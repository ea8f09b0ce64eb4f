"""Predicts the tiles of a map on a Dask cluster: reduced and padded rows go out, logits come back.

The workers need this package, but not the scene's files.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import ClusterError
from hsi_se.prediction.bundled import Prediction, Tile, TilePredictor, TileSource
from hsi_se.prediction.logits import Engine
from hsi_se.runs.bundle import ModelBundle
from hsi_se.scene.image import Image, Mask
from hsi_se.system.cluster import Call, run_tasks, share
from hsi_se.system.session import Session


def predict_on_cluster(
    bundle: ModelBundle, image: Image, tiles: Sequence[range], *, engine: Engine, client: Any, session: Session
) -> Iterator[Prediction]:
    """Yields the rows, the logits and the nodata of each tile, in the order in which they are done.

    Args:
        image: from `open_target`.
        client: from `start_cluster`.
        session: the device of each worker, and the observer here.

    Raises:
        ClusterError: the scheduler gives a tile up or is lost, or the cluster stays without workers.
    """
    source, shared = TileSource(image, bundle), share(client, bundle)

    def read_tiles() -> Iterator[Call[tuple[range, Mask]]]:
        for tile in tiles:
            read = source.read(tile)
            yield (tile, read.missing[read.inner]), _predict, (shared, engine, session.device, read)

    for (tile, missing), logits in run_tasks(client, read_tiles(), per_slot=2):
        if isinstance(logits, BaseException):
            raise ClusterError(
                f"--scheduler {client.scheduler.address}: gave up rows {tile.start}-{tile.stop - 1} "
                f"({logits!r}); look into the workers' logs"
            )
        session.observer.advance(missing.size * bundle.facts.prediction.num_passes)
        yield tile, logits, missing


# ------------------------------------------------------------------------------------- on a worker


@functools.lru_cache(maxsize=1)
def _prepare(bundle: ModelBundle, engine: Engine, device: str) -> TilePredictor:
    """Made once per worker. Its network stays in evaluation mode, as tiles may run side by side."""
    return TilePredictor(bundle, engine=engine, device=device)


def _predict(bundle: ModelBundle, engine: Engine, device: str, tile: Tile) -> NDArray[np.float32]:
    return _prepare(bundle, engine, device).predict(tile)
