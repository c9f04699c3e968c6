"""Signals in, and what all ranks agree to do at the end of a step out: go on, save, or save and stop.

SIGTERM (a scheduler, a machine about to be taken away) and SIGINT (Ctrl-C) let the step end. A second SIGINT stops at
once; copies of the first, as launchers send them, don't count.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed

from train.launch import Ranks

NOTHING, SAVE = 0, 1  # above them: the number of a signal
SAVE_EVERY_S = 30 * 60
COPIES_S = 1.0  # a launcher's copy of a signal comes within


class Stopped(Exception):
    """All ranks saved and stop, because of a signal."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(signum, step)
        self.signum, self.step = signum, step


class Requests:
    """What was asked of this rank since the last step, and by which all agree on it."""

    def __init__(self, ranks: Ranks, *, by_time: bool) -> None:
        self._ranks, self._by_time = ranks, by_time
        self._signum, self._interrupted = NOTHING, 0.0
        self._saved = time.monotonic()
        self._sent: tuple[torch.Tensor, torch.cuda.Event] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the block runs."""
        before = {each: signal.signal(each, self._take) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def agreed(self) -> int:
        """NOTHING, SAVE, or the number of a signal: the same on all ranks, each of which calls this once a step.

        Several GPUs agree one step late, so that none waits for its device.
        """
        mine = int(self._signum)
        if mine == NOTHING and self._by_time and time.monotonic() - self._saved > SAVE_EVERY_S:
            mine, self._saved = SAVE, time.monotonic()
        if self._ranks.num_ranks == 1:
            return mine
        asked = torch.tensor(mine, dtype=torch.int32)
        if self._ranks.device.type != "cuda":
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            return int(asked.item())
        before, self._sent = self._sent, self._send(asked)
        if before is None:
            return NOTHING
        value, arrived = before
        arrived.synchronize()  # a step ago: the device is busy with the next
        return int(value.item())

    def _send(self, asked: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        on_device = asked.pin_memory().to(self._ranks.device, non_blocking=True)
        torch.distributed.all_reduce(on_device, op=torch.distributed.ReduceOp.MAX)
        value = torch.empty_like(asked).pin_memory()
        value.copy_(on_device, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return value, arrived

    def _take(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if signum == signal.SIGINT:
            if self._signum and self._interrupted and now - self._interrupted > COPIES_S:
                raise KeyboardInterrupt
            if not self._interrupted:
                self._interrupted = now
                if self._ranks.is_first:
                    os.write(2, b"train: will save at the end of this step and stop; Ctrl-C again stops at once\n")
        self._signum = max(self._signum, signum)
