"""Dask clusters: an existing one, or one on this machine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hsi_se.errors import ClusterError, ConfigError

# ------------------------------------------------------------------------------------- on a cluster


@contextmanager
def _start_cluster(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Yields a client of the cluster that is asked for, or None."""
    if workers is not None and scheduler is not None:
        raise ConfigError("--workers: has no effect beside --scheduler; leave one of them out")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: write 1 or more")
    if workers is None and scheduler is None:
        yield None
        return
    if scheduler is not None:
        with connect(scheduler) as client:
            yield client
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ClusterError("--workers needs dask and distributed; pip install 'hsi-se[cluster]'") from None
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port: a taken one is a warning
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _count_slots(client: Any) -> tuple[int, Mapping[str, int] | None]:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    gpus = sum(int(worker.get("resources", {}).get("GPU", 0)) for worker in workers)
    return (gpus, {"GPU": 1}) if gpus else (len(workers), None)


_CONNECT_S, _WORKERS_S = 15, 10


def _count_workers(client: Any) -> int:
    """Returns 0 also while the scheduler cannot be reached.

    The number is right in every answer of the scheduler's, the list of workers is not: the client asks by
    itself too, for none of them, and may do so between a question and its answer.
    """
    return int(client.scheduler_info().get("n_workers", 0))


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
