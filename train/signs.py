"""Signs of life: each rank tells how far it is; where nothing goes on, the first that answers says who is behind.

A thread of each rank posts its step and phase to the store of the process group, and the lowest rank that still does
reads them all. Ends a run that hangs, with a line, before the process group's time-out does so without one.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STALL_S = 10 * 60  # a step's phase may take so long, or SLOWER times the longest so far
PATIENT_S = 28 * 60  # loading, compiling, saving and the like; within the process group's time-out
SLOWER = 5
STALL_VARIABLE = "SFTPACK_STALL_S"  # in the environment: instead of STALL_S
MOST_NAMED = 8


@dataclass(kw_only=True, slots=True)
class Sign:
    """How far this rank is. The rank's work calls `at`, a thread reads it."""

    step: int = 0
    phase: str = "starting"
    is_patient: bool = True
    marks: int = 0
    slowest_s: float = 0.0  # of the phases that are not patient
    out: Path | None = None  # the run's folder
    began: float = field(default_factory=time.monotonic)

    def at(self, phase: str, step: int | None = None, *, patient: bool = True) -> None:
        """Say what this rank does next. All ranks say the same in the same order."""
        now = time.monotonic()
        if not self.is_patient:
            self.slowest_s = max(self.slowest_s, now - self.began)
        self.step = self.step if step is None else step
        self.phase, self.is_patient, self.began = phase, patient, now
        self.marks += 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a rank posted last."""

    rank: int
    machine: str
    pid: int
    step: int
    phase: str
    is_patient: bool
    marks: int
    beat: int  # counts what it posted
    line: str  # of its code, where it has stood for a while

    def place(self) -> str:
        """Step 4, backward pass."""
        return f"step {self.step}, {self.phase}" if self.step else self.phase


class Judge:
    """Tells from what ranks posted, and when, which of them hang."""

    def __init__(self, limit_s: float, interval_s: float) -> None:
        self._limit_s, self._interval_s = limit_s, interval_s
        self._last: dict[int, Seen] = {}
        self._answered: dict[int, float] = {}
        self._moved = self._looked = time.monotonic()

    def take(self, seen: dict[int, Seen], now: float) -> None:
        """Note what changed since the last look."""
        if now - self._looked > 4 * self._interval_s:  # this process was stopped itself, and maybe all were
            self._moved = now
            self._answered = dict.fromkeys(self._answered, now)
        self._looked = now
        for rank, each in seen.items():
            before = self._last.get(rank)
            if before is None or before.beat != each.beat:
                self._answered[rank] = now
            if before is None or before.marks != each.marks:
                self._moved = now
        self._last = seen

    def silent(self) -> list[int]:
        """Ranks that have posted nothing for longer than the limit."""
        return [rank for rank in self._last if self._looked - self._answered[rank] > self._limit_s]

    def hung(self, slowest_s: float) -> tuple[list[int], str] | None:
        """The ranks that hang and since when, or None while any rank goes on, or may take its time."""
        still_s = self._looked - self._moved
        if not self._last or still_s <= self._limit_s:
            return None
        if silent := self.silent():
            return silent, f"not heard of for {self._looked - min(self._answered[rank] for rank in silent):.0f} s"
        marks = min(each.marks for each in self._last.values())
        behind = [rank for rank, each in self._last.items() if each.marks == marks]
        limit_s = PATIENT_S if self._last[behind[0]].is_patient else max(self._limit_s, SLOWER * slowest_s)
        return (behind, f"no further for {still_s:.0f} s") if still_s > limit_s else None


@contextlib.contextmanager
def signs_of_life(sign: Sign, rank: int, num_ranks: int) -> Iterator[None]:
    """Post this rank's sign while the block runs, and end the process where the ranks no longer go on.

    The process group is joined already; its store is at MASTER_ADDR and MASTER_PORT.
    """
    if num_ranks == 1:
        yield
        return
    post = _Post(sign, rank, num_ranks, _stall_s())
    thread = threading.Thread(target=post.run, name="signs of life", daemon=True)
    thread.start()
    threading.Thread(target=post.watch, name="without the store", daemon=True).start()
    try:
        yield
    finally:
        post.leave()
        thread.join(timeout=2)


def hang_line(hung: list[int], what: str, seen: dict[int, Seen], saved: str) -> str:
    """The one line that says which ranks hang, and where the others wait."""
    named = [_named(seen[rank]) for rank in hung[:MOST_NAMED]]
    if len(hung) > MOST_NAMED:
        named.append(f"and {len(hung) - MOST_NAMED} more")
    waiting = [each for rank, each in seen.items() if rank not in hung]
    if waiting:
        ahead = max(waiting, key=lambda each: each.marks)
        others = f"; the others wait at {ahead.place()}"
    else:
        others = "; none is ahead of another, as where the network between them fails"
    who = "rank" if len(hung) == 1 else "ranks"
    return f"train: the run hangs: {who} {', '.join(named)}: {what}{others}. {saved}; {_NEXT}"


def _named(seen: Seen) -> str:
    stands = f" in {seen.line}" if seen.line else ""
    return f"{seen.rank} ({seen.machine}, process {seen.pid}) at {seen.place()}{stands}"


class _Post:
    """The thread's work: post, look, tell."""

    def __init__(self, sign: Sign, rank: int, num_ranks: int, stall_s: float) -> None:
        self._sign, self._rank, self._num_ranks = sign, rank, num_ranks
        self._interval_s = min(5.0, stall_s / 4)
        self._stall_s = stall_s
        self._followed = time.monotonic()
        self._timeout_s = max(5.0, min(60.0, stall_s))
        self._judge = Judge(stall_s, self._interval_s)
        self._leaving = threading.Event()
        self._main = threading.main_thread().ident
        self._beat = 0
        self._machine, self._pid = socket.gethostname(), os.getpid()

    def leave(self) -> None:
        """End the thread; the others no longer wait for this rank."""
        self._leaving.set()

    def run(self) -> None:
        """Post and look until this rank leaves, or the store is gone."""
        from torch.distributed import DistError

        with contextlib.suppress(DistError, RuntimeError, OSError):
            self._follow(_connect(self._timeout_s))

    def watch(self) -> None:
        """See that this rank's work goes on where `run` no longer does.

        A store whose process was stopped answers neither calls with a time-out nor new connections, ever.
        """
        began = looked = time.monotonic()
        while not self._leaving.wait(self._interval_s):
            sign, now = self._sign, time.monotonic()
            if now - looked > 4 * self._interval_s:  # this process was stopped itself
                began = now
            looked = now
            limit_s = PATIENT_S if sign.is_patient else max(self._stall_s, SLOWER * sign.slowest_s)
            is_cut_off = now - self._followed > max(self._timeout_s, 4 * self._interval_s)
            if is_cut_off and min(self._still_s(), now - began) > limit_s:
                self._tell_without_store()

    def _follow(self, store: Any) -> None:
        if self._rank == 0:
            store.set(_ENDED, "")
        while True:
            left = self._leaving.wait(self._interval_s)
            self._followed = time.monotonic()
            store.set(_key(self._rank), "" if left else self._own())
            if left:
                return
            if store.get(_ENDED):
                _end()
            self._look(store)

    def _look(self, store: Any) -> None:
        seen = _read(store, range(self._num_ranks) if self._rank == 0 else range(1))
        self._judge.take(seen, time.monotonic())
        if self._rank > 0:
            if self._judge.silent() and self._still_s() > self._stall_s:
                self._look_instead(store)
        elif (verdict := self._judge.hung(self._sign.slowest_s)) is not None:
            self._tell(store, *verdict, seen)

    def _look_instead(self, store: Any) -> None:
        """Tell where the first rank is silent, and so are all up to this one."""
        before = _read(store, range(self._num_ranks))
        for _ in range(3):
            store.set(_key(self._rank), self._own())
            time.sleep(self._interval_s)
        after = _read(store, range(self._num_ranks))
        silent = [rank for rank, each in after.items() if rank in before and each.beat == before[rank].beat]
        if 0 in silent and all(rank in silent for rank in after if rank < self._rank):
            self._tell(store, silent, f"not heard of for more than {self._stall_s:.0f} s", after)

    def _tell(self, store: Any, hung: list[int], what: str, seen: dict[int, Seen]) -> None:
        print(hang_line(hung, what, seen, _saved(self._sign.out)), file=sys.stderr, flush=True)
        store.set(_ENDED, "1")
        time.sleep(2 * self._interval_s)  # the others end themselves, where no launcher ends them
        _end()

    def _own(self) -> str:
        sign = self._sign
        self._beat += 1
        content = {
            "machine": self._machine,
            "pid": self._pid,
            "step": sign.step,
            "phase": sign.phase,
            "is_patient": sign.is_patient,
            "marks": sign.marks,
            "beat": self._beat,
            "line": _line_of(self._main) if self._still_s() > self._stall_s / 2 else "",
        }
        return json.dumps(content)

    def _tell_without_store(self) -> None:
        time.sleep(min(self._rank, 20) * 0.2)  # the launcher ends the others once one has told it
        where = f"{os.environ['MASTER_ADDR']} port {os.environ['MASTER_PORT']}, where ranks meet, does not answer"
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            where += "; the process of rank 0 keeps it"
        waits = f"rank {self._rank} waits at step {self._sign.step}, {self._sign.phase}"
        line = f"train: the run hangs: {where}; {waits}. {_saved(self._sign.out)}; {_NEXT}"
        print(line, file=sys.stderr, flush=True)
        _end()

    def _still_s(self) -> float:
        return time.monotonic() - self._sign.began


_NEXT = "look at those machines (dmesg, nvidia-smi, disk, network), then the same command goes on"
_ENDED = "sftpack/hangs"


def _key(rank: int) -> str:
    return f"sftpack/sign/{rank}"


def _connect(timeout_s: float) -> Any:
    """A connection of its own: those of the process group may be busy waiting."""
    from datetime import timedelta

    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout_s))


def _read(store: Any, ranks: Any) -> dict[int, Seen]:
    """What ranks posted; not those that have left."""
    found: dict[int, Seen] = {}
    for rank in ranks:
        if text := store.get(_key(rank)).decode():  # `check` and its like would wait for ever
            found[rank] = Seen(rank=rank, **json.loads(text))
    return found


def _line_of(thread: int | None) -> str:
    """The line of code that a thread is at."""
    frame = sys._current_frames().get(thread or 0)
    if frame is None:
        return ""
    last = traceback.extract_stack(frame, limit=1)[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno} {last.name}"


def _saved(out: Path | None) -> str:
    from train.checkpoint import newest_checkpoint

    checkpoint = newest_checkpoint(out)[0] if out is not None else None
    if checkpoint is None:
        return "No checkpoint was saved yet"
    return f"Step {checkpoint.step} is saved in {out}"


def _stall_s() -> float:
    from schemas.errors import TrainError

    text = os.environ.get(STALL_VARIABLE)
    try:
        seconds = float(text) if text else float(STALL_S)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise TrainError(f"{STALL_VARIABLE} is {text!r}; write seconds, {STALL_S} for instance")
    return seconds


def _end() -> None:
    """Leave at once: the main thread waits for a collective that does not end."""
    os._exit(1)
