"""What a machine offers a run: GPUs, memory, disks, limits, network, and what the environment was left with."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from train.gpus import GIB

BYTES_A_PARAMETER = 14  # of a checkpoint: weights in 16 bits, and in 32 with two moments
KEPT = 3  # checkpoints that are there while one is written, by default
ROOM_GIB = 60  # below this, a warning: a 1.7B model's checkpoints
OPEN_FILES = 4096
SHM_GIB = 1
LOCK_S = 10 * 60
HUB_S = 3
LEFT_BY_LAUNCHERS = "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One thing looked at."""

    state: Literal["ok", "warning", "problem"]
    name: str
    says: str


def look_over(out: Path) -> Iterator[Line]:
    """Lines on the machine; `out` is where runs will be written."""
    yield from _gpus()
    yield from _attention()
    yield _memory()
    yield from _shared_memory()
    yield from _disk(out)
    yield from _limits()
    yield from locks(_extensions_folder())
    yield from environment(os.environ, {path.name for path in Path("/sys/class/net").glob("*")})
    yield _own_name()
    yield _hub()


def _gpus() -> Iterator[Line]:
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") and (listed := _nvidia_smi("name")):
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build for CPUs"
            says = f"{len(listed)} x {listed[0]}, but PyTorch can't use them: it is {built}; see https://pytorch.org"
            if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
                says = f"{len(listed)} x {listed[0]}, hidden by CUDA_VISIBLE_DEVICES; unset it"
            yield Line(state="problem", name="GPUs", says=says)
        else:
            says = "none: runs train on the CPU with gloo, in float32, which suits models of millions of parameters"
            yield Line(state="ok", name="GPUs", says=says)
        return
    count = torch.cuda.device_count()
    properties: list[Any] = [torch.cuda.get_device_properties(index) for index in range(count)]
    names = sorted({f"{each.name} ({each.total_memory / GIB:.0f} GiB)" for each in properties})
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    says = f"{count} x {' and '.join(names)}, CUDA {torch.version.cuda}, NCCL {nccl}"
    yield Line(state="ok", name="GPUs", says=says)
    if len(names) > 1:
        says = "of several kinds: the slowest and smallest decides; choose with CUDA_VISIBLE_DEVICES"
        yield Line(state="warning", name="GPUs", says=says)
    for index, row in enumerate(_nvidia_smi("memory.used", units="nounits")):
        if row.isdecimal() and int(row) > 1024:
            says = f"GPU {index} of this machine holds {int(row) / 1024:.1f} GiB already; nvidia-smi says whose"
            yield Line(state="warning", name="GPUs", says=says)


def _nvidia_smi(query: str, units: str = "") -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={query}", f"--format=csv,noheader{',' + units if units else ''}"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def _attention() -> Iterator[Line]:
    import importlib.util

    import torch

    if not torch.cuda.is_available():
        says = "scaled_dot_product_attention, example by example; kernels for packed rows need a GPU"
        yield Line(state="ok", name="attention", says=says)
        return
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        says = f"compute capability {major}.{minor} has no flash attention and no bfloat16: fp16, example by example"
        yield Line(state="warning", name="attention", says=says)
    elif major >= 9 and importlib.util.find_spec("flash_attn") is None:
        says = "PyTorch's flash kernel; pip install 'sftpack[gpu]' adds FlashAttention-4, which is faster here"
        yield Line(state="ok", name="attention", says=says)
    else:
        name = "FlashAttention-4 where the model's shape allows" if major >= 9 else "PyTorch's flash kernel"
        yield Line(state="ok", name="attention", says=name)


def _memory() -> Line:
    total, free = _meminfo("MemTotal"), _meminfo("MemAvailable")
    cores = len(os.sched_getaffinity(0))
    says = f"{cores} cores, {total / GIB:.0f} GiB of memory, {free / GIB:.0f} GiB free"
    limit = _container_limit()
    if limit is not None and limit < total:
        says += f"; this container may use {limit / GIB:.0f} GiB"
    return Line(state="ok", name="CPU", says=says)


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _container_limit() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
    return None


def _shared_memory() -> Iterator[Line]:
    import torch

    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        yield Line(state="warning", name="/dev/shm", says="not there; NCCL between GPUs of a machine may need it")
        return
    if size < SHM_GIB * GIB and torch.cuda.device_count() > 1:
        says = f"{size / GIB:.2f} GiB is little for NCCL; start the container with --ipc=host or --shm-size=8g"
        yield Line(state="warning", name="/dev/shm", says=says)
    else:
        yield Line(state="ok", name="/dev/shm", says=f"{size / GIB:.1f} GiB")


def _disk(out: Path) -> Iterator[Line]:
    for what, path in (("runs", out), ("models", _models_folder()), ("temporary", Path(tempfile.gettempdir()))):
        there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
        free = shutil.disk_usage(there).free
        says = f"{free / GIB:,.0f} GiB free for {what} in {path}"
        state: Literal["ok", "warning", "problem"] = "ok"
        if not os.access(there, os.W_OK):
            state, says = "problem", f"{there}: can't be written to, for {what}; choose another folder"
        elif what == "runs":
            billions = free / BYTES_A_PARAMETER / KEPT / 1e9
            says += f": checkpoints of models up to {billions:,.1f}B parameters (adapters: any)"
            if free < ROOM_GIB * GIB:
                state = "warning"
        elif free < GIB:
            state = "warning"
        yield Line(state=state, name="disk", says=says)


def _models_folder() -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _limits() -> Iterator[Line]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        most = min(hard, 65536) if hard > 0 else 65536
        says = f"{soft} open files is little for many shards and ranks; ulimit -n {most}"
        yield Line(state="warning", name="limits", says=says)
    else:
        yield Line(state="ok", name="limits", says=f"{soft} open files")
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if any(Path("/sys/class/infiniband").glob("*")) and locked != resource.RLIM_INFINITY:
        says = (
            f"{locked // 1024} KiB of locked memory: InfiniBand wants ulimit -l unlimited (docker --ulimit memlock=-1)"
        )
        yield Line(state="warning", name="limits", says=says)


def _extensions_folder() -> Path:
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    return (
        Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "torch_extensions"
    )


def locks(folder: Path) -> Iterator[Line]:
    """Locks of compilations that were killed: whoever needs the same extension waits for ever."""
    now = time.time()
    for lock in sorted(folder.glob("**/lock")) if folder.is_dir() else []:
        age = now - lock.stat().st_mtime
        if age > LOCK_S:
            says = f"{lock}: left {age / 60:,.0f} minutes ago by a compilation that was killed; rm {lock}"
            yield Line(state="problem", name="extensions", says=says)


def environment(values: Mapping[str, str], interfaces: set[str]) -> Iterator[Line]:
    """What the environment says to PyTorch and NCCL; `interfaces` are those of this machine's network."""
    left = [name for name in LEFT_BY_LAUNCHERS if name in values]
    if "RANK" in left and "WORLD_SIZE" in left:
        says = f"{', '.join(left)} are set: a plain `train run` would wait for other ranks; unset {' '.join(left)}"
        yield Line(state="problem", name="environment", says=says)
    elif left:
        says = f"{', '.join(left)} left by a launcher or set by hand; unset {' '.join(left)}"
        yield Line(state="warning", name="environment", says=says)
    wanted = values.get("NCCL_SOCKET_IFNAME") or values.get("GLOO_SOCKET_IFNAME")
    if wanted and not wanted.startswith("^"):
        names = [each.lstrip("=") for each in wanted.split(",")]
        if not any(have.startswith(name) for name in names for have in interfaces):
            says = f"*_SOCKET_IFNAME is {wanted}, this machine has {', '.join(sorted(interfaces))}; set one of these"
            yield Line(state="problem", name="environment", says=says)
    shown = {name: value for name, value in sorted(values.items()) if name.startswith(("NCCL_", "TORCH_NCCL_"))}
    shown |= {name: values[name] for name in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR") if name in values}
    if shown:
        says = ", ".join(f"{name}={value}" for name, value in shown.items())
        yield Line(state="ok", name="environment", says=says)
    if values.get("DS_ACCELERATOR") == "cpu" and Path("/dev/nvidia0").exists():
        says = "DS_ACCELERATOR=cpu keeps DeepSpeed from the GPUs; unset DS_ACCELERATOR"
        yield Line(state="problem", name="environment", says=says)


def _own_name() -> Line:
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        says = f"{name} has no address: ranks on several machines can't meet; add it to /etc/hosts"
        return Line(state="warning", name="network", says=says)
    return Line(state="ok", name="network", says=f"{name} is {address}")


def _hub() -> Line:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Line(state="ok", name="hub", says="HF_HUB_OFFLINE is set: models are folders, or downloaded before")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_S):
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        says = f"{endpoint} can't be reached ({reason}): give models as folders, or set HF_ENDPOINT to a mirror"
        return Line(state="warning", name="hub", says=says)
    return Line(state="ok", name="hub", says=f"{endpoint} answers")
