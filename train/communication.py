"""How long collectives take, told without waiting for the device: events around each of DeepSpeed's own.

Where they overlap computing, as in ZeRO-3, the share told is that of their duration, not of time lost.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from train.launch import Ranks

COLLECTIVES = (
    "all_reduce",
    "all_reduce_coalesced",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_coalesced",
    "reduce_scatter_tensor",
    "reduce",
    "broadcast",
)


class CommunicationClock:
    """Times the collectives of DeepSpeed's backend on this rank; one process alone has none worth timing."""

    def __init__(self, ranks: Ranks) -> None:
        self._on_gpu = ranks.device.type == "cuda"
        self._seconds = 0.0
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        if ranks.num_ranks > 1:
            from deepspeed.comm import comm

            for name in COLLECTIVES:
                if hasattr(comm.cdb, name):
                    setattr(comm.cdb, name, self._timed(getattr(comm.cdb, name)))

    def take(self) -> float:
        """Seconds since the last call; the device must have come as far."""
        for start, end in self._spans:
            self._seconds += start.elapsed_time(end) / 1000
        seconds, self._seconds, self._spans = self._seconds, 0.0, []
        return seconds

    def _timed(self, collective: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self._on_gpu:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                result = collective(*arguments, **named)
                end.record()
                self._spans.append((start, end))
                return result
            started = time.perf_counter()
            result = collective(*arguments, **named)
            self._seconds += time.perf_counter() - started
            return result

        return call
