"""What `train run` itself does on GPUs, method by method: tokens a second, MFU, memory, beside what it foretold.

    python benchmarks/gpu_runs.py --shards CACHE --long CACHE_32K --runs 4B "8B LoRA" --work FOLDER

Models have Qwen3's shapes and random weights, written to FOLDER once; their tokenizer is the shards' own. Each run is
the command a user types, in a process of its own. Speed is that of its log, the first two steps left out (kernels are
built in them), and by this process's stopwatch, from line to line.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu import make_model

from train.load import open_shards

OFFLOAD_PARAMETERS = {
    "zero_optimization": {
        "stage": 3,
        "offload_param": {"device": "cpu", "pin_memory": True},
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
    },
    "bf16": {"enabled": True},
}
CUSTOM = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_clipping": 0.5,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": 2, "overlap_comm": True, "reduce_bucket_size": 200_000_000},
    "optimizer": {"type": "AdamW", "params": {"lr": 2e-5, "betas": [0.9, 0.95], "weight_decay": 0.0}},
    "scheduler": {"type": "WarmupCosineLR", "params": {"warmup_num_steps": 2, "total_num_steps": "auto"}},
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One command."""

    shape: str
    flags: str = ""
    deepspeed: dict[str, Any] | None = None  # goes into a file
    is_long: bool = False  # one conversation of 32k tokens a pack


RUNS = {
    "check": Run(shape="check"),
    "0.6B": Run(shape="0.6B"),
    "1.7B": Run(shape="1.7B"),
    "4B": Run(shape="4B"),
    "4B ZeRO-2, optimizer in CPU memory": Run(shape="4B", flags="--zero 2 --offload-optimizer"),
    "4B ZeRO-3": Run(shape="4B", flags="--zero 3"),
    "4B ZeRO-3, all in CPU memory": Run(shape="4B", deepspeed=OFFLOAD_PARAMETERS),
    "4B custom ds_config": Run(shape="4B", deepspeed=CUSTOM),
    "4B LoRA": Run(shape="4B", flags="--lora"),
    "8B LoRA": Run(shape="8B", flags="--lora"),
    "8B": Run(shape="8B"),
    "1.7B fp16": Run(shape="1.7B", flags="--precision fp16"),
    "4B 32k": Run(shape="4B", is_long=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--long", type=Path, help="a cache whose packs hold one conversation of 32k tokens each")
    parser.add_argument("--runs", nargs="+", default=["4B"], choices=RUNS)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--work", type=Path, required=True, help="for models and runs")
    parser.add_argument("--more", default="", help="further flags of `train run`, for all")
    options = parser.parse_args()
    columns = [
        "run",
        "command",
        "tokens/s",
        "stopwatch",
        "foretold",
        "MFU",
        "GiB",
        "foretold",
        "loss",
        "data",
        "whole s",
    ]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for name in options.runs:
        print(f"| {name} | {row(RUNS[name], options)} |", flush=True)


def row(run: Run, options: argparse.Namespace) -> str:
    """The run's cells of the table."""
    shards, out = options.long if run.is_long else options.shards, options.work / "run"
    shutil.rmtree(out, ignore_errors=True)
    flags = f"{run.flags} {options.more}".split()
    if run.deepspeed is not None:
        file = options.work / "ds_config.json"
        file.write_text(json.dumps(run.deepspeed), encoding="utf-8")
        flags += ["--deepspeed", str(file)]
    model = model_folder(run.shape, shards, options.work)
    fixed = ["--shards", str(shards), "--model", str(model), "--out", str(out), "--steps", str(options.steps)]
    started = time.perf_counter()
    code, lines = watched(
        [sys.executable, "-c", "from train.cli import main; raise SystemExit(main())", "run", *fixed, *flags]
    )
    whole = time.perf_counter() - started
    text = "\n".join(line for _, line in lines)
    if code:
        return f"`{' '.join(flags)}` | failed: {lines[-1][1][:200] if lines else code}"
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if "loss" in record]
    timed = steps[2:]
    seconds = sum(step["tokens"] / step["tokens_per_s"] for step in timed)
    at = [when for when, line in lines if re.match(r"step +\d", line)]
    watch = sum(step["tokens"] for step in timed) / (at[-1] - at[1]) if len(at) == len(steps) else float("nan")
    speed = sum(step["tokens"] for step in timed) / seconds
    expected = re.search(r"expected +([\d.]+) GiB.*?([\d,]+) tokens/s", text)
    foretold = [expected.group(2), expected.group(1)] if expected else ["", ""]
    mfu = median(step["mfu"] or 0 for step in timed)
    memory = max(step["memory_gib"] or 0 for step in steps)
    losses = f"{steps[0]['loss']:.2f} to {steps[-1]['loss']:.2f}"
    waiting = max(step["waiting"] for step in timed)
    shutil.rmtree(out, ignore_errors=True)
    cells = [f"`{' '.join(flags)}`", f"{speed:,.0f}", f"{watch:,.0f}", foretold[0], f"{mfu:.1%}", f"{memory:.1f}"]
    return " | ".join([*cells, foretold[1], losses, f"{waiting:.2%}", f"{whole:.0f}"])


def watched(command: list[str]) -> tuple[int, list[tuple[float, str]]]:
    """Run it and pass on its lines; gives its exit code and its lines, each with when it came."""
    lines: list[tuple[float, str]] = []
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.perf_counter(), line.rstrip()))
            print(f"{lines[-1][0] - started:6.1f} s  {line.rstrip()}", file=sys.stderr, flush=True)
    return process.returncode, lines


def model_folder(shape: str, shards: Path, work: Path) -> Path:
    """A model of this shape with random weights, and the tokenizer of the shards."""
    folder = work / f"model-{shape}"
    if not (folder / "config.json").exists():
        for other in work.glob("model-*"):  # disks are small
            shutil.rmtree(other)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        make_model(shape, torch.bfloat16, device, attention="sdpa").save_pretrained(folder)
        torch.cuda.empty_cache()
    for file in open_shards(shards).tokenizer.iterdir():
        shutil.copy(file, folder)
    return folder


if __name__ == "__main__":
    main()
