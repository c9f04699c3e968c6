"""What happens beside the steps: measures, held-out losses, the best model, checkpoints, and stopping early."""

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from train.background import Background
from train.batch import Plan
from train.best import Best
from train.checkpoint import Checkpoint, fingerprint, run_options
from train.config import RunConfig
from train.engine import Engine
from train.evaluate import held_out_loss
from train.launch import Ranks
from train.load import Shards
from train.log import RunLog, StepRecord
from train.requests import NOTHING, Requests, Stopped
from train.saving import Saver


@dataclass(kw_only=True, slots=True)
class Watch:
    """Called by the training loop on every rank. Its state is what a checkpoint holds beside the engine's."""

    config: RunConfig
    shards: Shards
    engine: Engine
    ranks: Ranks
    out: Path
    plan: Plan
    num_steps: int
    log: RunLog | None  # rank 0's
    requests: Requests
    background: Background
    saver: Saver
    best: Best
    evals: list[tuple[int, float]]  # step and held-out loss
    seconds: float  # of training before this process began
    saved: int  # the step of the newest checkpoint, 0: none
    asked: int = NOTHING  # of all ranks, after the step just taken
    started: float = field(default_factory=time.perf_counter)

    def on_records(self, records: list[StepRecord]) -> None:
        """Log steps."""
        if self.log is not None:
            self.log.log_steps(records)

    def is_due(self, done: int) -> bool:
        """Whether a checkpoint follows this step."""
        self.background.check()
        self.asked = self.requests.agreed()
        every = self.config.save_every
        return self.asked != NOTHING or bool(every and done % every == 0) or self._evaluates(done)

    def on_step(self, done: int) -> bool:
        """Evaluate and save where it is time to; True ends the training. Raises Stopped after a signal."""
        if self._evaluates(done):
            self.evaluate(done)
        is_last = done == self.num_steps or self.had_enough()
        if is_last:  # the model itself is written next, and a checkpoint is seven times as large
            due = bool(self.config.save_every)
        else:
            due = self.asked != NOTHING or bool(self.config.save_every and done % self.config.save_every == 0)
        if due:
            self.save(done)
        if is_last:
            self.background.finish()
        elif self.asked in (signal.SIGTERM, signal.SIGINT):
            self.background.finish()
            raise Stopped(self.asked, done)
        return is_last

    def evaluate(self, step: int) -> None:
        """Take the held-out loss, and keep the model where it is the best and not the last."""
        if self.shards.val is None:
            return
        sources = self.shards.manifest.sources
        found = held_out_loss(self.engine.deepspeed, self.shards.val, sources, self.plan, self.ranks)
        loss = found.loss
        is_best = step > 0 and all(loss < before for at, before in self.evals if at > 0)
        self.evals.append((step, loss))
        if self.log is not None:
            self.log.log_eval(step, loss, found.by_source if len(found.by_source) > 1 else None)
        if is_best and step < self.num_steps:
            self.best.keep(self.engine, step, loss, is_adapter=self.config.method.lora is not None)

    def had_enough(self) -> bool:
        """Whether the held-out loss has had no new best for as long as the user waits."""
        return self.config.patience is not None and waited_enough(self.config.patience, self.evals)

    def save(self, done: int) -> None:
        """Begin to write a checkpoint."""
        if self.log is not None:
            self.log.flush()
        options = run_options(self.config, self.shards)
        epoch, within = divmod(done, self.plan.steps_an_epoch)
        checkpoint = Checkpoint(
            step=done,
            epoch=epoch,
            packs_consumed=min(within * self.plan.batch_packs, self.plan.num_packs),
            num_ranks=self.ranks.num_ranks,
            zero=self.config.zero,
            seconds=self.seconds + time.perf_counter() - self.started,
            evals=self.evals,
            options=options,
            fingerprint=fingerprint(options),
        )
        self.saver.save(self.engine.deepspeed, checkpoint)
        self.saved = done

    def _evaluates(self, done: int) -> bool:
        eval_every = self.config.eval_every or -(-self.num_steps // 4)
        return done % eval_every == 0 or done == self.num_steps


def waited_enough(patience: int, evals: list[tuple[int, float]]) -> bool:
    """Whether the last `patience` held-out losses brought no new best; that before training is not among them."""
    trained = [loss for step, loss in evals if step > 0]
    return bool(trained) and len(trained) - 1 - trained.index(min(trained)) >= patience
