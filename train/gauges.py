"""What a run is measured by beside its loss: MFU, memory, shares of the time spent on data and communication."""

from dataclasses import dataclass

import torch

from train.communication import CommunicationClock
from train.cost import model_flops
from train.gpus import GIB, Gpu, common_gpu
from train.launch import Ranks
from train.model import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    """What it takes to tell them."""

    shape: ModelShape
    gpu: Gpu | None  # what those of all ranks have; None on CPU
    num_ranks: int
    clock: CommunicationClock

    @classmethod
    def of(cls, shape: ModelShape, ranks: Ranks) -> "Gauges":
        """Those of this rank; every rank calls this."""
        gpu = common_gpu(ranks) if ranks.device.type == "cuda" else None
        return cls(shape=shape, gpu=gpu, num_ranks=ranks.num_ranks, clock=CommunicationClock(ranks))

    def mfu(self, tokens: int, squares: int, seconds: float) -> float | None:
        """Part of all GPUs' peak that went into the model's own operations; None where no peak is known."""
        if self.gpu is None or self.gpu.peak_flops is None:
            return None
        return model_flops(self.shape, tokens, squares) / seconds / (self.gpu.peak_flops * self.num_ranks)

    def memory_gib(self) -> float | None:
        """The most this rank's GPU has held so far."""
        return None if self.gpu is None else torch.cuda.max_memory_allocated() / GIB
