"""What a run came to: summary.json at its end; summary.html at each halt, so that an interrupted run has one too."""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.errors import SftpackError
from schemas.files import write_text_whole
from train.config import RunConfig
from train.engine import Engine
from train.history import FINISHED, RUNNING, History
from train.load import Shards
from train.log import RunLog
from train.page.page import run_page
from train.page.sections import ends_of
from train.page.view import Outcome, RunView
from train.requests import Stopped

CERTIFICATE = "certificate.json"
PAGE_SHARE = 0.01  # of the time goes into the page while a run goes on


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a run came to. Losses are means over targets, in nats."""

    model: str
    num_parameters: int
    shards: str
    sources: list[str]
    packs: int
    tokens: int  # of the training split
    targets: int
    held_out_packs: int
    steps: int
    first_loss: float  # mean over the targets of the first tenth of the steps, at least one
    last_loss: float  # of the last
    first_eval_loss: float | None
    last_eval_loss: float | None
    eval_loss_by_source: dict[str, float]  # the last
    tokens_trained: int
    tokens_per_s: float
    seconds: float
    export: dict[str, Any]  # what was seen of the folder that was written
    samples: dict[str, Any]  # answers of the base model and of this one
    config: dict[str, Any]

    @classmethod
    def of(
        cls,
        config: RunConfig,
        shards: Shards,
        log: RunLog,
        *,
        num_parameters: int,
        seconds: float,
        outcome: Outcome,
    ) -> "RunSummary":
        """Sum up what was logged."""
        first_loss, last_loss = ends_of(log.steps)
        trained = sum(record.tokens for record in log.steps)
        in_steps = sum(record.tokens / record.tokens_per_s for record in log.steps)
        return cls(
            model=config.model,
            num_parameters=num_parameters,
            shards=str(shards.folder),
            sources=shards.manifest.sources,
            packs=len(shards.train),
            tokens=int(shards.train.num_tokens.sum()),
            targets=int(shards.train.num_targets.sum()),
            held_out_packs=0 if shards.val is None else len(shards.val),
            steps=len(log.steps),
            first_loss=first_loss,
            last_loss=last_loss,
            first_eval_loss=log.evals[0].eval_loss if log.evals else None,
            last_eval_loss=log.evals[-1].eval_loss if log.evals else None,
            eval_loss_by_source=log.evals[-1].by_source if log.evals else {},
            tokens_trained=trained,
            tokens_per_s=trained / in_steps if in_steps else 0.0,
            seconds=seconds,
            export=asdict(outcome.proof),
            samples=asdict(outcome.samples),
            config=plain_config(config),
        )

    def line(self) -> str:
        """The run in one line."""
        held_out = "no packs were held out"
        if self.first_eval_loss is not None and self.last_eval_loss is not None:
            held_out = f"held-out {self.first_eval_loss:.4f} -> {self.last_eval_loss:.4f}"
        speed = f"{self.tokens_per_s:,.0f} tokens/s"
        return f"done       loss {self.first_loss:.4f} -> {self.last_loss:.4f}, {held_out}, {self.steps} steps, {speed}"

    def measures(self) -> dict[str, float]:
        """Its numbers, for trackers."""
        names = (
            "first_loss",
            "last_loss",
            "first_eval_loss",
            "last_eval_loss",
            "tokens_trained",
            "tokens_per_s",
            "seconds",
        )
        values = {name: getattr(self, name) for name in names}
        return {name: float(value) for name, value in values.items() if value is not None}


class RunReport:
    """The page of a run in OUT, kept up to date by rank 0."""

    def __init__(
        self,
        *,
        out: Path,
        config: RunConfig,
        shards: Shards,
        engine: Engine,
        log: RunLog,
        history: History,
        num_steps: int,
        seconds: float,
        set_up: Sequence[str],
    ) -> None:
        self._out, self._config, self._shards, self._engine = out, config, shards, engine
        self._log, self._history, self._num_steps, self._set_up = log, history, num_steps, set_up
        self._seconds, self._started = seconds, time.perf_counter()
        self._written, self._took = 0.0, 0.0
        log.on_halt = self.refresh

    def refresh(self) -> None:
        """Write the page of a run that goes on, unless that was done a moment ago."""
        if time.perf_counter() - self._written < self._took / PAGE_SHARE:
            return
        self._mark(RUNNING)
        self._write(None)

    def finish(self, outcome: Outcome) -> RunSummary:
        """Write the last page and the summary."""
        summary = RunSummary.of(
            self._config,
            self._shards,
            self._log,
            num_parameters=self._engine.num_parameters,
            seconds=self._elapsed(),
            outcome=outcome,
        )
        self._mark(FINISHED)
        self._write(outcome)
        text = json.dumps(asdict(summary), indent=2, ensure_ascii=False, default=str) + "\n"
        write_text_whole(self._out / "summary.json", text)
        self._log.trackers.log(summary.steps, "final", summary.measures())
        return summary

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Close the log behind the block, and leave a page that says why, should the block not end well."""
        went_well = False
        try:
            yield
            went_well = True
        except BaseException as error:
            went_well = isinstance(error, Stopped)
            with suppress(OSError, SftpackError):  # the disk may be full: the error itself tells that
                self._mark(_ended(error))
                self._write(None)
            raise
        finally:
            self._log.close(went_well=went_well)

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._started

    def _mark(self, outcome: str) -> None:
        self._history.mark(self._log.steps[-1].step if self._log.steps else 0, outcome)

    def _write(self, outcome: Outcome | None) -> None:
        before, engine, method = time.perf_counter(), self._engine, self._config.method
        trained = None
        if engine.num_trained != engine.num_parameters:
            trained = method.line(engine.num_trained, engine.num_parameters, engine.adapted)
        view = RunView(
            name=self._out.resolve().name,
            out=self._out,
            config=self._config,
            shards=self._shards.folder,
            manifest=self._shards.manifest,
            num_parameters=engine.num_parameters,
            trained=trained,
            set_up=self._set_up,
            num_steps=self._num_steps,
            steps=self._log.steps,
            evals=self._log.evals,
            segments=self._history.segments,
            seconds=self._elapsed(),
            certificate=_certificate(self._out),
            outcome=outcome,
        )
        write_text_whole(self._out / "summary.html", run_page(view))
        self._written = time.perf_counter()
        self._took = self._written - before


def plain_config(config: RunConfig) -> dict[str, Any]:
    """The settings as JSON has them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}


def _ended(error: BaseException) -> str:
    if isinstance(error, Stopped):
        return f"stopped by {signal.Signals(error.signum).name}"
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, SftpackError):
        return f"failed: {error}"
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _certificate(out: Path) -> dict[str, Any] | None:
    """What `train verify` left here."""
    with suppress(OSError, ValueError):
        content = json.loads((out / CERTIFICATE).read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else None
    return None
