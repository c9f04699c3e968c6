"""Kill two-rank training runs at random moments, go on, and compare with an undisturbed run, bit for bit.

    python tests/train_kills.py --minutes 15

What is struck: one rank, the launcher, all of them at once, SIGTERM to the launcher, or whatever runs while a
checkpoint is being written. After each strike every checkpoint that has its name is whole. Needs no other data.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

KINDS = "rank", "launcher", "all", "terminate", "saving"
MEASURED = "step", "loss", "grad_norm", "learning_rate", "eval_loss"
METHODS: dict[str, list[str]] = {
    "whole-1": ["--zero", "1"],
    "whole-3": ["--zero", "3"],
    "lora-2": ["--zero", "2", "--lora", "4", "--lora-dropout", "0.1"],
}
MOST_STRIKES = 4  # of a run; then it may end
PATIENCE_S = 900


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A tiny model, its shards, and runs on them."""

    home: Path

    def prepare(self) -> None:
        """Make both."""
        from kills import tiny_model
        from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

        tokenizer = tiny_model(self.home / "tokenizer")
        model = tiny_model_dir(self.home / "base", tokenizer, tied=True)
        packs = packed(chat_examples(tokenizer, 60), 256)[:15]
        write_shards(self.home / "cache", tokenizer, str(model), packs[:13], packs[13:], seq_len=256)

    def start(self, out: Path, method: str) -> "subprocess.Popen[str]":
        """Begin a run, or go on with it, in a session of its own."""
        command = [sys.executable, "-m", "train.cli", "run", "--shards", str(self.home / "cache"), "--out", str(out)]
        command += ["--batch-packs", "4", "--epochs", "6", "--learning-rate", "1e-3", "--eval-every", "3"]
        command += ["--save-every", "1", "--procs", "2", *METHODS[method]]
        pythonpath = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": pythonpath}
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

    def undisturbed(self, method: str) -> tuple[list[dict[str, float]], float]:
        """What a run measures that nothing happens to, and its seconds."""
        started = time.monotonic()
        run = self.start(self.home / method, method)
        errors = run.communicate(timeout=PATIENCE_S)[1]
        assert run.returncode == 0, errors
        return measures(self.home / method), time.monotonic() - started

    def trial(self, method: str, expected: list[dict[str, float]], seconds: float, chance: random.Random) -> list[str]:
        """Strike a run a few times, have it go on each time, and compare its end; gives what became of each strike."""
        out = self.home / "struck"
        shutil.rmtree(out, ignore_errors=True)
        became = []
        for _ in range(chance.randint(1, MOST_STRIKES)):
            kind = chance.choice(KINDS)
            became.append(f"{method}: {self._strike(out, method, kind, seconds, chance)}")
            check_checkpoints(out)
        run = self.start(out, method)
        errors = run.communicate(timeout=PATIENCE_S)[1]
        assert run.returncode == 0, errors
        assert measures(out) == expected, f"{method}: other measures after {became}"
        for weights in (self.home / method).glob("*/*.safetensors"):
            made = out / weights.relative_to(self.home / method)
            assert made.read_bytes() == weights.read_bytes(), f"{method}: other weights after {became}"
        assert not list((out / "checkpoints").glob(".*")), "leftovers"
        return became

    def _strike(self, out: Path, method: str, kind: str, seconds: float, chance: random.Random) -> str:
        run = self.start(out, method)
        if kind == "saving":
            wait_for_saving(run, out / "checkpoints", chance)
        else:
            with suppress(subprocess.TimeoutExpired):
                run.wait(chance.uniform(0, seconds))
        if run.poll() is None:
            strike(run, chance.choice(KINDS[:3]) if kind == "saving" else kind, chance)
        errors = run.communicate(timeout=PATIENCE_S)[1]
        end_group(run.pid)
        if run.returncode == 0:
            return f"{kind}: came to its end"
        expected = {"terminate": {-signal.SIGTERM, 128 + signal.SIGTERM}}.get(kind, {-signal.SIGKILL, 1})
        assert run.returncode in expected, (kind, run.returncode, errors)
        return f"{kind}: stopped" + (", saved" if run.returncode == 128 + signal.SIGTERM else "")


def wait_for_saving(run: "subprocess.Popen[str]", checkpoints: Path, chance: random.Random) -> None:
    """Until one of the first checkpoints from now on is being written, and a moment longer."""
    for _ in range(chance.randint(1, 6)):
        seen = set(checkpoints.glob(".step-*"))
        while run.poll() is None and not set(checkpoints.glob(".step-*")) - seen:
            time.sleep(0.0005)
    time.sleep(chance.choice([0, chance.uniform(0, 0.1)]))


def strike(run: "subprocess.Popen[str]", kind: str, chance: random.Random) -> None:
    """End one rank, the launcher, all at once, or ask the launcher to."""
    ranks = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text(encoding="ascii").split()
    with suppress(ProcessLookupError):
        if kind == "rank" and ranks:
            os.kill(int(chance.choice(ranks)), signal.SIGKILL)
        elif kind == "all":
            for process in [run.pid, *map(int, ranks)]:
                os.kill(process, signal.SIGKILL)
        else:
            os.kill(run.pid, signal.SIGTERM if kind == "terminate" else signal.SIGKILL)


def end_group(leader: int) -> None:
    """See that no rank outlives its launcher for long."""
    deadline = time.monotonic() + 60
    while leader in sessions():
        assert time.monotonic() < deadline, "ranks outlive their launcher"
        time.sleep(0.1)


def sessions() -> set[int]:
    """The sessions of all processes that still run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session, *_ = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if state not in "ZX":
                found.add(int(session))
    return found


def check_checkpoints(out: Path) -> None:
    """Each checkpoint that has its name holds all files that its record names, of their size, and can be read."""
    import torch

    from train.checkpoint import read_checkpoint

    for folder in (out / "checkpoints").glob("step-*"):
        read_checkpoint(folder)
        for path in folder.rglob("*.pt"):
            torch.load(path, weights_only=False)


def measures(out: Path) -> list[dict[str, float]]:
    """What was measured at each step, without what depends on the clock."""
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: line[name] for name in MEASURED if name in line} for line in map(json.loads, lines)]


def main() -> None:
    """Strike for as long as asked, and count what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15, help="begin trials for so long (default: 15)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=",".join(METHODS), help="default: all")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    methods, deadline, number = arguments.methods.split(","), time.monotonic() + 60 * arguments.minutes, 0
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(home=Path(home))
        bench.prepare()
        undisturbed: dict[str, tuple[list[dict[str, float]], float]] = {}
        while time.monotonic() < deadline:
            method = methods[number % len(methods)]
            if method not in undisturbed:
                undisturbed[method] = bench.undisturbed(method)
            chance = random.Random(f"{arguments.seed} {number}")
            became = bench.trial(method, *undisturbed[method], chance)
            counts.update(became)
            number += 1
            print(f"{number} runs, {counts.total()} strikes", *became, sep="; ", file=sys.stderr, flush=True)
    for became, count in sorted(counts.items()):
        print(f"{count:>5}  {became}")


if __name__ == "__main__":
    main()
