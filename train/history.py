"""Who ran what, where and until when: one segment for each start of a run, kept in OUT/history.json by rank 0."""

import json
import platform
import shlex
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from schemas.files import write_text_whole
from train.launch import Ranks

HISTORY = "history.json"
RUNNING, FINISHED, KILLED = "running", "finished", "killed"
PACKAGES = "sftpack", "torch", "deepspeed", "transformers", "peft", "flash-attn-4", "pyarrow"


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """What one start of the run came to."""

    started: str  # ISO 8601, UTC
    seen: str  # when it was last heard of
    first_step: int  # steps done before it
    last_step: int  # steps done when it was last heard of
    outcome: str  # running | finished | stopped by SIGTERM | failed: why | killed
    num_ranks: int
    devices: str  # as in NVIDIA H100 80GB HBM3 x 8
    machine: str
    versions: dict[str, str]
    command: str


class History:
    """The segments of a run; the last is this process's."""

    def __init__(self, out: Path, ranks: Ranks, first_step: int) -> None:
        self._path = out / HISTORY
        before = _read(self._path)
        self.segments = [*(each if each.outcome != RUNNING else replace(each, outcome=KILLED) for each in before)]
        now = _now()
        self.segments.append(
            Segment(
                started=now,
                seen=now,
                first_step=first_step,
                last_step=first_step,
                outcome=RUNNING,
                num_ranks=ranks.num_ranks,
                devices=_devices(ranks),
                machine=f"{platform.node()}, {platform.platform(terse=True)}",
                versions=_versions(),
                command=_command(),
            )
        )

    def mark(self, step: int, outcome: str = RUNNING) -> None:
        """Keep how far this process has come."""
        self.segments[-1] = replace(self.segments[-1], seen=_now(), last_step=step, outcome=outcome)
        content = [asdict(each) for each in self.segments]
        write_text_whole(self._path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _read(path: Path) -> list[Segment]:
    """The segments so far; a file that is not whole tells of none."""
    with suppress(OSError, ValueError, TypeError):
        content: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [Segment(**each) for each in content]
    return []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _devices(ranks: Ranks) -> str:
    if ranks.device.type != "cuda":
        return "CPU"
    import torch

    return f"{torch.cuda.get_device_name(ranks.device)} x {ranks.num_ranks}"


def _versions() -> dict[str, str]:
    import torch

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    return found


def _command() -> str:
    """What was typed, as far as this process can tell: a rank is started with the same arguments."""
    return shlex.join(["train", *sys.argv[1:]])
