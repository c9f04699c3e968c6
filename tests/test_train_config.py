"""Flags, the user's DeepSpeed file and defaults become one frozen config."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from schemas.errors import TrainError
from train.cli import _parser
from train.config import DeepSpeedOptimizer, RunConfig, settle
from train.deepspeed_config import deepspeed_config, file_settings, read_deepspeed_file
from train.method import Lora, Method
from train.optimizer import hold_moments, keep_rates_apart, learning_rate, set_rate

HUGGING_FACE_STYLE = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": 0.05, "betas": [0.9, 0.999]}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 7, "warmup_max_lr": "auto"}},
    "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "overlap_comm": True},
}


def settled(*flags: str, content: dict[str, Any] | None = None, seq_len: int = 4096, num_ranks: int = 1) -> RunConfig:
    options = _parser().parse_args(["run", "--shards", "cache", *flags])
    file = file_settings(content or {})
    return settle(options, file, model="m", seq_len=seq_len, num_ranks=num_ranks, has_bf16_gpu=False)


def test_defaults_make_a_batch_of_65536_tokens() -> None:
    config = settled()
    assert (config.batch_packs, config.micro_packs, config.num_micro_steps) == (16, 1, 16)
    assert (config.learning_rate, config.schedule, config.precision, config.zero) == (1e-5, "cosine", "fp32", 1)
    assert settled(seq_len=65536 * 2, num_ranks=3).batch_packs == 3


def test_ranks_and_micro_packs_share_the_batch() -> None:
    assert settled("--batch-packs", "16", "--micro-packs", "2", num_ranks=4).num_micro_steps == 2
    assert settled("--batch-packs", "17", "--micro-packs", "2", num_ranks=4).num_micro_steps == 3


def test_the_planner_chooses_only_what_nobody_else_did() -> None:
    def free(*flags: str, content: dict[str, Any] | None = None) -> tuple[str, ...]:
        options = _parser().parse_args(["run", "--shards", "cache", *flags])
        file = file_settings(content or {})
        return settle(options, file, model="m", seq_len=4096, num_ranks=1, has_bf16_gpu=True).free

    assert free() == ("micro_packs", "gradient_checkpointing", "zero", "offload_optimizer")
    assert free("--zero", "2", "--batch-packs", "6") == ("micro_packs", "gradient_checkpointing", "offload_optimizer")
    assert free("--micro-packs", "2", "--no-offload-optimizer") == ("gradient_checkpointing", "zero")
    assert "gradient_checkpointing" in free("--gradient-checkpointing", "auto")
    assert "gradient_checkpointing" not in free("--gradient-checkpointing")
    assert "micro_packs" not in free(content={"gradient_accumulation_steps": 4})
    assert "micro_packs" not in free(content={"train_micro_batch_size_per_gpu": 1})
    assert free("--precision", "fp32") == ()
    assert settled().free == ()  # no GPU


def test_layers_to_compute_twice_are_none_all_or_a_number() -> None:
    asked = {"auto": 0, "none": 0, "all": -1, "12": 12}
    for word, layers in asked.items():
        assert settled("--gradient-checkpointing", word).checkpointed_layers == layers
    assert settled("--gradient-checkpointing").checkpointed_layers == -1
    with pytest.raises(TrainError, match="--gradient-checkpointing is 'some'; write auto, none, all, or a number"):
        settled("--gradient-checkpointing", "some")


def test_auto_in_the_deepspeed_file_is_filled_and_what_is_left_of_it_dropped() -> None:
    config = settled("--batch-packs", "8", "--learning-rate", "2e-5", content=HUGGING_FACE_STYLE, num_ranks=2)
    assert (config.zero, config.weight_decay, config.adam_betas) == (3, 0.05, (0.9, 0.999))
    assert (config.schedule, config.warmup_steps, config.learning_rate) == ("linear", 7, 2e-5)
    assert deepspeed_config(config, HUGGING_FACE_STYLE, on_gpu=False) == {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "zero_optimization": {"stage": 3, "overlap_comm": True, "stage3_prefetch_bucket_size": 500_000_000},
        "zero_allow_untested_optimizer": True,
    }


def test_the_deepspeed_files_batch_is_taken() -> None:
    content = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 3}
    config = settled(content=content, num_ranks=4)
    assert (config.batch_packs, config.micro_packs, config.num_micro_steps) == (24, 2, 3)


@pytest.mark.parametrize(
    ("flags", "content", "message"),
    [
        (["--zero", "2"], {"zero_optimization": {"stage": 3}}, "--zero 2 contradicts zero_optimization.stage 3 in"),
        (["--learning-rate", "1e-4"], {"optimizer": {"params": {"lr": 1e-5}}}, "--learning-rate 0.0001 contradicts"),
        (["--precision", "fp32"], {"bf16": {"enabled": True}}, "--precision fp32 contradicts bf16.enabled bf16"),
        (["--batch-packs", "8"], {"gradient_accumulation_steps": 3}, "gradient_accumulation_steps 3 makes 3 packs a"),
        (["--warmup-ratio", "0.1"], {"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 5}}}, "twice"),
        ([], {"train_batch_size": "16"}, "train_batch_size is '16' in the DeepSpeed file; write a number"),
        ([], {"zero_optimization": {"stage": 4}}, "ZeRO stage 4 does not exist"),
        (["--steps", "3", "--epochs", "2"], {}, "--steps and --epochs say the same thing twice"),
        (["--batch-packs", "1"], {}, "--batch-packs 1 leaves some of the 2 ranks idle; give at least 2"),
        (["--steps", "0"], {}, "--steps is 0; it must be at least 1"),
        (["--learning-rate", "-1"], {}, "--learning-rate is -1.0; it must be above 0"),
        (["--warmup-ratio", "3"], {}, "--warmup-ratio is 3.0; it is a part of the run"),
        (["--zero", "0", "--offload-optimizer"], {}, "--offload-optimizer needs ZeRO"),
        (["--zero", "0", "--precision", "bf16"], {}, "--zero 0 with bf16 trains badly in DeepSpeed; use --zero 1"),
    ],
)
def test_what_clashes_or_is_out_of_range_is_named(flags: list[str], content: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError) as caught:
        settled(*flags, content=content, num_ranks=1 if "gradient_accumulation_steps" in content else 2)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "holds no JSON object"),
        ('{"optimizer": {"type": "SGD"}}', "optimizer.type is 'SGD'; it is AdamW or Muon here"),
        ('{"optimizer": {"type": "OneBitAdam"}}', "optimizer.type is 'OneBitAdam'; DeepSpeed 0.19 has none"),
        ('{"scheduler": {"type": "OneCycle"}}', "scheduler.type is 'OneCycle'; one of WarmupLR"),
        ('{"bf16": {"enabled": true}, "fp16": {"enabled": true}}', "bf16.enabled and fp16.enabled are both true"),
    ],
)
def test_a_deepspeed_file_that_cannot_be_honoured_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainError, match=r"ds\.json") as caught:
        read_deepspeed_file(path)
    assert message in str(caught.value)


def test_muon_is_made_by_deepspeed_with_what_its_file_says() -> None:
    content = {"optimizer": {"type": "Muon", "params": {"lr": "auto", "weight_decay": 0.2, "momentum": 0.9}}}
    config = settled("--learning-rate", "0.01", "--zero", "3", content=content)
    assert (config.optimizer, config.weight_decay) == (
        DeepSpeedOptimizer(kind="Muon", params=(("momentum", 0.9),)),
        0.2,
    )
    made = deepspeed_config(config, content, on_gpu=True)
    assert made["optimizer"] == {"type": "Muon", "params": {"momentum": 0.9, "lr": 0.01}}
    assert made["zero_optimization"]["reduce_scatter"] is False
    made = deepspeed_config(config, content, on_gpu=False)
    assert made["optimizer"]["params"] == {"torch_adam": True, "momentum": 0.9, "lr": 0.01}
    assert settled(content={"optimizer": {"type": "AdamW"}}).optimizer is None


def test_groups_with_rates_of_their_own_keep_their_share() -> None:
    groups: list[dict[str, Any]] = [{"lr": 0.02}, {"lr": 0.001}]
    keep_rates_apart(groups, 0.02)
    set_rate(groups, 0.01)
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.0005])


def test_memory_for_the_moments_is_held_until_the_first_step() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    held = hold_moments(SimpleNamespace(optimizer=optimizer), 24, torch.device("cpu"))
    assert [each.nbytes for each in held] == [24]
    weight.sum().backward()
    optimizer.step()
    assert held == []
    assert sum(each.nbytes for name, each in optimizer.state[weight].items() if name != "step") == 24


def test_a_deepspeed_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(HUGGING_FACE_STYLE), encoding="utf-8")
    assert read_deepspeed_file(path) == HUGGING_FACE_STYLE
    with pytest.raises(TrainError, match="cannot be read: No such file"):
        read_deepspeed_file(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
        ("wsd", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_rises_then_follows_its_schedule(schedule: str, expected: list[float]) -> None:
    config = settled("--learning-rate", "1", "--schedule", schedule, "--warmup-steps", "2")
    assert [learning_rate(config, step, 6) for step in range(6)] == pytest.approx(expected, rel=1e-5)


def test_a_wsd_schedule_stays_then_falls_in_its_last_fifth() -> None:
    config = settled("--learning-rate", "1", "--schedule", "wsd", "--warmup-steps", "2")
    expected = [0.5, 1.0, *[1.0] * 16, 1.0, 0.5, 0.292893, 0.133975]
    assert [learning_rate(config, step, 22) for step in range(22)] == pytest.approx(expected, rel=1e-5)


def test_adapters_have_a_higher_learning_rate_and_twice_their_rank_as_alpha() -> None:
    config = settled("--lora")
    assert (config.learning_rate, settled("--lora", "--learning-rate", "3e-5").learning_rate) == (1e-4, 3e-5)
    expected = Lora(rank=16, alpha=32.0, dropout=0.0, targets=(), dora=False, merge=False)
    assert config.method == Method(lora=expected)
    expected = Lora(rank=8, alpha=4.0, dropout=0.1, targets=("q_proj", "v_proj"), dora=True, merge=True)
    flags = ["--dora", "--lora", "8", "--lora-alpha", "4", "--lora-dropout", "0.1", "--merge"]
    assert settled(*flags, "--lora-targets", "q_proj", "v_proj").method == Method(lora=expected)
    assert settled("--dora").method.lora is not None
    assert settled().method == Method()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--merge"], "--merge is for adapters; add --lora, or remove it"),
        (["--lora-alpha", "3"], "--lora-alpha is for adapters; add --lora"),
        (["--lora", "0"], "--lora is 0; the rank must be at least 1"),
        (["--lora", "--lora-alpha", "0"], "--lora-alpha is 0.0; it must be above 0"),
        (["--lora", "--lora-dropout", "1"], "--lora-dropout is 1.0; it must be from 0 to below 1"),
        (["--lora", "--freeze", "*"], "--freeze with --lora: all but the adapters is frozen already"),
        (["--neftune", "-1"], "--neftune is -1.0; it must not be below 0"),
        (["--label-smoothing", "1"], "--label-smoothing is 1.0; it must be from 0 to below 1"),
    ],
)
def test_methods_that_clash_or_are_out_of_range_are_named(flags: list[str], message: str) -> None:
    with pytest.raises(TrainError, match=re.escape(message)):
        settled(*flags)
