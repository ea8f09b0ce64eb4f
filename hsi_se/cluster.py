"""The tiles of a map on an existing Dask cluster: rows go out reduced and padded, logits come back.

The workers need this package, not the scene's files.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.bundled import make_predictor
from hsi_se.errors import ClusterError
from hsi_se.mapping.logits import Engine
from hsi_se.mapping.tiles import Tile, TilePredictor, TileSource
from hsi_se.records import ModelBundle
from hsi_se.training.history import Observer

_CONNECT_S, _WORKERS_S = 15, 10
_TILES_A_WORKER = 2  # one at work, one waiting: what is under way bounds the memory here


def predict_on_cluster(
    bundle: ModelBundle,
    source: TileSource,
    tiles: Sequence[range],
    *,
    engine: Engine,
    device: str,
    client: Any,
    observer: Observer,
) -> Iterator[tuple[range, NDArray[np.float32], NDArray[np.bool_]]]:
    """Yields the rows, the logits and the nodata of each tile, in the order in which they are done.

    A tile of a worker that is lost goes to another one.

    Args:
        bundle: what is applied.
        source: of the tiles.
        tiles: rows of the scene.
        engine: `dense` or `patches`.
        device: of each worker: `auto`, `cpu` or `cuda`.
        client: from `connect`; it is closed afterwards.
        observer: told of progress.

    Raises:
        ClusterError: the scheduler gives a tile up.
    """
    from distributed import as_completed

    try:
        num_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        # The result of a task, not data: Dask makes it again if all workers that hold it are lost.
        shared = client.submit(_hold, bundle, pure=False)
        waiting, at_work = iter(tiles), {}
        done = as_completed()

        def send() -> None:
            tile = next(waiting, None)
            if tile is not None:
                read = source.read(tile)
                future = client.submit(_predict, shared, engine, device, read, pure=False)
                at_work[future] = tile, read.missing[read.inner]
                done.add(future)

        for _ in range(_TILES_A_WORKER * max(1, num_workers)):  # a worker that is lost now may come back
            send()
        for future in done:
            tile, missing = at_work.pop(future)
            if future.status != "finished":
                raise ClusterError(
                    f"--scheduler {client.scheduler.address}: gave up rows {tile.start}-{tile.stop - 1} "
                    f"({future.exception()!r}); look into the workers' logs"
                )
            logits = future.result()
            future.release()
            send()
            observer.advance(missing.size * bundle.facts.prediction.num_passes)
            yield tile, logits, missing
    finally:
        client.close()


def connect(scheduler: str) -> Any:
    """Returns a client of the Dask scheduler at an address, `tcp://host:8786`, that has workers.

    Raises:
        ClusterError: none answers within 15 s, or it has no worker within another 10.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError("--scheduler needs dask and distributed; pip install 'hsi-se[cluster]'") from None
    try:
        client = Client(scheduler, timeout=_CONNECT_S)
    except (OSError, ValueError, RuntimeError):
        raise ClusterError(
            f"--scheduler {scheduler}: no Dask scheduler answers there; start one with `dask scheduler`, or "
            "leave --scheduler out"
        ) from None
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except OSError:
        client.close()
        raise ClusterError(
            f"--scheduler {scheduler}: has no worker; start one with `dask worker {scheduler}`"
        ) from None
    return client


# ------------------------------------------------------------------------------------- on a worker


def _hold(bundle: ModelBundle) -> ModelBundle:
    return bundle


@functools.lru_cache(maxsize=1)
def _prepare(bundle: ModelBundle, engine: Engine, device: str) -> TilePredictor:
    """Made once a worker. In evaluation mode for good, as its tiles may run side by side."""
    return make_predictor(bundle, engine=engine, device=device)


def _predict(bundle: ModelBundle, engine: Engine, device: str, tile: Tile) -> NDArray[np.float32]:
    return _prepare(bundle, engine, device).predict(tile)
