"""Checkpoints written while training goes on: a copy of the state is taken at once, a thread brings it to disk.

Each rank writes its files into a folder beside the final one and says so there; rank 0 then writes checkpoint.json and
gives the folder its name. One checkpoint at a time: the next waits for the former. DeepSpeed's own decoupled engine was
looked at (0.19): it takes no copy, so it waits at the very next optimizer step, and drops files where its process died.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from schemas.errors import TrainError
from schemas.files import remove_leftovers, write_text_whole
from train.background import Background
from train.checkpoint import FORMAT, RECORD, STATE, VERSION, Checkpoint, checkpoint_folders
from train.launch import Ranks
from train.snapshot import has_room, num_bytes, snapshot

WRITTEN = "written-{}.json"  # a rank's word that its files are on disk, or why they are not
LOOK_EVERY_S = 0.05

Files = list[tuple[Any, Path]]


class Saver:
    """What of a run's state is on its way to OUT/checkpoints; every rank has one."""

    def __init__(
        self, out: Path, ranks: Ranks, keep: int, background: Background, *, with_frozen: bool = False
    ) -> None:
        self._out, self._ranks, self._keep, self._background = out, ranks, keep, background
        self._with_frozen = with_frozen  # weights: where they are the base's, it has them
        self._job: threading.Thread | None = None  # of the checkpoint before

    def save(self, engine: Any, checkpoint: Checkpoint) -> None:
        """Take a copy, and begin to write OUT/checkpoints/step-N; every rank calls this.

        Where memory has no room for a copy, comes back when it is written. Raises TrainError when this one or the one
        before can't be written, or a weight is no longer a number.
        """
        if self._job is not None:
            self._background.finish(self._job)
        check_weights(engine.module, checkpoint.step, self._ranks)
        folder = self._out / "checkpoints" / checkpoint.name
        temporary = folder.with_name(f".{folder.name}.0.tmp")
        files: Files = []
        try:
            if self._ranks.is_first:
                folder.parent.mkdir(parents=True, exist_ok=True)
                remove_leftovers(folder.parent)
                temporary.mkdir()
            torch.distributed.barrier()
            with _handed_over(engine.checkpoint_engine, files):
                engine.save_checkpoint(
                    str(temporary), tag=STATE, save_latest=False, exclude_frozen_parameters=not self._with_frozen
                )
        except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
            raise _cannot(folder, _reason(error)) from error
        self._job = self._background.begin(partial(self._bring_to_disk, files, temporary, folder, checkpoint))

    def _bring_to_disk(self, files: Files, temporary: Path, folder: Path, checkpoint: Checkpoint) -> None:
        try:
            error = _write(files, temporary / WRITTEN.format(self._ranks.rank))
            if self._ranks.is_first:
                error = error or _wait_for_others(temporary, self._ranks.num_ranks)
                if error is None:
                    _name(temporary, folder, checkpoint, self._keep)
        except OSError as failure:
            error = _reason(failure)
        if error is not None:
            raise _cannot(folder, error)


def check_weights(module: torch.nn.Module, step: int, ranks: Ranks) -> None:
    """Refuse to keep a model that is no longer made of numbers; the checkpoints before it stay."""
    flags = [torch.isfinite(getattr(each, "ds_tensor", each).data).all() for each in module.parameters()]
    bad = torch.tensor(0 if all(flag.item() for flag in flags) else 1, device=ranks.device)
    torch.distributed.all_reduce(bad)
    if bad.item():
        raise TrainError(
            f"after step {step} a weight is no longer a number, so nothing was saved; lower --learning-rate"
        )


@contextmanager
def _handed_over(checkpoint_engine: Any, files: Files) -> Iterator[None]:
    """Have DeepSpeed's files copied into `files` instead of written; written at once where there is no room."""

    def take(state_dict: Any, path: str) -> None:
        if has_room(num_bytes(state_dict)):
            files.append((snapshot(state_dict), Path(path)))
        else:
            torch.save(state_dict, path)
            files.append((None, Path(path)))

    before: Callable[..., Any] = checkpoint_engine.save
    checkpoint_engine.save = take
    try:
        yield
    finally:
        checkpoint_engine.save = before


def _write(files: Files, word: Path) -> str | None:
    """Write this rank's files and wait until they are on disk; gives the reason where that fails, and leaves word."""
    error = None
    try:
        while files:
            state, path = files.pop(0)
            if state is not None:
                torch.save(state, path)
            del state  # its memory, before the next file is written
            with path.open("rb") as file:
                os.fsync(file.fileno())
    except (OSError, RuntimeError) as failure:
        error = _reason(failure)
    write_text_whole(word, json.dumps({"error": error}))
    return error


def _wait_for_others(temporary: Path, num_ranks: int) -> str | None:
    """Until each rank has left word; gives the first reason why one's files aren't there."""
    missing = [temporary / WRITTEN.format(rank) for rank in range(num_ranks)]
    while missing:
        if missing[0].exists():
            word = missing.pop(0)
            if (error := json.loads(word.read_text(encoding="utf-8"))["error"]) is not None:
                return error
            word.unlink()
        else:
            time.sleep(LOOK_EVERY_S)
    return None


def _name(temporary: Path, folder: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write the record, give the folder its name, and remove all but the newest `keep`."""
    write_text_whole(temporary / RECORD, _record(temporary, checkpoint))
    for each in (*(path for path in temporary.rglob("*") if path.is_dir()), temporary):
        _sync_folder(each)
    if folder.exists():
        _remove(folder)
    temporary.rename(folder)
    _sync_folder(folder.parent)
    for old in list(checkpoint_folders(folder.parent))[keep:]:
        _remove(old)


def _record(temporary: Path, checkpoint: Checkpoint) -> str:
    files = {
        str(path.relative_to(temporary)): path.stat().st_size for path in sorted(temporary.rglob("*")) if path.is_file()
    }
    content = {"format": FORMAT, "version": VERSION, **asdict(checkpoint), "files": files}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that it is never half there under its name."""
    doomed = folder.with_name(f".{folder.name}.1.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(folder: Path, reason: str) -> TrainError:
    return TrainError(f"{folder}: the checkpoint can't be written: {reason}; free space there")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
