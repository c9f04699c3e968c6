"""What happens beside the steps: measures, held-out losses, the best model, checkpoints, and stopping early."""

import json
import shutil
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from schemas.files import write_text_whole
from train.batch import Plan
from train.checkpoint import Checkpoint, fingerprint, run_options
from train.config import RunConfig
from train.engine import Engine
from train.evaluate import held_out_loss
from train.export import export_adapter, export_files, export_model
from train.hub import ModelFiles
from train.launch import Ranks
from train.load import Shards
from train.log import RunLog, StepRecord
from train.proof import ExportProof
from train.requests import NOTHING, Requests, Stopped
from train.saving import Saver

EVALUATION = "evaluation.json"  # in the folder of the best model


@dataclass(kw_only=True, slots=True)
class Watch:
    """Called by the training loop on every rank. Its state is what a checkpoint holds beside the engine's."""

    config: RunConfig
    shards: Shards
    files: ModelFiles
    engine: Engine
    ranks: Ranks
    out: Path
    plan: Plan
    num_steps: int
    log: RunLog | None  # rank 0's
    requests: Requests
    saver: Saver
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
        self.saver.check()
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
            self.saver.finish()
        elif self.asked in (signal.SIGTERM, signal.SIGINT):
            self.saver.finish()
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
            self._keep_best(step, loss)

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

    def export(self, folder: Path) -> ExportProof | None:
        """Write what was trained so far, a model or an adapter; every rank calls this, rank 0 gets what was seen."""
        write = export_model if self.config.method.lora is None else export_adapter
        self.engine.deepspeed.empty_partition_cache()  # ZeRO-3 joins weights ahead, also behind the last step
        return write(self.engine.deepspeed, folder, self.files, self.shards, self.ranks)

    def merge(self, adapter: Path, folder: Path) -> ExportProof | None:
        """Write the model that the adapter makes of its base; rank 0 does it, on the CPU."""
        files = replace(self.files, adapter=adapter)
        return export_files(files, folder, self.shards) if self.ranks.is_first else None

    def best(self) -> Path | None:
        """The folder of the best model, where that is not the last."""
        folders = sorted((self.out / "best").glob("step-*"), key=lambda path: _loss(path))
        if not self.evals or not folders or self.evals[-1][1] <= _loss(folders[0]):
            return None
        return folders[0]

    def _evaluates(self, done: int) -> bool:
        eval_every = self.config.eval_every or -(-self.num_steps // 4)
        return done % eval_every == 0 or done == self.num_steps

    def _keep_best(self, step: int, loss: float) -> None:
        """Export to OUT/best/step-N, then remove the one before."""
        folder = self.out / "best" / f"step-{step:06d}"
        temporary = folder.with_name(f".{folder.name}.0.tmp")
        if self.ranks.is_first:
            folder.parent.mkdir(exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
        self.export(temporary)
        if self.ranks.is_first:
            write_text_whole(temporary / EVALUATION, json.dumps({"step": step, "eval_loss": loss}) + "\n")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
            for old in set(folder.parent.glob("step-*")) - {folder}:
                shutil.rmtree(old, ignore_errors=True)


def waited_enough(patience: int, evals: list[tuple[int, float]]) -> bool:
    """Whether the last `patience` held-out losses brought no new best; that before training is not among them."""
    trained = [loss for step, loss in evals if step > 0]
    return bool(trained) and len(trained) - 1 - trained.index(min(trained)) >= patience


def _loss(folder: Path) -> float:
    return json.loads((folder / EVALUATION).read_text(encoding="utf-8"))["eval_loss"]
