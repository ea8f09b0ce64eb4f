"""Dask clusters: an existing one, or one on this machine, and a bounded number of tasks under way on it."""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hsi_se.errors import ClusterError, ConfigError, how_to_install
from hsi_se.version import __version__

_CONNECT_S, _WORKERS_S = 15, 10
_MOST_WORKERS = 1024  # so that a slip of the finger starts no more
_LOST_S = 60.0  # without any worker
_LOOK_S = 0.1  # between looks at what is done and at who is there
_RERUN = "rerun the same command to resume (finished work is kept)"

Task = TypeVar("Task")
Call = tuple[Task, Callable[..., Any], tuple[Any, ...]]  # a task, and what a worker calls for it


def run_tasks(
    client: Any, calls: Iterator[Call[Task] | None], *, per_slot: int
) -> Generator[tuple[Task, Any], None, None]:
    """Yields each task that is done with its result, or the exception that it raised.

    Where workers declare GPUs, each GPU counts in place of a worker, and a task occupies one. The task of a worker that
    is lost goes to another one, or to one that appears within `_LOST_S`. At the end, the tasks under way are cancelled.
    Calls are taken when there is room for them, with `per_slot` under way for each worker (with 2, one is at work and
    one waits); a call is None where nothing can be sent at the moment. ClusterError if the scheduler is lost, a worker
    has another version of this package, or there has been no worker for `_LOST_S`.
    """
    from distributed import as_completed

    scheduler = client.scheduler.address
    name = f"--scheduler {scheduler}" if client.cluster is None else "--workers"
    lost = ClusterError(f"{name}: is lost; start it again with its workers, then {_RERUN}")
    under_way: dict[Any, Task] = {}
    finished = as_completed(with_results=True, raise_errors=False, loop=client.loop)
    done: tuple[Task, Any] | None = None
    is_more, last_seen = True, time.monotonic()
    known: set[str] = set()  # the workers whose versions are checked
    try:
        while is_more or under_way or done is not None:
            num_slots, resources = count_slots(client)
            if client.cluster is None:
                known = _check_versions(client, known)
            while is_more and len(under_way) < per_slot * num_slots:
                try:
                    call = next(calls)
                except StopIteration:
                    is_more = False
                    break
                if call is None:
                    break
                task, function, arguments = call
                future = client.submit(_call, function, *arguments, pure=False, resources=resources)
                under_way[future] = task
                finished.add(future)
            if done is not None:
                yield done
                done, last_seen = None, time.monotonic()  # however long that has taken
            if client.status == "closed":  # it has tried to connect again, and given up
                raise lost
            if num_slots:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > _LOST_S:
                remedy = f"start one with `dask worker {scheduler}`, then {_RERUN}"
                raise ClusterError(f"{name}: has had no worker for {_LOST_S:.0f} s; {remedy}")
            if not finished.has_ready():
                time.sleep(_LOOK_S)
                continue
            future, result = next(finished)
            if not isinstance(result, list | tuple):  # whatever has become of the future's worker since
                raise lost
            future.release()
            # Of an exception there is a tuple: its type, itself, its traceback.
            done = under_way.pop(future), result[0] if isinstance(result, list) else result[1]
    finally:
        if client.status == "running":
            client.cancel(list(under_way))


def _check_versions(client: Any, known: set[str]) -> set[str]:
    """Returns the addresses of today's workers; ClusterError if one that is not known yet has another version."""
    try:
        if not (found := set(client.sync(client.scheduler.identity)["workers"])) - known:
            return known
        # A function by value, which runs where this package is missing, too.
        versions = client.run(lambda: __import__("hsi_se").__version__, workers=list(found - known), on_error="return")
    except (OSError, AttributeError, RuntimeError):  # as in `count_slots`
        return known
    for address, theirs in versions.items():
        if theirs != __version__:
            has = f"has hsi-se {theirs}" if isinstance(theirs, str) else f"does not have hsi-se ({theirs})"
            raise ClusterError(f"worker {address}: {has}, and this is {__version__}; install that version there")
    return found


def _call(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Returns a list of the result, which tells it from whatever else Dask returns: that is a failure."""
    return [function(*arguments)]


def share(client: Any, value: Any) -> Any:
    """Returns what stands for a value among the arguments of tasks: each worker receives it once."""
    # The result of a task, not data: Dask makes it again if all workers that hold it are lost.
    return client.submit(lambda: value, pure=False)


def count_slots(client: Any) -> tuple[int, dict[str, int] | None]:
    """Returns how many tasks can run at a time, and the resources that each of them takes.

    It asks the scheduler itself: the client's copy of the answer is at times one without workers.
    """
    try:
        workers = client.sync(client.scheduler.identity)["workers"].values()
    except (OSError, AttributeError, RuntimeError):  # it cannot be reached, or the client is closed
        return 0, None
    gpus = sum(int(worker.get("resources", {}).get("GPU", 0)) for worker in workers)
    return (gpus, {"GPU": 1}) if gpus else (len(workers), None)


@contextmanager
def start_cluster(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Yields a client of an existing cluster, or of one with so many workers here; None without either.

    ConfigError if both are asked for, or no worker; ClusterError as for `connect`.
    """
    if workers is not None and scheduler is not None:
        raise ConfigError("--workers: has no effect beside --scheduler; leave one of them out")
    if workers is not None and not 1 <= workers <= _MOST_WORKERS:
        raise ConfigError(f"--workers {workers}: use 1 to {_MOST_WORKERS}")
    if workers is None and scheduler is None:
        yield None
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        setting = "--workers" if scheduler is None else "--scheduler"
        raise ClusterError(f"{setting} needs dask and distributed; {how_to_install('cluster')}") from None
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.CRITICAL)  # what goes wrong is said in one line, by this package
    if scheduler is not None:
        with connect(scheduler) as client:
            yield client
        return
    # The dashboard takes any free port: Dask warns of a port that is taken. With the temporary certificates, no other
    # user of this machine can give the workers code to run.
    addresses = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    options = {"threads_per_worker": 1, "memory_limit": 0, "silence_logs": 50, "security": True}
    cluster = LocalCluster(n_workers=workers, **addresses, **options)
    with cluster, Client(cluster) as client:
        yield client


def connect(scheduler: str) -> Any:
    """Returns a client of the Dask scheduler at an address, `tcp://host:8786`, that has workers.

    ClusterError if no scheduler answers within 15 s, or it has no worker within another 10.
    """
    from distributed import Client

    try:
        client = Client(scheduler, timeout=_CONNECT_S)
    except (OSError, ValueError, RuntimeError):
        remedy = "start one with `dask scheduler`, or leave --scheduler out"
        raise ClusterError(f"--scheduler {scheduler}: no Dask scheduler answers there; {remedy}") from None
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except OSError:
        client.close()
        remedy = f"start one with `dask worker {scheduler}`"
        raise ClusterError(f"--scheduler {scheduler}: has no worker; {remedy}") from None
    return client
