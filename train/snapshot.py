"""A state that training goes on to change in, a copy of it in CPU memory out, where there is room for one."""

import copy
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

SPARE = 0.8  # of the memory that is free, shared out among the machine's ranks
CGROUP = Path("/sys/fs/cgroup")


def snapshot(state: Any) -> Any:
    """A copy on the CPU. Tensors that share their memory share that of the copy, so that files come out as long."""
    return _copy(state, {}, {})


def num_bytes(state: Any) -> int:
    """What the state's tensors take, shared memory counted once."""
    return sum({_place(tensor): tensor.untyped_storage().nbytes() for tensor in tensors_in(state)}.values())


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in lists, tuples and dicts within each other."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)


def has_room(needed: int) -> bool:
    """Whether this machine's memory takes so many bytes from each of its ranks."""
    return needed * int(os.environ.get("LOCAL_WORLD_SIZE", "1")) < SPARE * free_bytes()


def free_bytes() -> int:
    """Memory that can be had without swapping: the machine's, or what its container leaves; 0 where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0
    try:
        most = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
        held = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # not in a container, or in one of the old kind
        return free
    return free if most == "max" else min(free, int(most) - held + int(cached.get("inactive_file", 0)))


def _copy(value: Any, storages: dict[Any, torch.UntypedStorage], memo: dict[int, Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return _copy_tensor(value, storages)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _copy(each, storages, memo)) for key, each in value.items())
    if type(value) in (list, tuple):
        return type(value)(_copy(each, storages, memo) for each in value)
    return copy.deepcopy(value, memo)


def _copy_tensor(tensor: torch.Tensor, storages: dict[Any, torch.UntypedStorage]) -> torch.Tensor:
    place = _place(tensor)
    if place not in storages:
        storage = tensor.untyped_storage()
        storages[place] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
    made = torch.empty(0, dtype=tensor.dtype)
    made.set_(storages[place], tensor.storage_offset(), tensor.size(), tensor.stride())
    return made.requires_grad_(tensor.requires_grad)


def _place(tensor: torch.Tensor) -> tuple[torch.device, int]:
    storage = tensor.untyped_storage()
    return storage.device, storage.data_ptr() or id(tensor)
