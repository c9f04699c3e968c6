"""A DeepSpeed config in, findings out, before a GPU starts: what is unknown, without effect, or does not go together.

DeepSpeed ignores unknown keys at the top, so a typo there changes what is trained without a word. DeepSpeed
itself is not imported.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import TrainError
from train.deepspeed_keys import ADAM_KEYS, GONE, KEYS, MOVED, NOT_DONE, WITHOUT_EFFECT


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing to know about a key."""

    key: str
    is_problem: bool  # a run refuses it
    says: str  # why, and what to write

    def line(self) -> str:
        """The finding on one line."""
        return f"{self.key}: {self.says}"


def refuse_problems(path: Path, content: dict[str, Any], num_ranks: int) -> list[Finding]:
    """Raise TrainError for the first problem; gives what else there is to know."""
    found = lint(content, num_ranks)
    problems = [each for each in found if each.is_problem]
    if problems:
        more = f" (and {len(problems) - 1} more: train doctor --deepspeed {path})" if len(problems) > 1 else ""
        raise TrainError(f"{path}: {problems[0].line()}{more}")
    return found


def lint(content: dict[str, Any], num_ranks: int | None = None) -> list[Finding]:
    """All findings about a config, problems first. Without the number of ranks, batch sizes are checked for any."""
    flat = dict(_leaves(content))
    found = [
        *_unknown(content),
        *_listed(content),
        *_stages(flat),
        *_offload(flat),
        *_numbers(flat),
        *_batches(flat, num_ranks),
    ]
    return sorted(found, key=lambda each: not each.is_problem)


def _problem(key: str, says: str) -> Finding:
    return Finding(key=key, is_problem=True, says=says)


def _note(key: str, says: str) -> Finding:
    return Finding(key=key, is_problem=False, says=says)


def _unknown(content: dict[str, Any]) -> Iterator[Finding]:
    tables = KEYS
    if str(_at(content, "optimizer.type")).lower() in ("adam", "adamw"):
        tables = tables | {"optimizer.params": ADAM_KEYS}
    for table, keys in tables.items():
        known = keys.split()
        values = _at(content, table) if table else content
        if values is None or values == "auto":
            continue
        if not isinstance(values, dict):
            yield _problem(table, f"is {values!r}; write an object, as in {{...}}")
            continue
        for key in values:
            name = f"{table}.{key}" if table else key
            if (
                key in known
                or name in MOVED
                or name in GONE
                or name in NOT_DONE
                or key.startswith(("_", "//", "comment"))
            ):
                continue
            near = difflib.get_close_matches(key, known, 1, 0.6)
            if near:
                yield _problem(name, f"DeepSpeed knows no such key; write {near[0]!r}")
            elif table:
                yield _problem(name, "DeepSpeed knows no such key here; remove it")
            else:
                yield _note(name, "DeepSpeed knows no such key, and ignores it")


def _listed(content: dict[str, Any]) -> Iterator[Finding]:
    """What the tables above name, where it is switched on."""
    for key, now in MOVED.items():
        if _at(content, key) not in (None, False, "auto"):
            yield _problem(key, f"has moved; write {now}")
    for key, instead in GONE.items():
        if _at(content, key) is not None:
            yield _problem(key, f"DeepSpeed has it no more; remove it{f': {instead}' if instead else ''}")
    for key, why in NOT_DONE.items():
        if _is_on(_at(content, key)):
            yield _problem(key, f"is not done here: {why}; remove it")
    for key, instead in WITHOUT_EFFECT.items():
        if _is_on(_at(content, key)):
            yield _note(key, f"has no effect here: {instead}")
    if _at(content, "gradient_allreduce_op") == "sum":
        yield _problem("gradient_allreduce_op", 'the loss counts on "mean": with "sum" steps are too large; remove it')
    if _at(content, "managed_gradient_accumulation") is False:
        yield _problem("managed_gradient_accumulation", "the trainer counts on DeepSpeed's accumulation; remove it")
    if _at(content, "optimizer.params.adam_w_mode") is False:
        yield _note("optimizer.params.adam_w_mode", "weight decay is AdamW's here, apart from the gradient")
    if _at(content, "scheduler.params.warmup_type") == "log":
        yield _note("scheduler.params.warmup_type", "the learning rate rises in a straight line here")
    if _at(content, "zero_force_ds_cpu_optimizer") is False and _at(content, "zero_optimization.offload_optimizer"):
        yield _note(
            "zero_force_ds_cpu_optimizer", "DeepSpeed's own AdamW for CPUs is used on GPU machines, as it is fast"
        )


def _stages(flat: dict[str, Any]) -> Iterator[Finding]:
    stage = flat.get("zero_optimization.stage")
    if not isinstance(stage, int) or isinstance(stage, bool):
        return
    if stage < 3:
        for key, value in flat.items():
            short = key.removeprefix("zero_optimization.")
            if short.startswith(("stage3_", "zero_hpz_", "zero_quantized_")) and value not in ("auto", 1, False):
                yield _note(key, f"has no effect at stage {stage}; only stage 3 reads it")
        if flat.get("zero_optimization.offload_param.device") in ("cpu", "nvme"):
            yield _problem(
                "zero_optimization.offload_param",
                f"weights are only cut up at stage 3, this is stage {stage}; write stage 3, or remove it",
            )
    if stage == 0 and flat.get("zero_optimization.offload_optimizer.device") == "cpu":
        yield _problem("zero_optimization.offload_optimizer", "needs ZeRO; write stage 1, 2 or 3, or remove it")


def _offload(flat: dict[str, Any]) -> Iterator[Finding]:
    for part in ("offload_optimizer", "offload_param"):
        table = f"zero_optimization.{part}"
        device = flat.get(f"{table}.device")
        given = [key for key in flat if key.startswith(f"{table}.")]
        if device == "nvme":
            yield _problem(f"{table}.device", 'disks are not used here; write "cpu", or train adapters with --lora')
        elif device not in (None, "cpu", "none", "auto"):
            yield _problem(f"{table}.device", f'is {device!r}; write "cpu" or "none"')
        elif device is None and given:
            yield _note(table, 'without "device" nothing is offloaded; write "device": "cpu"')
    if flat.get("zero_optimization.offload_param.device") == "cpu" and (
        flat.get("zero_optimization.offload_optimizer.device") in (None, "none")
    ):
        yield _note(
            "zero_optimization.offload_param",
            "the optimizer's state takes six times what weights do; offload it first (offload_optimizer)",
        )


def _numbers(flat: dict[str, Any]) -> Iterator[Finding]:
    for key, value in flat.items():
        if key.endswith(".enabled") and isinstance(value, str) and value != "auto":
            yield _problem(key, f"is the text {value!r}; write {value.lower()} without quotes")
        elif isinstance(value, str) and value != "auto" and _is_number(value):
            yield _problem(key, f"is the text {value!r}; write {value} without quotes")
    if flat.get("fp16.enabled") is True and flat.get("fp16.loss_scale", 0) not in (0, "auto"):
        yield _note("fp16.loss_scale", "a fixed scale overflows sooner or later; 0 adapts it")
    if flat.get("fp16.enabled") is True:
        yield _note(
            "fp16.enabled",
            "models kept in bfloat16 (Qwen, Llama 3, Gemma, …) overflow in it; use bf16 on Ampere or later",
        )
    for key, value in flat.items():
        if key.split(".")[0] == "fp16" and key != "fp16.enabled" and flat.get("bf16.enabled") is True:
            yield _note(key, f"has no effect with bf16 ({value})")


def _batches(flat: dict[str, Any], num_ranks: int | None) -> Iterator[Finding]:
    """train_batch_size = micro-batch x accumulation x ranks."""
    whole, micro, steps = (
        flat.get(key) for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    )
    if isinstance(whole, int):
        yield _note("train_batch_size", "counts packs of the shards' sequence length here, not conversations")
    if not (isinstance(whole, int) and isinstance(micro, int) and isinstance(steps, int)) or not micro * steps:
        return
    if whole % (micro * steps):
        says = f'is {whole}, no multiple of micro-batch {micro} x accumulation {steps}; set one of the three to "auto"'
        yield _problem("train_batch_size", says)
    elif num_ranks is not None and whole != micro * steps * num_ranks:
        yield _problem(
            "train_batch_size",
            f"is {whole}, but micro-batch {micro} x accumulation {steps} x {num_ranks} ranks is "
            f'{micro * steps * num_ranks}; set one of the three to "auto"',
        )
    elif num_ranks is None:
        yield _note("train_batch_size", f"fits {whole // (micro * steps)} ranks, and no other number")


def _is_on(value: Any) -> bool:
    """Whether a key asks for something: a table does unless it says otherwise."""
    if isinstance(value, dict):
        switches = [value[key] for key in ("enabled", "autotp_size") if key in value]
        return _is_on(switches[0]) if switches else bool(value)
    return value not in (None, False, 0, 1, "auto") or value is True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _leaves(content: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return None
        content = content[part]
    return content
