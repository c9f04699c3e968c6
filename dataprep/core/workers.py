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
from contextlib import contextmanager
from typing import Any, TypeVar

from schemas.errors import SftpackError

Task = TypeVar("Task")
Result = TypeVar("Result")

_IN_FLIGHT_PER_WORKER = 2


def num_cores() -> int:
    """Cores this process may use: its affinity, and a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123
            quota, period = file.read().split()
        return max(1, min(cores, round(int(quota) / int(period)))) if quota != "max" else cores
    except (OSError, ValueError):
        return cores


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
        with _uninterrupted():
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
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
    if initializer is not None:
        initializer(*initargs)
