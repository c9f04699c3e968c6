"""Which micro-batches, checkpointing, ZeRO stage and offload a run takes: of what fits the GPU, the fastest.

The same choice for `train run`, on the GPU it finds, and `train plan`, for a GPU that is only named.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from train.config import RunConfig
from train.cost import Work, model_flops, step_seconds
from train.gpus import GIB, Gpu
from train.load import Packs
from train.memory import Memory, predicted_memory
from train.model import ModelShape

MICRO_TOKENS = 32768  # longer micro-batches make no step faster
USABLE = 0.96  # of a GPU's memory; the rest is CUDA's and what fragments


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """A run as it will be, and what is expected of it."""

    config: RunConfig
    memory: Memory
    fits: bool
    tokens_per_s: float | None  # on all GPUs together; None where the GPU's speed is not known
    mfu: float | None

    def line(self) -> str:
        """It in one line."""
        layers = self.config.checkpointed_layers
        parts = [
            f"{self.memory.total / GIB:.1f} GiB a GPU",
            f"{layers} layers computed twice" if layers else "no layer computed twice",
            None if self.tokens_per_s is None else f"{self.tokens_per_s:,.0f} tokens/s",
            None if self.mfu is None else f"MFU {self.mfu:.0%}",
            None if self.fits else "more than the GPU holds",
        ]
        return ", ".join(part for part in parts if part is not None)


def step_work(config: RunConfig, packs: Packs) -> Work:
    """An average optimizer step's work."""
    part = min(1.0, config.batch_packs / len(packs))
    return Work(
        tokens=round(part * int(packs.num_tokens.sum())),
        targets=round(part * int(packs.num_targets.sum())),
        squares=round(part * int(packs.squares.sum())),
        packs=min(config.batch_packs, len(packs)),
        longest_pack=int(packs.num_tokens.max()),
        most_targets=int(packs.num_targets.max()),
    )


def choose(config: RunConfig, shape: ModelShape, gpu: Gpu, work: Work) -> Forecast:
    """Settle what `config.free` leaves open. `work` is that of one optimizer step.

    Where nothing fits, gives what takes least, with `fits` False.
    """
    forecasts = [foresee(each, shape, gpu, work) for each in _choices(config, shape, work)]
    fitting = [each for each in forecasts if each.fits]
    if not fitting:
        return min(forecasts, key=lambda each: each.memory.total)
    if fitting[0].tokens_per_s is None:
        return fitting[0]
    return max(fitting, key=lambda each: each.tokens_per_s or 0.0)


def foresee(config: RunConfig, shape: ModelShape, gpu: Gpu, work: Work) -> Forecast:
    """What is expected of a run as `config` has it."""
    memory = predicted_memory(config, shape, work.longest_pack, work.most_targets)
    seconds = step_seconds(config, shape, gpu, work)
    mfu = None
    if seconds is not None and gpu.peak_flops is not None:
        mfu = model_flops(shape, work.tokens, work.squares) / seconds / gpu.peak_flops / config.num_ranks
    return Forecast(
        config=config,
        memory=memory,
        fits=memory.total < USABLE * gpu.memory_bytes,
        tokens_per_s=None if seconds is None else work.tokens / seconds,
        mfu=mfu,
    )


def _choices(config: RunConfig, shape: ModelShape, work: Work) -> Iterator[RunConfig]:
    """All that may be, the likely fastest first: little done twice, long micro-batches, little shared out.

    Only micro-batches that share the batch out evenly: 16 packs a step on 1 rank -> 8, 4, 2 or 1 of 4,096 tokens.
    """
    share = -(-work.packs // config.num_ranks)
    most = max(1, MICRO_TOKENS // work.longest_pack)
    sizes = [size for size in range(min(most, share), 0, -1) if share % size == 0]
    layers = list(range(shape.num_layers + 1))
    stages = [1] if config.num_ranks == 1 else [1, 2, 3]
    for offload, zero, again, size in product(
        [False, True] if "offload_optimizer" in config.free else [config.offload_optimizer],
        stages if "zero" in config.free else [config.zero],
        layers if "gradient_checkpointing" in config.free else [config.checkpointed_layers],
        sizes if "micro_packs" in config.free else [config.micro_packs],
    ):
        if again < 0:  # all of them, though the config was settled before the model was known
            again = shape.num_layers
        yield replace(
            config,
            offload_optimizer=offload,
            zero=zero,
            checkpointed_layers=min(again, shape.num_layers),
            micro_packs=size,
        )
