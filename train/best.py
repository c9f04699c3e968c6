"""The model with the lowest held-out loss so far, kept in OUT/best/step-N while training goes on.

Written by the thread that writes checkpoints, and before those that know of it; proven at the end of the run, when it
is still the best.
"""

import json
import shutil
import threading
from functools import partial
from pathlib import Path

from train.background import Background
from train.engine import Engine
from train.export import Taken, keep, take
from train.hub import ModelFiles
from train.launch import Ranks
from train.load import Shards

EVALUATION = "evaluation.json"  # in the folder of the best model


class Best:
    """Every rank has one; rank 0 writes."""

    def __init__(self, folder: Path, files: ModelFiles, shards: Shards, ranks: Ranks, background: Background) -> None:
        self._folder, self._files, self._shards, self._ranks = folder, files, shards, ranks
        self._background = background
        self._job: threading.Thread | None = None

    def keep(self, engine: Engine, step: int, loss: float, *, is_adapter: bool) -> None:
        """Copy what is trained, and begin to write it in place of the one before; every rank calls this."""
        if self._job is not None:
            self._background.finish(self._job)  # or two copies would stand in memory
        taken = take(engine.deepspeed, self._files, self._ranks, is_adapter=is_adapter)
        job = partial(self._write, taken, step, loss) if self._ranks.is_first else None
        self._job = self._background.begin(job)

    def unless(self, last: float | None) -> Path | None:
        """The folder, unless the last held-out loss is as low."""
        folders = sorted(self._folder.glob("step-*"), key=_loss)
        if last is None or not folders or last <= _loss(folders[0]):
            return None
        return folders[0]

    def _write(self, taken: Taken, step: int, loss: float) -> None:
        self._folder.mkdir(exist_ok=True)
        folder = self._folder / f"step-{step:06d}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed behind this step
        note = EVALUATION, json.dumps({"step": step, "eval_loss": loss}) + "\n"
        keep(taken, folder, self._shards.tokenizer, self._files, note)
        for old in set(self._folder.glob("step-*")) - {folder}:
            shutil.rmtree(old, ignore_errors=True)


def _loss(folder: Path) -> float:
    return json.loads((folder / EVALUATION).read_text(encoding="utf-8"))["eval_loss"]
