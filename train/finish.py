"""The end of a run: the model written and proven, the best one proven, samples, the report, and one summary."""

import shutil
from dataclasses import replace
from pathlib import Path

from schemas.errors import SftpackError
from train.export import export, export_files, take
from train.hub import ModelFiles
from train.load import Shards
from train.optimizer import drop_moments
from train.page.view import Outcome
from train.proof import prove_export
from train.samples import take_samples
from train.summary import RunReport
from train.watch import Watch


def finish(watch: Watch, files: ModelFiles, report: RunReport | None) -> None:
    """Leave the model and the report."""
    out, log, config, shards = watch.out, watch.log, watch.config, watch.shards
    made = [out / "model", out / "adapter"]
    if log is not None:
        log.end_bar()
        for folder in made:  # of a run that was killed before its report was written
            shutil.rmtree(folder, ignore_errors=True)
    lora = config.method.lora
    drop_moments(watch.engine.deepspeed.optimizer)
    taken = take(watch.engine.deepspeed, files, watch.ranks, is_adapter=lora is not None)
    if log is None or report is None:
        return
    folder = made[lora is not None]
    proof = export(taken, folder, shards.tokenizer, files, shards)
    if lora is not None and lora.merge:
        folder = out / "model"
        proof = export_files(replace(files, adapter=out / "adapter"), folder, shards)
    lines = []
    if log.steps and (last := log.steps[-1].step) < watch.num_steps:
        waited = f"--patience {config.patience}"
        lines.append(f"early      ended at step {last} of {watch.num_steps}, without a new best for {waited}")
    lines.append(f"model      {folder}")
    lines.append(f"checked    {proof.line()}")
    if (best := watch.best.unless(watch.evals[-1][1] if watch.evals else None)) is not None:
        lines.append(
            f"best       {best}: its held-out loss is lower than that of the last step; {_checked(best, files, shards)}"
        )
    else:
        shutil.rmtree(out / "best", ignore_errors=True)
    samples = take_samples(files, folder, shards, watch.engine.num_parameters)
    summary = report.finish(Outcome(folder=folder, proof=proof, best=best, samples=samples))
    print(summary.line(), *lines, f"report     {out / 'summary.html'}", sep="\n", flush=True)


def _checked(best: Path, files: ModelFiles, shards: Shards) -> str:
    """Whether the best model is whole, in words: where it is not, the last one still is."""
    try:
        prove_export(best, files, shards)
    except SftpackError as error:
        return f"it did not pass its check: {error}"
    return "checked likewise"
