"""Worker processes: the same function over many tasks, results in their order; gone as soon as their parent is.

Few tasks are done in this process, since starting workers would cost more than it saves. Workers are forked where the
system can, so that they share what was loaded; they are killed with their parent, however it ends.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from schemas.errors import SftpackError

Task = TypeVar("Task")
Result = TypeVar("Result")

_IN_FLIGHT_PER_WORKER = 2
_SLURM = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")  # where it doesn't bind processes to their cores


def num_cores() -> int:
    """Cores this process may use: its affinity, a container's CPU quota, and what Slurm gave to the task or the job."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [cores, *cgroup_limits()]
    limits += [int(given) for name in _SLURM if (given := os.environ.get(name, "")).isdecimal()]
    return max(1, min(limits))


def cgroup_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """CPU quotas, in whole cores, of the control groups that this process is in, and of those around them.

    Within a container `own` may name folders of the host that aren't there; then what is mounted at `root` counts.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    limits = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":  # version 2: one tree
            tree, read = root, _quota
        elif "cpu" in controllers.split(","):  # version 1: a tree for each controller
            tree, read = root / "cpu", _quota_v1
        else:
            continue
        group = tree / path.lstrip("/")
        while group.is_relative_to(tree):
            with suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = read(group)
                limits.append(max(1, round(quota / period)))
            group = group.parent
    return limits


def _quota(group: Path) -> tuple[int, int]:
    quota, period = (group / "cpu.max").read_text(encoding="ascii").split()  # "150000 100000", or "max 100000"
    return int(quota), int(period)


def _quota_v1(group: Path) -> tuple[int, int]:
    quota = int((group / "cpu.cfs_quota_us").read_text(encoding="ascii"))
    if quota < 0:
        raise ValueError("no quota")
    return quota, int((group / "cpu.cfs_period_us").read_text(encoding="ascii"))


def run_tasks(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with `work(task)`, in order; with one worker, in this process. No more are under way than needed.

    Raises what `work` raises, and SftpackError when a worker dies.
    """
    if workers <= 1:
        if initializer is not None:
            initializer(*initargs)
        yield from ((task, work(task)) for task in tasks)
        return
    gc.freeze()  # so that collections in forked workers don't copy the pages of what they share
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(os.getpid(), initializer, initargs)
    )
    pending: deque[tuple[Task, Future[Result]]] = deque()
    try:
        for task in tasks:
            pending.append((task, pool.submit(work, task)))
            if len(pending) >= workers * _IN_FLIGHT_PER_WORKER:
                first, future = pending.popleft()
                yield first, future.result()
        for first, future in pending:
            yield first, future.result()
    except BrokenProcessPool as error:
        raise SftpackError(
            "a worker process was killed, likely for want of memory; run the command again, "
            "with --workers 1 if it happens again"
        ) from error
    finally:
        with uninterrupted():
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no second interrupt leave a pool half shut down: at its end Python would wait for the workers for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker(parent: int, initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt does
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
    os.environ["RAYON_NUM_THREADS"] = "1"  # processes are the parallelism here, not the encoders' threads
    if initializer is not None:
        initializer(*initargs)
