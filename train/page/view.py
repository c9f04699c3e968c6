"""What the page tells of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.manifest import ShardsManifest
from train.config import RunConfig
from train.history import Segment
from train.log import EvalRecord, StepRecord
from train.proof import ExportProof
from train.samples import Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a finished run left."""

    folder: Path  # of the model or the adapter
    proof: ExportProof
    best: Path | None  # where that is not the last
    samples: Samples


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """A run as it stands."""

    name: str
    out: Path
    config: RunConfig
    shards: Path
    manifest: ShardsManifest
    num_parameters: int
    trained: str | None  # what of the model is trained, where not all
    set_up: Sequence[str]  # lines said at the start
    num_steps: int
    steps: Sequence[StepRecord]
    evals: Sequence[EvalRecord]
    segments: Sequence[Segment]
    seconds: float
    certificate: dict[str, Any] | None
    outcome: Outcome | None  # None: not finished
