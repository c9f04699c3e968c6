"""GPUs by name: memory, the peak that MFU is a part of, bandwidths. From the makers' data sheets, without sparsity."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from schemas.errors import TrainError

if TYPE_CHECKING:
    from train.launch import Ranks

GIB = 2**30
OWN = GIB  # what CUDA itself takes of a GPU for a process


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU; figures are None where its name says nothing."""

    name: str
    memory_bytes: int
    peak_flops: float | None  # bfloat16 matmuls with float32 sums, or float16 where there is no bfloat16
    bytes_per_s: float | None  # of its memory
    link_bytes_per_s: float | None  # to the other GPUs of its machine, one way


# words of the name, the most telling first -> GiB it shows, TFLOP/s, memory TB/s, link GB/s
FIGURES: dict[str, tuple[float, float, float, float]] = {
    "B300": (268, 2250, 8.0, 900),
    "B200": (178, 2250, 8.0, 900),
    "GH200": (94.5, 989, 4.0, 450),
    "H200": (139.8, 989, 4.8, 450),
    "H100 PCIE": (79.1, 756, 2.0, 32),
    "H100 NVL": (93.1, 835, 3.9, 300),
    "H100": (79.1, 989, 3.35, 450),
    "H800": (79.1, 989, 3.35, 200),
    "H20": (95.6, 148, 4.0, 450),
    "A100-40": (39.4, 312, 1.56, 300),
    "A100": (79.2, 312, 2.04, 300),
    "A800": (79.2, 312, 2.04, 200),
    "L40S": (44.4, 362, 0.86, 32),
    "L40": (44.4, 181, 0.86, 32),
    "L4": (22.0, 121, 0.3, 16),
    "A40": (44.4, 150, 0.7, 32),
    "A10": (22.0, 125, 0.6, 32),
    "A6000": (47.4, 155, 0.77, 32),
    "6000 ADA": (47.4, 364, 0.96, 32),
    "PRO 6000": (94.9, 503, 1.79, 64),
    "5090": (31.3, 210, 1.79, 64),
    "4090": (23.5, 165, 1.01, 32),
    "3090": (23.6, 71, 0.94, 32),
    "V100": (31.7, 125, 0.9, 150),
    "T4": (14.6, 65, 0.32, 16),
}


def gpu_of_name(name: str, memory_bytes: int | None = None) -> Gpu | None:
    """The GPU that `name` means, as PyTorch or a user writes it; None where neither name nor memory says how large."""
    words = re.sub(r"[ _-]+", " ", name.upper())
    if re.search(r"\bA100\b", words) and (re.search(r"\b40G", words) or (memory_bytes or 80 * GIB) < 50 * GIB):
        words = "A100-40"
    found = next((key for key in FIGURES if re.search(rf"(?<![A-Z0-9]){key}(?![0-9])", words)), None)
    if found is None:
        if memory_bytes is None:
            return None
        return Gpu(name=name, memory_bytes=memory_bytes, peak_flops=None, bytes_per_s=None, link_bytes_per_s=None)
    gib, tflops, terabytes, link = FIGURES[found]
    return Gpu(
        name=name,
        memory_bytes=memory_bytes or round(gib * GIB),
        peak_flops=tflops * 1e12,
        bytes_per_s=terabytes * 1e12,
        link_bytes_per_s=link * 1e9,
    )


def parse_gpus(text: str) -> tuple[int, Gpu]:
    """`4xH100-80G` -> 4 of them. Raises TrainError for a name that is not known and gives no memory."""
    match = re.fullmatch(r"(?:(\d+) *[x×*] *)?(.+?)(?:[ _-]+(\d+(?:\.\d+)?) *G(?:I?B)?)?", text.strip(), re.IGNORECASE)
    assert match is not None
    count, name, gib = int(match[1] or 1), match[2], match[3]
    gpu = gpu_of_name(f"{name}-{gib}G" if gib else name)
    if gpu is None and gib:
        gpu = gpu_of_name(name, round(float(gib) * 0.97 * GIB))
    if gpu is None or count < 1:
        raise TrainError(
            f"--gpus {text}: not a GPU known here; write 4xH100-80G, or any name with its memory, as in 2xFAST-24G "
            f"(known: {', '.join(FIGURES)})"
        )
    return count, gpu


def visible_gpu(index: int) -> Gpu:
    """The GPU `index` of this machine, without the memory that other processes hold there."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    gpu = gpu_of_name(properties.name, properties.total_memory)
    assert gpu is not None
    free, total = torch.cuda.mem_get_info(index)
    others = max(0, total - free - torch.cuda.memory_reserved(index) - OWN)
    return replace(gpu, memory_bytes=gpu.memory_bytes - others)


def common_gpu(ranks: "Ranks") -> Gpu:
    """What the GPUs of all ranks have, so that each plans the same; every rank calls this."""
    import torch.distributed

    gpus: list[Any] = [None] * ranks.num_ranks
    torch.distributed.all_gather_object(gpus, visible_gpu(ranks.local_rank))
    return least_of(gpus)


def least_of(gpus: Sequence[Gpu]) -> Gpu:
    """The slowest of them, with the least memory of any."""
    slowest = min(gpus, key=lambda gpu: (gpu.peak_flops or 0.0, gpu.name))
    return replace(slowest, memory_bytes=min(gpu.memory_bytes for gpu in gpus))
