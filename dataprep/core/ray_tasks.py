"""Tasks on a Ray cluster: the same function over many tasks, each on one core of some node; results as they are done.

Ray does again what a killed worker or node had under way. What tasks read and write must lie where every node finds it
under the same path. Each worker process is prepared once.
"""

import importlib.util
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dataprep.core.workers import Result, Task, uninterrupted
from schemas.errors import InputError, SftpackError

if TYPE_CHECKING:
    from ray.exceptions import RayTaskError

_RETRIES = 3
_IN_FLIGHT_PER_CPU = 2  # one runs, the next one waits beside it
_LOOK_AGAIN_S = 5.0  # how often the size of the cluster is asked for
_NO_NODES_S = 300.0  # how long a cluster may be without a core, as one is that grows on demand
_CONNECT_S = 5.0  # Ray itself would try for minutes
_QUIET = {  # it reports nothing, prints no logs of others, and gives no tips
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_STORE_BYTES = 100 << 20  # tasks and results are small


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The cluster that this process is connected to."""

    address: str | None  # None: started here, for this run
    nodes: frozenset[str]  # at first

    def text(self) -> str:
        """Which it is, how large it is now, and what it lost."""
        if self.address is None:
            return f"a Ray started on this machine, {_num_cpus()} CPUs"
        now = _nodes()
        size = f"{len(now)} {'node' if len(now) == 1 else 'nodes'}, {_num_cpus()} CPUs"
        lost = len(self.nodes - now)
        return f"Ray at {self.address}, {size}" + (f"; {lost} more left on the way" if lost else "")


def require_ray() -> None:
    """Raises InputError where Ray isn't installed."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("--engine ray: Ray isn't installed; run: pip install 'sftpack[ray]'")


@contextmanager
def connected(cores: int) -> Iterator[Cluster]:
    """Connect to the cluster of RAY_ADDRESS, else to the one that runs on this machine; else start one of `cores`.

    One that was started here ends with the block. Raises SftpackError where RAY_ADDRESS doesn't answer.
    """
    require_ray()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield Cluster(address=ray.get_runtime_context().gcs_address, nodes=_nodes())
        return
    address = _running_cluster()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    own: dict[str, Any] = {"num_cpus": cores, "num_gpus": 0, "object_store_memory": _STORE_BYTES}
    try:
        if address is not None:
            ray.init(address, **quiet)
        else:
            ray.init("local", include_dashboard=False, **own, **quiet)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "on this machine" if address is None else f"at {address}"
        reason = str(error).strip().split("\n")[0]
        raise SftpackError(f"--engine ray: no Ray can be had {where}: {reason}") from error
    try:
        yield Cluster(address=address, nodes=_nodes())
    finally:
        with uninterrupted():
            ray.shutdown()


def _running_cluster() -> str | None:
    """The address of a cluster to connect to. Raises SftpackError where RAY_ADDRESS names one that doesn't answer."""
    given = os.environ.get("RAY_ADDRESS", "")
    if given == "local":
        return None
    if given and given != "auto":
        if not _answers(given):
            raise SftpackError(
                f"RAY_ADDRESS {given}: no Ray answers there; start it (ray start --head), or unset RAY_ADDRESS"
            )
        return given
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    with suppress(OSError):  # what `ray start` leaves on each of its machines
        address = (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
        return address if _answers(address) else None
    return None


def _answers(address: str) -> bool:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return False
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError):
        return False
    return True


def run_on_ray(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    most: int | None,
    initializer: Callable[..., None],
    initargs: tuple[Any, ...],
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with `work(task)`, as they are done; at most `most` at once, else what the cluster has room for.

    Within `connected`. Raises what `work` and `initializer` raise, and SftpackError when workers die again and again.
    """
    import ray

    call = ray.put((work, initializer, initargs))
    remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_in_worker)
    run, queue, room = uuid4().hex, iter(tasks), _Room(most)
    running: dict[Any, Task] = {}
    try:
        while True:
            running |= {
                remote.remote(run, [call], task): task for task in islice(queue, max(0, room.size() - len(running)))
            }
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_AGAIN_S)
            for ref in done:
                yield running.pop(ref), ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise _told(error) from error
    except ray.exceptions.RayError as error:
        raise SftpackError(
            f"Ray gave a task up after {_RETRIES} further tries: its worker or node was killed each time, likely for "
            "want of memory; run the command again, it goes on"
        ) from error
    finally:
        with uninterrupted(), suppress(ray.exceptions.RayError):
            for ref in running:
                ray.cancel(ref, force=True)


class _Room:
    """How many tasks may be under way, as the cluster grows and shrinks."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._asked = self._seen = time.monotonic()
        self._cpus = _num_cpus()

    def size(self) -> int:
        """Raises SftpackError where the cluster has had no core for minutes."""
        now = time.monotonic()
        if now - self._asked > _LOOK_AGAIN_S:
            self._asked, self._cpus = now, _num_cpus()
        if self._cpus:
            self._seen = now
        elif now - self._seen > _NO_NODES_S:
            raise SftpackError(
                f"the Ray cluster has had no CPU for {_NO_NODES_S:.0f} s; add nodes, then run the command again"
            )
        return self._most or max(1, self._cpus) * _IN_FLIGHT_PER_CPU


def _num_cpus() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


def _nodes() -> frozenset[str]:
    """The nodes that are alive."""
    import ray

    return frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])


def _told(error: "RayTaskError") -> BaseException:
    """What a task raised, without Ray around it."""
    from ray.exceptions import RaySystemError

    text = str(error).strip()
    if isinstance(error.cause, ImportError | RaySystemError) or "failed to import" in text:
        return SftpackError(
            f"a node of the Ray cluster can't load sftpack: {text.splitlines()[-1]}; install the same on every node"
        )
    return error.cause if isinstance(error.cause, SftpackError | OSError | MemoryError) else error


_prepared: tuple[str, Callable[..., Any]] | None = None  # the run that this worker process was prepared for


def _in_worker(run: str, call: list[Any], task: Any) -> Any:
    global _prepared
    if _prepared is None or _prepared[0] != run:
        import ray

        os.environ["RAYON_NUM_THREADS"] = "1"  # a task has one core
        work, initializer, initargs = ray.get(call[0])
        initializer(*initargs)
        _prepared = run, work
    return _prepared[1](task)
