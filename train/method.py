"""What of a model is trained, and what bends its training: adapters, frozen weights, noise, smoothed labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import TrainError

RANK = 16  # of `--lora` and `--dora` without a number
ADAPTER_FLAGS = "lora_alpha", "lora_dropout", "lora_targets", "merge"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021) beside frozen linear layers."""

    rank: int
    alpha: float  # what the adapters add is multiplied by alpha / rank
    dropout: float
    targets: tuple[str, ...]  # last names of layers; none: every linear layer but the head
    dora: bool  # magnitudes are trained apart (Liu et al. 2024)
    merge: bool  # leave the merged model beside the adapter

    def __str__(self) -> str:
        kind = "DoRA" if self.dora else "LoRA"
        dropout = f", dropout {self.dropout:g}" if self.dropout else ""
        return f"{kind} of rank {self.rank}, alpha {self.alpha:g}{dropout}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """How a run trains; by default every weight, plainly."""

    lora: Lora | None = None
    freeze: tuple[str, ...] = ()  # patterns of names of weights, as in model.embed_tokens.*
    neftune: float = 0.0  # noise on embeddings (Jain et al. 2023)
    label_smoothing: float = 0.0

    def line(self, num_trained: int, num_parameters: int, layers: Sequence[str] = ()) -> str:
        """What is trained, in one line; `layers` are those with adapters."""
        if self.lora is None:
            return f"{num_trained:,} of the weights, {num_trained / num_parameters:.2%}; the others are frozen"
        where = f" on {', '.join(layers)}" if layers else ""
        return f"{self.lora}{where}: {num_trained:,} weights beside the frozen ones, {num_trained / num_parameters:.2%}"

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Method":
        """Settle it from what the user gave. Raises TrainError for a value out of range, or flags that clash."""
        method = cls(
            lora=_lora(given),
            freeze=tuple(given.get("freeze", ())),
            neftune=given.get("neftune", 0.0),
            label_smoothing=given.get("label_smoothing", 0.0),
        )
        if method.lora is not None and method.freeze:
            raise TrainError("--freeze with --lora: all but the adapters is frozen already; remove one of the two")
        if method.neftune < 0:
            raise TrainError(f"--neftune is {method.neftune}; it must not be below 0 (the paper has 5 to 15)")
        if not 0 <= method.label_smoothing < 1:
            raise TrainError(f"--label-smoothing is {method.label_smoothing}; it must be from 0 to below 1")
        return method


def _lora(given: dict[str, Any]) -> Lora | None:
    dora = given.get("dora", False)
    if "lora" not in given and not dora:
        for name in ADAPTER_FLAGS:
            if given.get(name):
                raise TrainError(f"--{name.replace('_', '-')} is for adapters; add --lora, or remove it")
        return None
    rank = given.get("lora", RANK)
    lora = Lora(
        rank=rank,
        alpha=given.get("lora_alpha", 2.0 * rank),
        dropout=given.get("lora_dropout", 0.0),
        targets=tuple(given.get("lora_targets", ())),
        dora=dora,
        merge=given.get("merge", False),
    )
    if rank < 1:
        raise TrainError(f"--lora is {rank}; the rank must be at least 1")
    if not lora.alpha > 0:
        raise TrainError(f"--lora-alpha is {lora.alpha}; it must be above 0")
    if not 0 <= lora.dropout < 1:
        raise TrainError(f"--lora-dropout is {lora.dropout}; it must be from 0 to below 1")
    return lora
