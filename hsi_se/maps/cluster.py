"""The tiles of a map on an existing Dask cluster: rows go out reduced and padded, logits come back.

The workers need this package, not the scene's files.
"""

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsi_se.errors import ClusterError
from hsi_se.prediction.bundled import make_predictor, make_source
from hsi_se.prediction.logits import Engine
from hsi_se.prediction.tiles import Prediction, Tile, TilePredictor
from hsi_se.runs.bundle import ModelBundle
from hsi_se.scene.image import Image, Mask
from hsi_se.system.cluster import _count_workers
from hsi_se.system.session import Session

_LOST_S = 60.0  # without any worker
_LOOK_S = 0.1  # between looks at what is done: a worker has its next tile meanwhile
_TILES_A_WORKER = 2  # one at work, one waiting: what is under way bounds the memory here


def predict_on_cluster(
    bundle: ModelBundle,
    image: Image,
    tiles: Sequence[range],
    *,
    engine: Engine,
    client: Any,
    session: Session,
) -> Iterator[Prediction]:
    """Yields the rows, the logits and the nodata of each tile, in the order in which they are done.

    A tile of a worker that is lost goes to another one, or to one that comes within `_LOST_S`.

    Args:
        bundle: what is applied.
        image: from `open_target`.
        tiles: rows of the scene.
        engine: `dense` or `patches`.
        client: from `connect`.
        session: the device of each worker, and the observer here.

    Raises:
        ClusterError: the scheduler gives a tile up or is lost, or stays without workers.
    """
    from distributed import as_completed

    # The result of a task, not data: Dask makes it again if all workers that hold it are lost.
    shared = client.submit(_hold, bundle, pure=False)
    address = client.scheduler.address
    source, waiting = make_source(bundle, image), iter(tiles)
    at_work: dict[Any, tuple[range, Mask]] = {}
    done = as_completed(with_results=True, raise_errors=False)

    def send() -> None:
        num_workers = max(1, _count_workers(client))  # the first may yet come
        while len(at_work) < _TILES_A_WORKER * num_workers and (tile := next(waiting, None)) is not None:
            read = source.read(tile)
            future = client.submit(_predict, shared, engine, session.device, read, pure=False)
            at_work[future] = tile, read.missing[read.inner]
            done.add(future)

    send()
    while at_work:
        _await_one(done, client, address)
        future, logits = next(done)
        tile, missing = at_work.pop(future)
        if not isinstance(logits, np.ndarray):  # and whatever has become of its worker since
            raise ClusterError(_explain(logits, tile, address))
        future.release()
        send()
        session.observer.advance(missing.size * bundle.facts.prediction.num_passes)
        yield tile, logits, missing


def _await_one(done: Any, client: Any, scheduler: str) -> None:
    """Returns when a tile is done, however long a worker takes for it."""
    last_seen = time.monotonic()
    while not done.has_ready():
        if _count_workers(client):
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > _LOST_S:
            raise ClusterError(
                f"--scheduler {scheduler}: has had no worker for {_LOST_S:.0f} s; start one with "
                f"`dask worker {scheduler}`, and the same command goes on with the tiles that are done"
            )
        time.sleep(_LOOK_S)


def _explain(failure: Any, tile: range, scheduler: str) -> str:
    """Of what `as_completed` gives in place of a result."""
    if isinstance(failure, tuple):  # of an exception: its type, itself, its traceback
        rows = f"{tile.start}-{tile.stop - 1}"
        return f"--scheduler {scheduler}: gave up rows {rows} ({failure[1]!r}); look into the workers' logs"
    return (
        f"--scheduler {scheduler}: is lost; start it again with its workers, and the same command goes on "
        "with the tiles that are done"
    )


# ------------------------------------------------------------------------------------- on a worker


def _hold(bundle: ModelBundle) -> ModelBundle:
    return bundle


@functools.lru_cache(maxsize=1)
def _prepare(bundle: ModelBundle, engine: Engine, device: str) -> TilePredictor:
    """Made once a worker. In evaluation mode for good, as its tiles may run side by side."""
    return make_predictor(bundle, engine=engine, device=device)


def _predict(bundle: ModelBundle, engine: Engine, device: str, tile: Tile) -> NDArray[np.float32]:
    return _prepare(bundle, engine, device).predict(tile)
