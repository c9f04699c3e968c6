"""Work beside training: each rank's jobs, one after the other in a thread of its own, their errors told in training's.

What is to be on disk first is begun first: a checkpoint that knows of a best model is named behind it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed

from schemas.errors import SftpackError, TrainError
from train.launch import Ranks


class Background:
    """The jobs of one rank; every rank has one, and begins and finishes the same jobs in the same order."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._last: threading.Thread | None = None
        self._error: str | None = None  # of the first job that failed; those behind it are not done

    def begin(self, job: Callable[[], None] | None) -> threading.Thread:
        """Have `job` done behind those before it; None where another rank has the work."""
        self._last = threading.Thread(target=self._do, args=(job, self._last), name="background", daemon=True)
        self._last.start()
        return self._last

    def check(self) -> None:
        """Raise TrainError where a job has failed meanwhile."""
        if self._error is not None:
            raise TrainError(self._error)

    def finish(self, job: threading.Thread | None = None) -> None:
        """Wait for `job`, or for all; every rank calls this. Raises TrainError where one has failed on any rank."""
        if (job := job or self._last) is None:
            return
        job.join()
        failed = torch.tensor(int(self._error is not None), device=self._ranks.device)
        torch.distributed.all_reduce(failed)
        self.check()
        if failed.item():
            raise TrainError("another rank can't write its part; its message says why")

    def join(self) -> None:
        """Wait for this rank's own jobs."""
        if self._last is not None:
            self._last.join()

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Have all done when the block ends, also where it ends in an error; not at a second Ctrl-C."""
        try:
            yield
        except Exception:
            self.join()
            raise
        self.finish()

    def _do(self, job: Callable[[], None] | None, former: threading.Thread | None) -> None:
        if former is not None:
            former.join()
        if job is None or self._error is not None:
            return
        try:
            job()
        except SftpackError as error:
            self._error = str(error)
        except Exception as error:  # nobody above a thread would tell it
            self._error = f"{type(error).__name__}: {' '.join(str(error).split())}"
