"""What is foretold of a run: memory against measured peaks, FLOPs by hand, the choice of settings, and `train plan`."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import TrainError
from train.cli import main
from train.communication import CommunicationClock
from train.config import RunConfig
from train.cost import Work, model_flops, step_seconds
from train.gauges import Gauges
from train.gpus import GIB, Gpu, gpu_of_name, least_of, parse_gpus
from train.launch import Ranks
from train.memory import predicted_memory
from train.method import Lora, Method
from train.model import ModelShape
from train.planner import Forecast, choose


def shape_of(parameters: int, hidden: int, layers: int, heads: int, inner: int) -> ModelShape:
    return ModelShape(
        architecture="Qwen3ForCausalLM",
        num_layers=layers,
        head_dim=128,
        vocab_size=151936,
        num_parameters=parameters,
        num_trained=parameters,
        hidden=hidden,
        intermediate=inner,
        query_width=128 * heads,
        key_width=1024,
        dtype=None,
        norms_queries=True,
    )


SHAPES = {
    "0.6B": shape_of(596_049_920, 1024, 28, 16, 3072),
    "1.7B": shape_of(1_720_574_976, 2048, 28, 16, 6144),
    "4B": shape_of(4_022_468_096, 2560, 36, 32, 9728),
    "8B": shape_of(8_190_735_360, 4096, 36, 32, 12288),
}
LLAMA = shape_of(1_836_681_216, 2048, 24, 16, 5504)
SHAPES["Llama 1.8B"] = replace(LLAMA, architecture="LlamaForCausalLM", key_width=2048, norms_queries=False)
QWEN3_4B = SHAPES["4B"]
WORK = Work(tokens=65536, targets=65536, squares=80_000_000, packs=16, longest_pack=4096, most_targets=4096)


def run_config(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "shards": Path("cache"),
        "model": "m",
        "seq_len": 4096,
        "num_ranks": 1,
        "learning_rate": 1e-3,
        "epochs": 1,
        "steps": None,
        "batch_packs": 16,
        "micro_packs": 1,
        "free": ("micro_packs", "gradient_checkpointing", "zero", "offload_optimizer"),
        "schedule": "constant",
        "warmup_ratio": 0.0,
        "warmup_steps": None,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "precision": "bf16",
        "zero": 1,
        "offload_optimizer": False,
        "checkpointed_layers": 0,
        "eval_every": None,
        "save_every": 0,
        "keep": 2,
        "patience": None,
        "seed": 0,
        "adam_betas": (0.9, 0.95),
        "adam_eps": 1e-8,
    }
    return RunConfig(**(values | changes))  # type: ignore[arg-type]


def gpu_named(name: str) -> Gpu:
    gpu = gpu_of_name(name)
    assert gpu is not None
    return gpu


# GiB on H200s with torch 2.11 and DeepSpeed 0.19.8: packs of 4,096 tokens in a micro-batch, layers computed twice
@pytest.mark.parametrize(
    ("shape", "packs", "again", "ranks", "peak"),
    [
        ("4B", 4, 0, 1, 123.6),
        ("4B", 2, 0, 1, 93.2),
        ("4B", 4, 36, 1, 67.5),
        ("4B", 1, 36, 1, 67.5),
        ("4B", 8, 18, 1, 126.8),
        ("4B", 4, 0, 2, 101.1),
        ("1.7B", 8, 0, 1, 90.4),
        ("1.7B", 2, 12, 1, 37.7),
        ("0.6B", 1, 0, 1, 16.2),
        ("0.6B", 8, 0, 1, 50.3),
        ("0.6B", 4, 28, 1, 12.4),
    ],
)
def test_the_predicted_peak_is_the_measured_one(shape: str, packs: int, again: int, ranks: int, peak: float) -> None:
    config = run_config(micro_packs=packs, checkpointed_layers=again, num_ranks=ranks)
    assert predicted_memory(config, SHAPES[shape], 4096).total / GIB == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize(
    ("shape", "changes", "targets", "peak"),
    [  # measured once they had been foretold, the last two before what they showed was mended
        ("4B", {"micro_packs": 4, "num_ranks": 2, "zero": 3}, 4096, 95.6),
        ("4B", {"micro_packs": 8, "zero": 3, "offload_optimizer": True, "offload_parameters": True}, 4096, 126.2),
        ("4B", {"micro_packs": 1, "checkpointed_layers": 8}, 4096, 74.3),
        ("8B", {"micro_packs": 2, "num_ranks": 2}, 4096, 117.6),
        ("4B", {"micro_packs": 8, "num_ranks": 2, "zero": 3, "checkpointed_layers": 7}, 4096, 134.0),
        ("1.7B", {"micro_packs": 8, "precision": "fp16"}, 2564, 98.5),
        ("Llama 1.8B", {"micro_packs": 7, "batch_packs": 7, "zero": 2}, 4096, 68.4),
    ],
)
def test_the_predicted_peak_holds_for_other_ways(
    shape: str, changes: dict[str, Any], targets: int, peak: float
) -> None:
    predicted = predicted_memory(run_config(**changes), SHAPES[shape], 4096, targets).total
    assert predicted / GIB == pytest.approx(peak, rel=0.05)


def test_speeds_are_foretold_for_short_examples_and_long() -> None:
    """4B on one H200, by the run's own log: examples of 720 tokens on average, and of 31,500."""
    gpu = gpu_named("NVIDIA H200")
    short = Work(tokens=65314, targets=32140, squares=46_100_000, packs=16, longest_pack=4096, most_targets=4096)
    long = Work(tokens=58817, targets=29130, squares=1_730_000_000, packs=2, longest_pack=31690, most_targets=31690)
    for work, measured, changes in (
        (short, 23_100, {"micro_packs": 4}),
        (long, 9_850, {"micro_packs": 1, "batch_packs": 2, "seq_len": 32768, "checkpointed_layers": 14}),
    ):
        seconds = step_seconds(run_config(**changes), QWEN3_4B, gpu, work)
        assert seconds is not None
        assert work.tokens / seconds == pytest.approx(measured, rel=0.03)


def test_of_unlike_gpus_the_least_is_planned_for() -> None:
    large, small = gpu_named("NVIDIA H200"), gpu_named("NVIDIA H100 80GB HBM3")
    fuller = replace(small, memory_bytes=50 * GIB)
    assert least_of([large, small]) == small
    assert least_of([small, replace(large, memory_bytes=50 * GIB)]) == fuller


def test_memory_is_counted_part_by_part() -> None:
    memory = predicted_memory(run_config(micro_packs=4), QWEN3_4B, 4096)
    assert memory.weights == memory.gradients == 8_044_936_192
    assert memory.optimizer == 48_269_617_152
    assert memory.activations == 64_625_836_032  # 109,568 bytes a layer and token, 36 layers, 16,384 tokens
    assert memory.logits == 2 * 4096 * 151936 + 2 * 151936 * 2560
    four = predicted_memory(run_config(micro_packs=2, num_ranks=4, zero=2), QWEN3_4B, 4096)
    assert (four.gradients, four.optimizer) == (8_044_936_192 / 4, 48_269_617_152 / 4)
    assert predicted_memory(run_config(offload_optimizer=True), QWEN3_4B, 4096).optimizer == 0
    only = predicted_memory(run_config(micro_packs=4, num_ranks=4, zero=2), QWEN3_4B, 4096)
    assert only.gradients == 0  # of a step's only micro-batch: at its peak there is none yet


def test_flops_are_six_a_parameter_and_token_and_attention_inside_each_example() -> None:
    assert model_flops(QWEN3_4B, 100, 0) == 6 * 4_022_468_096 * 100
    # 12 x 36 layers x 32 heads x 128 x sum of squares / 2
    assert model_flops(QWEN3_4B, 0, 1000) == 12 * 36 * 4096 * 1000 / 2


def test_mfu_is_the_part_of_all_gpus_named_peak() -> None:
    import torch

    ranks = Ranks(rank=0, local_rank=0, num_ranks=1, device=torch.device("cpu"))
    clock = CommunicationClock(ranks)
    assert clock.take() == 0.0
    gauges = Gauges(shape=QWEN3_4B, gpu=gpu_named("NVIDIA H200"), num_ranks=2, clock=clock)
    # 40,962 tokens/s of 131,000 squares a hundred tokens on two H200s
    assert gauges.mfu(40_962, 0, 1.0) == pytest.approx(40_962 * 6 * 4_022_468_096 / (2 * 989e12))
    assert Gauges.of(QWEN3_4B, ranks).mfu(1, 1, 1.0) is None


def test_the_expected_speed_is_near_the_measured_one() -> None:
    # 32 packs of 4,096 tokens on one H200: 21,752 tokens/s measured
    work = Work(tokens=131_000, targets=131_000, squares=190_000_000, packs=32, longest_pack=4096, most_targets=4096)
    seconds = step_seconds(run_config(micro_packs=4, batch_packs=32), QWEN3_4B, gpu_named("H200"), work)
    assert seconds is not None
    assert 131_000 / seconds == pytest.approx(21_752, rel=0.05)
    unknown = Gpu(name="FAST", memory_bytes=1, peak_flops=None, bytes_per_s=None, link_bytes_per_s=None)
    assert step_seconds(run_config(), QWEN3_4B, unknown, work) is None


def chosen(gpu: str, **changes: object) -> Forecast:
    return choose(run_config(**changes), QWEN3_4B, gpu_named(gpu), WORK)


def test_nothing_is_computed_twice_where_it_fits() -> None:
    config = chosen("H200").config
    assert (config.micro_packs, config.checkpointed_layers, config.zero) == (4, 0, 1)
    six = choose(run_config(batch_packs=6), QWEN3_4B, gpu_named("H200"), replace(WORK, packs=6))
    assert six.config.micro_packs == 3
    short = choose(run_config(), QWEN3_4B, gpu_named("H200"), replace(WORK, packs=3, longest_pack=900))
    assert short.config.micro_packs == 3


def test_some_layers_are_computed_twice_where_not_all_need_to_be() -> None:
    forecast = chosen("H100-80G")
    assert forecast.fits and 0 < forecast.config.checkpointed_layers < 36
    assert not forecast.config.offload_optimizer


def test_the_adapters_of_an_8b_model_fit_one_card_that_the_whole_model_does_not() -> None:
    whole = SHAPES["8B"]
    lora = Lora(rank=16, alpha=32.0, dropout=0.0, targets=(), dora=False, merge=False)
    config, shape = run_config(method=Method(lora=lora)), replace(whole, num_trained=43_646_976)
    for gpu in ("H100-80G", "L40S"):
        forecast = choose(config, shape, gpu_named(gpu), WORK)
        assert forecast.fits and not forecast.config.offload_optimizer
        assert forecast.memory.weights == 2 * (8_190_735_360 + 43_646_976)
        assert (forecast.memory.gradients, forecast.memory.optimizer) == (2 * 43_646_976, 12 * 43_646_976)
        assert choose(run_config(), whole, gpu_named(gpu), WORK).config.offload_optimizer


def test_what_does_not_fit_is_shared_out_then_offloaded() -> None:
    assert chosen("A100-40G", num_ranks=4).config.zero in (1, 2, 3)
    assert chosen("A100-40G").config.offload_optimizer
    assert not chosen("T4").fits
    fixed = chosen("H200", micro_packs=1, checkpointed_layers=36, free=())
    assert (fixed.config.micro_packs, fixed.config.checkpointed_layers) == (1, 36)
    assert chosen("H200", checkpointed_layers=-1, free=()).config.checkpointed_layers == 36


@pytest.mark.parametrize(
    ("text", "count", "peak", "gib"),
    [
        ("4xH100-80G", 4, 989e12, 79.1),
        ("NVIDIA H200", 1, 989e12, 139.8),
        ("8 x A100-40G", 8, 312e12, 39.4),
        ("2xNVIDIA GeForce RTX 4090", 2, 165e12, 23.5),
        ("L4", 1, 121e12, 22.0),
        ("2xFAST-24G", 2, None, 23.28),
    ],
)
def test_gpus_by_name(text: str, count: int, peak: float | None, gib: float) -> None:
    found, gpu = parse_gpus(text)
    assert (found, gpu.peak_flops) == (count, peak)
    assert gpu.memory_bytes / GIB == pytest.approx(gib)


def test_a_gpu_nobody_knows_needs_its_memory() -> None:
    with pytest.raises(TrainError, match="--gpus 4xFAST: not a GPU known here; write 4xH100-80G, or any name with its"):
        parse_gpus("4xFAST")


def test_the_plan_of_a_run_is_printed_without_a_gpu(
    tmp_path: Path, tiny_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model_dir(tmp_path / "base", tiny_tokenizer_dir, tied=True)
    packs = packed(chat_examples(tiny_tokenizer_dir, 30), 256)
    write_shards(tmp_path / "cache", tiny_tokenizer_dir, str(model), packs[:5], packs[5:6], seq_len=256)
    (model / "model.safetensors").unlink()  # its config is enough
    assert main(["plan", "--shards", str(tmp_path / "cache"), "--gpus", "2xH100-80G", "--batch-packs", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "GPUs       2 x H100-80G, 79.1 GiB each" in lines
    assert any(line.startswith("chosen     --zero 1 --micro-packs 2 --gradient-checkpointing 0") for line in lines)
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "peak"):
        assert any(line.startswith(f"  {part} ") for line in lines), part
    assert any(line.startswith("time       about ") for line in lines)
    assert any(line.endswith("<- chosen") for line in lines)
    assert main(["plan", "--shards", str(tmp_path / "cache")]) == 1
    assert "name those of the run, as in --gpus 4xH100-80G" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    """As `train plan … | head -1` does it."""
    base = tiny_model_dir(tmp_path / "base", tiny_tokenizer_dir, tied=True)
    write_shards(tmp_path / "cache", tiny_tokenizer_dir, str(base), packed(chat_examples(tiny_tokenizer_dir, 9), 128))
    flags = ["plan", "--shards", str(tmp_path / "cache"), "--gpus", "H100"]
    command = [sys.executable, "-m", "train.cli", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 141)


def test_the_choice_does_not_change_what_was_fixed() -> None:
    config = run_config(free=("micro_packs",), checkpointed_layers=3)
    assert choose(config, QWEN3_4B, gpu_named("H200"), WORK).config == replace(config, micro_packs=4)
