"""What a run is told: flags, then the DeepSpeed file, then defaults; settled once into a frozen RunConfig."""

from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.errors import TrainError
from train.method import Method
from train.trackers import tracker_names

DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-5,
    "epochs": 1,
    "batch_tokens": 65536,
    "micro_packs": 1,
    "schedule": "cosine",
    "warmup_ratio": 0.03,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
    "precision": "auto",
    "zero": 1,
    "offload_optimizer": False,
    "offload_parameters": False,
    "gradient_checkpointing": "auto",
    "keep": 2,
    "seed": 0,
    "adam_betas": (0.9, 0.95),
    "adam_eps": 1e-8,
}

ADAPTER_LEARNING_RATE = 1e-4  # adapters want about ten times what whole models do (Schulman et al. 2025)

PLANNED = "micro_packs", "gradient_checkpointing", "zero", "offload_optimizer"
ALTERNATIVES = ("steps", "epochs"), ("batch_packs", "batch_tokens"), ("warmup_steps", "warmup_ratio")
# settings that have no flag, only a key in a DeepSpeed file
FROM_FILE = "num_micro_steps", "adam_betas", "adam_eps", "offload_parameters"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSetting:
    """A setting that the user's DeepSpeed file fixes, and the key that does it."""

    key: str
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepSpeedOptimizer:
    """An optimizer that DeepSpeed makes, as its file names it, with what it sets beside rate and weight decay."""

    kind: str
    params: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.params)
        return f"{self.kind} of DeepSpeed" + (f" ({settings})" if settings else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """A training run, every value settled."""

    shards: Path
    model: str
    seq_len: int
    num_ranks: int
    learning_rate: float
    epochs: int
    steps: int | None  # given: this many, whatever `epochs` says
    batch_packs: int  # of an optimizer step, on all ranks
    micro_packs: int  # of a micro-batch, on one rank
    free: tuple[str, ...]  # settings that the planner chooses, once model and GPU are known
    schedule: str  # cosine | linear | wsd | constant
    warmup_ratio: float
    warmup_steps: int | None
    weight_decay: float
    max_grad_norm: float
    precision: str  # bf16 | fp16 | fp32
    zero: int
    offload_optimizer: bool
    offload_parameters: bool = False  # weights too, at ZeRO-3
    checkpointed_layers: int  # the first so many are computed again in the backward pass; -1: all
    eval_every: int | None  # None: a quarter of the run
    save_every: int | None  # None: each half hour; 0: never
    keep: int
    patience: int | None  # held-out losses without a new best before the run ends
    seed: int
    adam_betas: tuple[float, float]
    adam_eps: float
    method: Method = field(default_factory=Method)
    log_to: tuple[str, ...] = ()  # trackers, beside TensorBoard
    optimizer: DeepSpeedOptimizer | None = None  # None: the trainer's AdamW

    @property
    def num_micro_steps(self) -> int:
        """Micro-batches of a rank in each optimizer step: batch 16, micro 1, 3 ranks -> 6, two of the 18 empty."""
        return -(-self.batch_packs // (self.micro_packs * self.num_ranks))

    def num_steps(self, num_packs: int) -> int:
        """Optimizer steps of the whole run over a split of so many packs; the last of an epoch may be smaller."""
        return self.steps or self.epochs * -(-num_packs // self.batch_packs)


def settle(
    flags: Namespace, file: dict[str, FileSetting], *, model: str, seq_len: int, num_ranks: int, has_bf16_gpu: bool
) -> RunConfig:
    """Settle every value of a run. Raises TrainError for a value out of range or a flag that contradicts the file."""
    given = _given(flags, file)
    method = Method.of(given)
    values = DEFAULTS | ({} if method.lora is None else {"learning_rate": ADAPTER_LEARNING_RATE}) | given
    precision = values["precision"]
    if precision == "auto":
        precision = "bf16" if has_bf16_gpu else "fp32"
    config = RunConfig(
        shards=flags.shards,
        model=model,
        seq_len=seq_len,
        num_ranks=num_ranks,
        learning_rate=values["learning_rate"],
        epochs=values["epochs"],
        steps=values.get("steps"),
        batch_packs=_batch_packs(given, values, seq_len, num_ranks),
        micro_packs=values["micro_packs"],
        free=_free(given) if has_bf16_gpu and precision != "fp32" else (),
        schedule=values["schedule"],
        warmup_ratio=values["warmup_ratio"],
        warmup_steps=values.get("warmup_steps"),
        weight_decay=values["weight_decay"],
        max_grad_norm=values["max_grad_norm"],
        precision=precision,
        zero=values["zero"],
        offload_optimizer=values["offload_optimizer"],
        offload_parameters=values["offload_parameters"],
        checkpointed_layers=_checkpointed_layers(values["gradient_checkpointing"]),
        eval_every=values.get("eval_every"),
        save_every=values.get("save_every"),
        keep=values["keep"],
        patience=values.get("patience"),
        seed=values["seed"],
        adam_betas=tuple(values["adam_betas"]),
        adam_eps=values["adam_eps"],
        method=method,
        log_to=tracker_names(values.get("log_to")),
        optimizer=values.get("optimizer"),
    )
    _check(config)
    return config


def flag_name(name: str) -> str:
    """The flag of a setting: batch_packs -> --batch-packs."""
    return "--" + name.replace("_", "-")


def _given(flags: Namespace, file: dict[str, FileSetting]) -> dict[str, Any]:
    """Settings the user gave, by flag or in the DeepSpeed file. Raises TrainError where the two differ."""
    given = {name: value for name, value in vars(flags).items() if value is not None}
    if given.get("precision") == "auto":
        del given["precision"]
    for name, setting in file.items():
        if name in given and given[name] != setting.value:
            raise TrainError(
                f"{flag_name(name)} {given[name]} contradicts {setting.key} {setting.value} in {flags.deepspeed}; "
                f'remove one of the two, or write "auto" in the file'
            )
        given.setdefault(name, setting.value)
    for one, other in ALTERNATIVES:
        if one in given and other in given:
            raise TrainError(f"{_place(one, file)} and {_place(other, file)} say the same thing twice; give one")
    return given


def _free(given: dict[str, Any]) -> tuple[str, ...]:
    """What the planner may choose: all that the user left open."""
    fixed = set(given)
    if "num_micro_steps" in fixed:
        fixed.add("micro_packs")
    if given.get("gradient_checkpointing") == "auto":
        fixed.remove("gradient_checkpointing")
    return tuple(name for name in PLANNED if name not in fixed)


def _checkpointed_layers(asked: str) -> int:
    """`none` -> 0, `all` -> -1, `12` -> 12; `auto` -> 0 until the planner knows better."""
    known = {"auto": 0, "none": 0, "all": -1}
    if asked in known:
        return known[asked]
    if not asked.isdecimal():
        raise TrainError(f"--gradient-checkpointing is {asked!r}; write auto, none, all, or a number of layers")
    return int(asked)


def _place(name: str, file: dict[str, FileSetting]) -> str:
    return file[name].key if name in file else flag_name(name)


def _batch_packs(given: dict[str, Any], values: dict[str, Any], seq_len: int, num_ranks: int) -> int:
    if "num_micro_steps" in given:
        from_file = given["num_micro_steps"] * values["micro_packs"] * num_ranks
        if "batch_packs" not in given and "batch_tokens" not in given:
            return from_file
        if given.get("batch_packs", given.get("batch_tokens", 0) // seq_len) != from_file:
            raise TrainError(
                f"gradient_accumulation_steps {given['num_micro_steps']} makes {from_file} packs a step on {num_ranks} "
                'ranks, which is not the batch given elsewhere; set it to "auto" in the DeepSpeed file'
            )
    if "batch_packs" in given:
        packs = given["batch_packs"]
        if packs < num_ranks:
            raise TrainError(
                f"--batch-packs {packs} leaves some of the {num_ranks} ranks idle; give at least {num_ranks}"
            )
        return packs
    return max(num_ranks, values["batch_tokens"] // seq_len)


def _check(config: RunConfig) -> None:
    for name in ("epochs", "steps", "micro_packs", "batch_packs", "eval_every", "keep", "patience"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise TrainError(f"{flag_name(name)} is {value}; it must be at least 1")
    for name in ("learning_rate", "max_grad_norm"):
        if not getattr(config, name) > 0:
            raise TrainError(f"{flag_name(name)} is {getattr(config, name)}; it must be above 0")
    for name in ("weight_decay", "save_every", "warmup_ratio", "warmup_steps"):
        value = getattr(config, name)
        if value is not None and value < 0:
            raise TrainError(f"{flag_name(name)} is {value}; it must not be below 0")
    if config.zero not in (0, 1, 2, 3):
        raise TrainError(f"ZeRO stage {config.zero} does not exist; it is 0, 1, 2 or 3")
    if config.warmup_ratio > 1:
        raise TrainError(f"--warmup-ratio is {config.warmup_ratio}; it is a part of the run, at most 1")
    if config.precision != "fp32" and config.zero == 0:
        raise TrainError(f"--zero 0 with {config.precision} trains badly in DeepSpeed; use --zero 1")
    if config.offload_optimizer and config.zero == 0:
        raise TrainError("--offload-optimizer needs ZeRO; add --zero 1, 2 or 3")
