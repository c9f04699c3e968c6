"""One process or many: who this process is, how it joins the others, and how a plain `train run` starts one a GPU."""

import contextlib
import os
import socket
import sys
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from schemas.errors import TrainError

if TYPE_CHECKING:
    import torch

INTERRUPTED = 130  # exit code after Ctrl-C
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
TIMEOUT = timedelta(minutes=30)  # rank 0 may download a model or write a large one meanwhile


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among all of the run."""

    rank: int
    local_rank: int
    num_ranks: int
    device: "torch.device"

    @property
    def is_first(self) -> bool:
        """Rank 0 prints and writes."""
        return self.rank == 0


def under_launcher() -> bool:
    """Whether torchrun, deepspeed, accelerate or Slurm's wrapper started this process and said which one it is."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def num_local_processes(asked: int | None) -> int:
    """Processes a plain `train run` starts: what was asked, or one a visible GPU, or one."""
    if asked is not None:
        if asked < 1:
            raise TrainError(f"--procs is {asked}; it must be at least 1")
        import torch

        if 0 < torch.cuda.device_count() < asked:
            raise TrainError(f"--procs {asked}: only {torch.cuda.device_count()} GPUs are visible here; give fewer")
        return asked
    import torch

    return max(1, torch.cuda.device_count())


def launch_processes(num_processes: int, arguments: list[str]) -> int:
    """Start `train` with `arguments` once a device, as torchrun would, and wait; gives the exit code to leave with."""
    import logging

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        local_addr="127.0.0.1",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "train.cli", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise TrainError(
                f"rank {rank} was killed by signal {-failure.exitcode}; if memory ran out, `dmesg` says so"
            ) from error
        return 1  # the rank has told its error
    except SignalException:
        return INTERRUPTED  # rank 0 has told it
    return 0


def join_ranks() -> Ranks:
    """Join the process group (NCCL on GPUs, gloo on CPU) as the environment says, alone where it says nothing."""
    import torch

    on_gpu = torch.cuda.is_available()
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", str(_free_port()))
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if on_gpu:
        if local_rank >= torch.cuda.device_count():
            raise TrainError(
                f"local rank {local_rank} has no GPU of the {torch.cuda.device_count()} visible; start fewer processes"
            )
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # memory does not fragment
        torch.cuda.set_device(local_rank)
    else:
        _keep_freed_memory()
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    import_deepspeed(on_gpu=on_gpu).init_distributed(
        dist_backend="nccl" if on_gpu else "gloo", timeout=TIMEOUT, verbose=False, auto_mpi_discovery=False
    )
    return Ranks(rank=rank, local_rank=local_rank, num_ranks=int(os.environ["WORLD_SIZE"]), device=device)


def import_deepspeed(*, on_gpu: bool) -> Any:
    """Import DeepSpeed so that it neither asks MPI nor compiles its shared-memory collectives on a CPU (40-90 s)."""
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
        import deepspeed.ops

    if not on_gpu:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def quiet_libraries() -> None:
    """Keep third-party chatter off the user's terminal; their errors still show."""
    import logging

    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("torch.distributed", "DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def share(ranks: Ranks, value: str | None) -> str:
    """Rank 0's value, on every rank."""
    import torch.distributed

    values = [value]
    if ranks.num_ranks > 1:
        torch.distributed.broadcast_object_list(values, src=0, device=ranks.device)
    assert values[0] is not None
    return values[0]


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: giving large tensors back each time makes a CPU step a third slower."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 256 << 20)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
