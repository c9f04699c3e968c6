"""Measures in, three views out: metrics.jsonl, TensorBoard's event files, and a bar or lines for whoever watches."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from schemas.files import write_text_whole
from train.trackers import Trackers


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """One optimizer step."""

    step: int  # from 1
    epoch: int  # from 1
    loss: float  # mean over the step's targets
    learning_rate: float
    grad_norm: float | None
    targets: int
    tokens: int
    tokens_per_s: float
    targets_per_s: float
    mfu: float | None  # part of the GPUs' peak, None where none is known
    memory_gib: float | None  # the most rank 0's GPU has held so far
    waiting: float  # share of the time in which rank 0 waited for data
    communication: float  # share that its collectives took

    def measures(self) -> dict[str, float]:
        """What is drawn, by name; without what has no meaning here."""
        return {name: value for name, value in asdict(self).items() if name != "step" and value is not None}

    def line(self) -> str:
        """The step in one line, without what has no meaning here."""
        parts = [
            f"loss {self.loss:.4f}  lr {self.learning_rate:.1e}",
            None if self.grad_norm is None else f"norm {self.grad_norm:.2f}",
            f"{self.tokens_per_s:,.0f} tokens/s, {self.targets_per_s:,.0f} targets/s",
            None if self.mfu is None else f"MFU {self.mfu:.1%}",
            None if self.memory_gib is None else f"{self.memory_gib:.1f} GiB",
            f"data {self.waiting:.1%}",
            f"comm {self.communication:.1%}" if self.communication else None,
        ]
        return "  ".join(part for part in parts if part is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalRecord:
    """One look at the held-out packs."""

    step: int  # 0: before training
    eval_loss: float
    eval_perplexity: float
    by_source: dict[str, float] = field(default_factory=dict)  # the loss of each source, where there are several

    def measures(self) -> dict[str, float]:
        """What is drawn, by name: loss and perplexity, and each source's loss under its name."""
        return {**self.by_source, "loss": self.eval_loss, "perplexity": self.eval_perplexity}


class RunLog:
    """What rank 0 writes while a run goes on. Other ranks have none."""

    def __init__(self, folder: Path, num_steps: int, done: int = 0, trackers: Trackers | None = None) -> None:
        """Begin, or go on behind step `done`: what was logged after it is taken back, since it comes again."""
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        self.steps: list[StepRecord] = []
        self.evals: list[EvalRecord] = []
        self.on_halt: Callable[[], None] = lambda: None  # called after a held-out loss, and before a checkpoint
        self._num_steps = num_steps
        self.trackers = trackers or Trackers({})
        self.trackers.say = self.say
        path = folder / "metrics.jsonl"
        kept = _lines_until(path, done) if done else []
        for values in kept:
            if "eval_loss" in values:
                self.evals.append(EvalRecord(**values))
            else:
                self.steps.append(StepRecord(**values))
        write_text_whole(path, "".join(json.dumps(values) + "\n" for values in kept))
        self._metrics = path.open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1 if done else None)
        on_terminal = sys.stderr.isatty()
        self._bar: Any = None
        if on_terminal:
            self._bar = tqdm(total=num_steps, initial=done, unit="step", dynamic_ncols=True, smoothing=0.1)

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)

    def log_steps(self, records: list[StepRecord]) -> None:
        """Take the steps since the last call; the newest is shown."""
        for record in records:
            self.steps.append(record)
            self._write(asdict(record), record.step, "train", record.measures())
        newest = records[-1]
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {newest.loss:.4f}, {newest.tokens_per_s:,.0f} tokens/s", refresh=False)
            self._bar.update(len(records))
        else:
            print(f"step {newest.step}/{self._num_steps}  {newest.line()}", flush=True)

    def log_eval(self, step: int, loss: float, by_source: dict[str, float] | None = None) -> None:
        """Take a held-out loss, and that of each source."""
        record = EvalRecord(step=step, eval_loss=loss, eval_perplexity=perplexity(loss), by_source=by_source or {})
        self.evals.append(record)
        self._write(asdict(record), step, "eval", record.measures())
        self.say(f"step {step}/{self._num_steps}  held-out loss {loss:.4f}  perplexity {record.eval_perplexity:.2f}")
        self.on_halt()

    def flush(self) -> None:
        """Wait until all is on disk: a checkpoint rests on it."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        self._board.flush()
        self.on_halt()

    def end_bar(self) -> None:
        """Leave the bar as it is: what is printed from now on comes below."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def close(self, *, went_well: bool) -> None:
        """Flush and close everything."""
        self.end_bar()
        self._metrics.close()
        self._board.close()
        self.trackers.finish(went_well=went_well)

    def _write(self, line: dict[str, Any], step: int, group: str, measures: dict[str, float]) -> None:
        self._metrics.write(json.dumps(line, ensure_ascii=False) + "\n")
        for name, value in measures.items():
            self._board.add_scalar(f"{group}/{name}", value, step)
        self.trackers.log(step, group, measures)


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The measures up to `step`; the last line may be cut off where a run was killed."""
    kept: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):
            values = json.loads(line)
            if values["step"] <= step:
                kept.append(values)
    return kept


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
