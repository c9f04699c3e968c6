"""One process or many: who this process is, how it joins the others, and how a plain `train run` starts one a GPU."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from schemas.errors import TrainError
from train.signs import Sign

if TYPE_CHECKING:
    import torch

LAUNCHER = "SFTPACK_LAUNCHER"  # in the environment of ranks: the process that started them
STOPPING_S = 30  # for ranks to leave after a signal, once the first has
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
TIMEOUT = timedelta(minutes=30)  # rank 0 may download a model or write a large one meanwhile


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process among all of the run."""

    rank: int
    local_rank: int
    num_ranks: int
    device: "torch.device"
    sign: Sign = field(default_factory=Sign, compare=False, repr=False)  # how far this process is

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
    """Start `train` with `arguments` once a device, and wait; gives the exit code to leave with."""
    with launched(num_processes, arguments, {}) as processes:
        return processes.wait()


@contextlib.contextmanager
def launched(num_processes: int, arguments: list[str], variables: dict[str, str]) -> Iterator["Processes"]:
    """Start `train` with `arguments` once a device; `variables` join the environment.

    They end with the block at the latest. Should this process be killed, they die with it.
    """
    import torch.distributed

    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = os.environ | {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes))),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is kept here, so no port is chosen before it is taken
        LAUNCHER: str(os.getpid()),
    }
    command = [sys.executable, "-m", "train.cli", *arguments]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in map(str, range(num_processes)):
            # a process group of its own: Ctrl-C reaches this process only, which passes it on
            ranked = environment | variables | {"RANK": number, "LOCAL_RANK": number}
            started.append(subprocess.Popen(command, env=ranked, process_group=0))
        yield Processes(started)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


class Processes:
    """The ranks that this process started."""

    def __init__(self, started: "list[subprocess.Popen[bytes]]") -> None:
        self._started = started
        self._passed: set[int] = set()  # signals

    def wait(self) -> int:
        """Until all have ended; gives the exit code to leave with. Raises TrainError where one was killed.

        A signal reaches each process once; where one process fails, the others are ended.
        """
        with self._passing_signals_on():
            codes = self._codes()
        failed = next(((rank, code) for rank, code in codes.items() if code != 0), None)
        if failed is None:
            return 0
        rank, code = failed
        if code < 0 and -code in self._passed:  # before it listened to signals
            return 128 - code
        if code < 0:
            raise TrainError(f"rank {rank} was killed by signal {-code}; if memory ran out, `dmesg` says so")
        return code  # the rank has told its error

    @contextlib.contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        def pass_on(signum: int, frame: FrameType | None) -> None:
            self._passed.add(signum)
            for process in self._started:
                process.send_signal(signum)

        before = {each: signal.signal(each, pass_on) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _codes(self) -> dict[int, int]:
        """The exit codes by rank, in the order in which they came; a failure ends the other processes.

        Those that stop for a signal do so together.
        """
        codes: dict[int, int] = {}
        deadline = None
        while len(codes) < len(self._started):
            for rank, process in enumerate(self._started):
                if rank not in codes and (code := process.poll()) is not None:
                    codes[rank] = code
                    if code != 0 and deadline is None:
                        deadline = time.monotonic() + (STOPPING_S if code in (130, 143) else 0)
            if deadline is not None and time.monotonic() >= deadline:
                for process in self._started:
                    process.kill()
            time.sleep(0.05)
        return codes


def die_with_launcher() -> None:
    """Have the kernel kill this process when the `train run` that started it is gone."""
    import ctypes

    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return
    if launcher == str(os.getppid()):
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.getppid()
    if launcher != str(parent) and (parent == 1 or not Path("/proc", launcher).exists()):
        os.kill(os.getpid(), signal.SIGKILL)  # it went meanwhile, or while this process was still importing


def join_ranks() -> Ranks:
    """Join the process group (NCCL on GPUs, gloo on CPU) as the environment says, alone where it says nothing."""
    import torch.distributed

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
        torch.cuda.set_device(local_rank)
    else:
        _keep_freed_memory()
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:  # DeepSpeed, which takes over the group that is there, does not tell NCCL which GPU is the rank's
        torch.distributed.init_process_group("nccl", timeout=TIMEOUT, device_id=device)
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


def settle_allocators() -> None:
    """How PyTorch takes memory; it looks these up when it is imported, and when it first meets a GPU.

    Segments that grow keep a GPU's memory from fragmenting. Huge pages copy a model to CPU memory several times faster,
    but make a step on the CPU itself a sixth slower.
    """
    if any(Path("/dev").glob("nvidia[0-9]*")):
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


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
