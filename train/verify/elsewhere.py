"""The same steps in processes of their own: two ranks on GPUs where there are two, else on the CPU."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from schemas.errors import TrainError
from train.hub import ModelFiles
from train.launch import Processes, die_with_launcher, join_ranks, launched, under_launcher
from train.load import Shards, open_shards
from train.model import ModelShape
from train.verify.sample import CPU_TOKENS, NUM_PACKS, Sample, few_packs, sample
from train.verify.steps import Taken, config_of, read_taken, take_steps, write_taken

WORK = "SFTPACK_VERIFY"  # in the environment of ranks: the folder that they read the sample from


class Elsewhere:
    """Steps being taken by other processes."""

    def __init__(self, folder: Path, running: dict[int, Processes], *, on_another_device: bool) -> None:
        self._folder, self._running = folder, running
        self.on_another_device = on_another_device  # than this process: its own steps are no measure of theirs

    def wait(self, num_ranks: int) -> Taken:
        """What the steps on so many ranks came to."""
        if self._running[num_ranks].wait() != 0:
            raise TrainError(f"{num_ranks} ranks could not take a step; the line above says why")
        return read_taken(self._folder / f"taken-{num_ranks}.json")


@contextlib.contextmanager
def take_elsewhere(
    files: ModelFiles, shape: ModelShape, shards: Shards, chosen: Sample, folder: Path, arguments: list[str]
) -> Iterator[Elsewhere]:
    """Take the steps on two ranks, beside what this process does on a GPU; on the CPU, before it goes on.

    With a single GPU the CPU takes them, on one rank also. `folder` is for what the processes read and leave.
    """
    num_gpus = torch.cuda.device_count()
    counts, hidden = [2], {}
    if num_gpus == 1:
        counts, hidden = [2, 1], {"CUDA_VISIBLE_DEVICES": ""}
        chosen = sample(files, shape, shards.train, torch.device("cpu"), folder / "cpu-model")
    work = {"files": str(chosen.files.folder), "gguf": chosen.files.gguf, "on_gpu": num_gpus > 1}
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
    (folder / "shards").symlink_to(shards.folder.resolve())
    variables = {WORK: str(folder), **hidden}
    with contextlib.ExitStack() as ends:
        running = {count: ends.enter_context(launched(count, arguments, variables)) for count in counts}
        elsewhere = Elsewhere(folder, running, on_another_device=num_gpus == 1)
        if num_gpus == 0:
            elsewhere.wait(2)
        yield elsewhere


def is_elsewhere() -> bool:
    """Whether this process is one of those."""
    return WORK in os.environ and under_launcher()


def take_as_rank() -> int:
    """Be one of these processes: take the steps, leave the numbers."""
    die_with_launcher()
    folder, ranks = Path(os.environ[WORK]), join_ranks()
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    files = ModelFiles(name="sample", folder=Path(work["files"]), gguf=work["gguf"])
    shards = open_shards(folder / "shards")
    packs = few_packs(shards.train, NUM_PACKS, None if work["on_gpu"] else CPU_TOKENS)
    config = config_of("sample", shards.manifest.options.seq_len, ranks)
    taken = take_steps(files, packs, shards.manifest.sources, config, ranks)
    write_taken(taken, folder / f"taken-{ranks.num_ranks}.json", ranks)
    torch.distributed.destroy_process_group()
    return 0
