"""Disturb runs of `dataprep` at random moments, and look at what they leave. As a script, a hundred times:

python tests/kills.py --times 100 --seed 1
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from corpus import many_dialogues, write_jsonl

INTERRUPTED = "dataprep: interrupted; run the same command again to go on\n"
KINDS = ("kill", "interrupt", "terminate", "worker", "full", "small-disk", "read-only")
_ROWS = 4_200  # two workers' worth
_STARTED_S = 0.1  # before it, Python itself loads, and says in its own words that it was interrupted
_MiB = 1 << 20
_ON_DISK = ("small-disk", "read-only")  # with a tmpfs of their own
_A_TRIAL = 8  # disturbances before a run may end

State = dict[str, bytes]


@dataclass(kw_only=True)
class Bench:
    """A cache, always in the same place, that comes from old.jsonl and is to become new.jsonl's."""

    home: Path
    model: Path
    from_nothing: bool = True  # runs may begin so, not only from old.jsonl's cache
    allowed: dict[str, set[bytes]] = field(default_factory=dict)  # what may stand at a path
    seconds: dict[str, float] = field(default_factory=dict)  # that an undisturbed command takes
    ends: dict[bool, State] = field(default_factory=dict)  # of undisturbed runs, begun from nothing or from the old

    @property
    def cache(self) -> Path:
        """Where all runs write to."""
        return self.home / "cache"

    def command(self, name: str, raw: str = "new.jsonl") -> list[str]:
        """A command line."""
        normalize = [str(self.home / raw), "--out", str(self.cache), "--workers", "2"]
        tokenize = [str(self.cache), "--model", str(self.model), "--seq-len", "256", "--workers", "2"]
        return [sys.executable, "-m", "dataprep.start", name, *(normalize if name == "normalize" else tokenize)]

    def prepare(self) -> None:
        """Run all undisturbed, and keep what each step leaves."""
        dialogues = many_dialogues(_ROWS + 300)
        write_jsonl(self.home / "old.jsonl", dialogues[:_ROWS])
        write_jsonl(self.home / "new.jsonl", [*dialogues[:2_000], *dialogues[2_300:]])
        for raw in ("new.jsonl", "old.jsonl", "new.jsonl")[not self.from_nothing :]:
            for name in ("normalize", "tokenize"):
                self._finish(name, raw)
                for path, content in self.state().items():
                    self.allowed.setdefault(path, set()).add(content)
            if self.from_nothing and not self.ends:
                self.ends[False] = self.state()
                shutil.rmtree(self.cache)
            elif raw == "old.jsonl":
                shutil.copytree(self.cache, self.home / "old-cache")
        self.ends[True] = self.state()
        shutil.rmtree(self.cache)

    def _finish(self, name: str, raw: str = "new.jsonl") -> None:
        started = time.monotonic()
        done = subprocess.run(self.command(name, raw), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.seconds[name] = min(time.monotonic() - started, self.seconds.get(name, 60.0))

    def state(self) -> State:
        """All files of the cache but hidden ones, which are temporary."""
        files = (path for path in self.cache.rglob("*") if path.is_file())
        names = {str(path.relative_to(self.cache)): path for path in files}
        return {name: path.read_bytes() for name, path in names.items() if "/." not in f"/{name}"}

    def trial(self, kinds: Sequence[str], chance: random.Random) -> list[str]:
        """Disturb runs one after the other, first of normalize; look at what each left; returns what became of each."""
        from_old = not self.from_nothing or chance.random() < 0.5
        num_first = chance.randrange(2) if len(kinds) == 1 else len(kinds) // 2
        on_disk = not set(_ON_DISK).isdisjoint(kinds)
        if on_disk and not self._mounted(chance):
            return ["no mount"]
        try:
            if from_old:
                shutil.copytree(self.home / "old-cache", self.cache, dirs_exist_ok=True)
            became = [self._disturb("normalize", kind, chance) for kind in kinds[:num_first]]
            self._finish("normalize")
            became += [self._disturb("tokenize", kind, chance) for kind in kinds[num_first:]]
            self._finish("tokenize")
            left = self.state()
            expected = self.ends[from_old]
            assert left.keys() == expected.keys(), left.keys() ^ expected.keys()
            assert left == expected
            assert not [path for path in self.cache.rglob(".*") if path.name != ".lock"], "leftovers"
        finally:
            if on_disk:
                subprocess.run(["umount", str(self.cache)], check=True)
            shutil.rmtree(self.cache, ignore_errors=True)
        return became

    def _disturb(self, name: str, kind: str, chance: random.Random) -> str:
        if kind in _ON_DISK:
            self._limit(kind, chance)
        became = disturbed(self.command(name), kind, chance, self.seconds[name])
        self._look()
        if kind in _ON_DISK:
            subprocess.run(["mount", "-o", "remount,rw,size=1g", str(self.cache)], check=True)
        return f"{name}: {became}"

    def _mounted(self, chance: random.Random) -> bool:
        self.cache.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(self.cache)]
        with suppress(FileNotFoundError):
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return True
        self.cache.rmdir()
        return False

    def _limit(self, kind: str, chance: random.Random) -> None:
        held = sum(path.stat().st_size for path in self.cache.rglob("*") if path.is_file())
        size = held + chance.randrange(_MiB // 4, 4 * _MiB)
        how = "remount,ro" if kind == "read-only" else f"remount,size={size}"
        subprocess.run(["mount", "-o", how, str(self.cache)], check=True)

    def _look(self) -> None:
        """What stands at a path is whole; what a manifest names is there."""
        state = self.state()
        for path, content in state.items():
            assert content in self.allowed.get(path, ()), f"{path}: not what an undisturbed run leaves there"
        for folder in ("conversations", "shards"):
            manifest = state.get(f"{folder}/manifest.json", b"").decode()
            for path in set().union(*(state, self.allowed)):
                name = path.removeprefix(f"{folder}/")
                if "/" not in name and f'"{name}"' in manifest:
                    assert path in state, f"{path}: named, and not there"


def disturbed(command: list[str], kind: str, chance: random.Random, seconds: float) -> str:
    """Run a command and disturb it; its last words are one line or none."""
    limit: Callable[[], None] | None = None
    if kind == "full":
        size = chance.randrange(1_000, 2 * _MiB)

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=limit
    ) as run:
        if kind in ("kill", "interrupt", "terminate", "worker"):
            with suppress(subprocess.TimeoutExpired):
                run.wait(chance.uniform(_STARTED_S if kind == "interrupt" else 0, seconds))
            with suppress(ProcessLookupError):
                _strike(kind, run.pid)
        errors = run.communicate(timeout=120)[1]
    code = run.returncode
    if code == 0:
        return f"{kind}: came to its end"
    expected = {"kill": -signal.SIGKILL, "terminate": -signal.SIGTERM, "interrupt": 130}.get(kind, 1)
    assert code == expected, (kind, code, errors)
    if kind == "interrupt":
        assert errors == INTERRUPTED, errors
    else:
        assert errors.count("\n") == (code == 1), errors
        assert errors.startswith("dataprep: " if code == 1 else ""), errors
    return f"{kind}: stopped"


def _strike(kind: str, process: int) -> None:
    if kind == "worker":
        children = Path(f"/proc/{process}/task/{process}/children")
        for child in children.read_text(encoding="ascii").split()[:1] if children.exists() else []:
            os.kill(int(child), signal.SIGKILL)
        return
    number = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}[kind]
    os.killpg(process, number)


def batched(kinds: Sequence[str], size: int) -> list[Sequence[str]]:
    """Cut a list into lists of this size, the last one shorter."""
    return [kinds[start : start + size] for start in range(0, len(kinds), size)]


def tiny_model(folder: Path) -> Path:
    """The tiny tokenizer of the tests, outside of them."""
    import conftest

    class _Folders:
        def mktemp(self, name: str) -> Path:
            folder.mkdir(parents=True, exist_ok=True)
            return folder

    return conftest.tiny_tokenizer_dir.__wrapped__(_Folders())


def main() -> None:
    """Disturb as often as asked, kinds in turn, and count what became of it."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="disturbances, kinds in turn (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: all")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    kinds = list(islice(cycle(arguments.kinds.split(",")), arguments.times))
    trials = [[kind] for kind in kinds if kind in _ON_DISK]
    trials += batched([kind for kind in kinds if kind not in _ON_DISK], _A_TRIAL)
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(home=Path(home), model=tiny_model(Path(home) / "model"))
        bench.prepare()
        for number, trial in enumerate(trials):
            counts.update(bench.trial(trial, random.Random(f"{arguments.seed} {number}")))
            print(f"{counts.total()} of {arguments.times}", file=sys.stderr, flush=True)
    for became, count in sorted(counts.items()):
        print(f"{count:>5}  {became}")


if __name__ == "__main__":
    main()
