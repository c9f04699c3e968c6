"""Tasks on a Ray cluster: the same function over many tasks, each on one core of some node; results as they are done.

Ray does again what a killed worker or node had under way. Each worker process is prepared once. A worker that can't
read by itself what its task is about says so, and gets it sent through Ray's object store.
"""

import importlib.util
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dataprep.core.workers import Result, Task, uninterrupted
from schemas.errors import InputError, SftpackError

if TYPE_CHECKING:
    from ray.exceptions import RayTaskError

Supplied = Callable[[], bytes]  # fetches what was sent with a task

_RETRIES = 3
_IN_FLIGHT_PER_CPU = 2  # one runs, the next one waits beside it
_LOOK_AGAIN_S = 5.0  # how often the size of the cluster is asked for
_NO_NODES_S = 300.0  # how long a cluster may be without a core, as one is that grows on demand
_LEAVE_S = 10.0  # in which whoever waits for a head that is gone may say so
_CONNECT_S = 5.0  # Ray itself would try for minutes
_GONE_S = 10.0  # how long the head may not answer, as when it is started anew; after 60 s Ray ends this process
_QUIET = {  # it reports nothing, prints no logs of others, and gives no tips
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_STORE_BYTES = 100 << 20  # of a Ray that is started here: nothing need be sent
_MOST_SENT_BYTES = 256 << 20  # what tasks under way may have been sent together


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
    over = threading.Event()
    if address is not None:
        head = ray.get_runtime_context().gcs_address
        threading.Thread(target=_end_without_head, args=(head, over), daemon=True).start()
    try:
        yield Cluster(address=address, nodes=_nodes())
    finally:
        with uninterrupted():
            ray.shutdown()
        over.set()


def _end_without_head(address: str, over: threading.Event) -> None:
    """End this process where a call of Ray's waits for a head that is gone: after a minute Ray itself would."""
    while not over.wait(_LOOK_AGAIN_S):
        try:
            _require_head(address)
        except SftpackError as error:
            if not over.wait(_LEAVE_S):
                print(f"dataprep: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            return


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
    work: Callable[[Task, Supplied | None], Result | None],
    tasks: Iterable[Task],
    most: int | None,
    initializer: Callable[..., None],
    initargs: tuple[Any, ...],
    supply: Callable[[Task], bytes],
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with `work(task, None)`, as they are done; at most `most` at once, else what there is room for.

    Where that gives None, this task and all that follow are sent with what fetches `supply(task)`. Within `connected`.
    Raises what `work` and `initializer` raise, and SftpackError when workers die again and again.
    """
    import ray

    calls, queue, room = _Calls(work, initializer, initargs, supply), iter(tasks), _Room(most)
    try:
        while True:
            while len(calls.running) < room.size() and calls.sent_bytes < _MOST_SENT_BYTES:
                if (following := next(queue, None)) is None:
                    break
                calls.begin(following)
            if not calls.running:
                return
            yield from calls.ended()
    except ray.exceptions.RayTaskError as error:
        raise _told(error) from error
    except ray.exceptions.RayError as error:
        _require_head(ray.get_runtime_context().gcs_address)
        raise SftpackError(
            f"Ray gave a task up after {_RETRIES} further tries: its worker or node was killed each time, likely for "
            "want of memory; run the command again, it goes on"
        ) from error
    finally:
        with uninterrupted(), suppress(ray.exceptions.RayError):
            for ref in calls.running:
                ray.cancel(ref, force=True)


class _Calls:
    """The tasks under way."""

    def __init__(
        self,
        work: Callable[[Any, Supplied | None], Any],
        initializer: Callable[..., None],
        initargs: tuple[Any, ...],
        supply: Callable[[Any], bytes],
    ) -> None:
        import ray

        self.running: dict[Any, tuple[Any, int]] = {}  # what a reference stands for, and the bytes sent with it
        self.sent_bytes = 0
        self._remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_in_worker)
        self._call = ray.put((work, initializer, initargs))
        self._run, self._supply, self._sends = uuid4().hex, supply, False

    def begin(self, task: Any) -> None:
        """Hand a task to the cluster."""
        import ray

        supplied = self._supply(task) if self._sends else None
        boxed = None if supplied is None else [ray.put(supplied)]  # in a list: only who needs it fetches it
        num_bytes = len(supplied or b"")
        self.running[self._remote.remote(self._run, [self._call], task, boxed)] = task, num_bytes
        self.sent_bytes += num_bytes

    def ended(self) -> Iterator[tuple[Any, Any]]:
        """Yield a task that is done, with its result, where one is within a few seconds."""
        import ray

        done, _ = ray.wait(list(self.running), num_returns=1, timeout=_LOOK_AGAIN_S)
        for ref in done:
            result = ray.get(ref)
            task, num_bytes = self.running.pop(ref)
            self.sent_bytes -= num_bytes
            if result is not None:
                yield task, result
                continue
            self._sends = True
            self.begin(task)


class _Room:
    """How many tasks may be under way, as the cluster grows and shrinks."""

    def __init__(self, most: int | None) -> None:
        import ray

        self._most = most
        self._head = ray.get_runtime_context().gcs_address
        self._asked = self._seen = time.monotonic()
        self._cpus = _num_cpus()

    def size(self) -> int:
        """Raises SftpackError where the cluster has had no core for minutes, and where its head is gone."""
        now = time.monotonic()
        if now - self._asked > _LOOK_AGAIN_S:
            _require_head(self._head)
            self._asked, self._cpus = now, _num_cpus()
        if self._cpus:
            self._seen = now
        elif now - self._seen > _NO_NODES_S:
            raise SftpackError(
                f"the Ray cluster has had no CPU for {_NO_NODES_S:.0f} s; add nodes, then run the command again"
            )
        return self._most or max(1, self._cpus) * _IN_FLIGHT_PER_CPU


def _require_head(address: str) -> None:
    """Raises SftpackError where the cluster's head, or Ray on this machine, doesn't answer."""
    until = time.monotonic() + _GONE_S
    while (gone := not _answers_here()) or not _answers(address):
        if gone or time.monotonic() > until:
            what = "Ray on this machine" if gone else f"Ray's head node at {address}"
            raise SftpackError(f"{what} is gone; start it again, then run the command again: it goes on")
        time.sleep(1)


def _answers_here() -> bool:
    """Whether this machine's part of the cluster does: without it Ray ends this process, sometimes without a word."""
    from ray._private import worker

    path = getattr(worker._global_node, "raylet_socket_name", None)
    if path is None:
        return True
    with socket.socket(socket.AF_UNIX) as end, suppress(FileNotFoundError, ConnectionRefusedError):
        end.connect(path)
        return True
    return False


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


def _in_worker(run: str, call: list[Any], task: Any, boxed: list[Any] | None) -> Any:
    global _prepared
    import ray

    if _prepared is None or _prepared[0] != run:
        os.environ["RAYON_NUM_THREADS"] = "1"  # a task has one core
        work, initializer, initargs = ray.get(call[0])
        initializer(*initargs)
        _prepared = run, work
    supply = None if boxed is None else partial(ray.get, boxed[0])
    return _prepared[1](task, supply)
