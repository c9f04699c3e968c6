"""Tokens a second, MFU and memory of the trainer's step on one GPU, variant by variant, at the shapes of Qwen3.

Weights are random and made on the device; packs have chat-like lengths (log-normal, mean about 640). Checks come first:
the fast path's losses and gradient norms beside float32 eager attention on separate examples, and the same run twice.
"""

import argparse
import copy
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed
import torch.nn.functional as F
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from schemas.shard import SHARD
from train.attention import NAME, register_packed_attention, torch_kernel
from train.batch import Plan
from train.config import DEFAULTS, RunConfig
from train.cost import pack_cost
from train.deepspeed_config import deepspeed_config
from train.engine import wrap_model
from train.gauges import Gauges
from train.gpus import GIB, visible_gpu
from train.kernels import APART, AS_THEY_ARE, Kernels, choose_attention
from train.launch import Ranks, import_deepspeed, join_ranks, quiet_libraries, settle_allocators
from train.load import Packs
from train.log import StepRecord
from train.loop import train_steps
from train.model import DTYPES, ModelShape, checkpoint_layers
from train.optimizer import adamw, build_optimizer, learning_rate, parameter_groups
from train.planner import choose, step_work

# hidden, layers, heads, key heads, intermediate
SHAPES = {
    "tiny": (64, 2, 4, 2, 128),
    "check": (1024, 6, 16, 8, 3072),
    "0.6B": (1024, 28, 16, 8, 3072),
    "1.7B": (2048, 28, 16, 8, 6144),
    "4B": (2560, 36, 32, 8, 9728),
    "8B": (4096, 36, 32, 8, 12288),
}
UNTIED = {"8B"}
keep_alive: list[object] = []  # transformers holds ZeRO-3's settings by a weak reference only


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to take a step."""

    name: str
    micro_packs: int = 4
    micro_steps: int = 8
    flash4: bool = True
    chosen: bool = True  # layers compiled and head in the loss, where they can be
    targets: float = 1.0  # share of tokens that are targets
    again: int = 0  # layers computed twice; -1: all
    zero: int = 1
    offload: bool = False
    precision: str = "bf16"


VARIANTS = {
    "before": Variant(name="4k, nothing chosen", micro_packs=1, micro_steps=16, flash4=False, chosen=False),
    "4k": Variant(name="4k", micro_packs=1, micro_steps=16),
    "8k": Variant(name="8k", micro_packs=2),
    "16k": Variant(name="16k"),
    "16k-varlen": Variant(name="16k, PyTorch's varlen", flash4=False),
    "16k-half": Variant(name="16k, half the tokens targets", targets=0.5),
    "32k": Variant(name="32k", micro_packs=8, micro_steps=4),
    "4k-all": Variant(name="4k, all layers twice", micro_packs=1, micro_steps=16, again=-1),
    "8k-12": Variant(name="8k, 12 layers twice", micro_packs=2, again=12),
    "16k-all": Variant(name="16k, all layers twice", again=-1),
    "32k-18": Variant(name="32k, 18 layers twice", micro_packs=8, micro_steps=4, again=18),
    "32k-all": Variant(name="32k, all layers twice", micro_packs=8, micro_steps=4, again=-1),
    "zero-2": Variant(name="ZeRO-2, 16k", zero=2),
    "zero-2-offload": Variant(name="ZeRO-2, optimizer in CPU memory, 16k", zero=2, offload=True),
    "zero-3": Variant(name="ZeRO-3, 8k", zero=3, micro_packs=2),
    "fp16": Variant(name="fp16, 8k", precision="fp16", micro_packs=2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["4B"], choices=SHAPES)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not")
    parser.add_argument("--micro-steps", type=int, help="micro-batches a step, instead of the variant's")
    parser.add_argument("--trl", nargs="*", default=[], choices=["varlen", "flash4"], help="TRL beside, with attention")
    parser.add_argument("--gpus", type=int, default=1, help="processes, one a GPU")
    parser.add_argument("--seq-len", type=int, default=4096)
    parser.add_argument("--check", type=int, metavar="STEPS", help="compare losses over so many steps instead")
    parser.add_argument("--profile", nargs="*", default=[], choices=VARIANTS, help="list these variants' kernels")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # the process of one variant
    options = parser.parse_args()
    if options.check or options.inside:
        settle_allocators()
        ranks = join_ranks()
        quiet_libraries()
        if options.check:
            check(options.check, min(options.seq_len, 2048), ranks)
        else:
            row = json.dumps(measure(options.shapes[0], options.variants[0], options, ranks))
            if ranks.is_first:
                print(row, flush=True)
        torch.distributed.destroy_process_group()
        return
    columns = ["shape", "variant", "tokens/s", "MFU", "peak GiB", "predicted", "tokens/s expected"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for shape in options.shapes:
        for name in options.variants:
            print(f"| {shape} | {VARIANTS[name].name} | {in_own_process(shape, name, options)} |", flush=True)
        for attention in options.trl:
            command = [sys.executable, str(Path(__file__).with_name("gpu_trl.py")), shape, attention]
            print(f"| {shape} | TRL, {attention} | {cells([*command, str(options.steps)])} |", flush=True)


def in_own_process(shape: str, name: str, options: argparse.Namespace) -> str:
    """A variant's cells of the table; each variant finds the GPU empty."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.gpus)]
    command = [sys.executable, *(launcher if options.gpus > 1 else []), __file__, "--inside", "--shapes", shape]
    command += ["--variants", name, "--steps", str(options.steps), "--seq-len", str(options.seq_len)]
    if options.micro_steps:
        command += ["--micro-steps", str(options.micro_steps)]
    if name in options.profile:
        command += ["--profile", name]
    return cells(command)


def cells(command: list[str]) -> str:
    """Run what prints a row as JSON on its last line."""
    done = subprocess.run(command, capture_output=True, text=True)
    *before, last = [line for line in done.stdout.splitlines() if line.strip()] or [""]
    if done.returncode:
        return "failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
    print(*before, last, sep="\n", file=sys.stderr, flush=True)
    row = json.loads(last)
    speed = f"{row['tokens_per_s']:,.0f} | {row['mfu'] or 0:.1%} | {row['peak']:.1f}"
    return f"{speed} | {row.get('predicted', 0):.1f} | {row.get('expected', 0):,.0f}"


def measure(shape: str, name: str, options: argparse.Namespace, ranks: Ranks) -> dict[str, Any]:
    """Take steps with the trainer's own loop, the first untimed."""
    started, variant = time.perf_counter(), VARIANTS[name]
    micro_steps = options.micro_steps or variant.micro_steps
    packs = make_packs(ranks.num_ranks * variant.micro_packs * micro_steps, options.seq_len, variant.targets, seed=3)
    settled = run_config(options.seq_len, variant, micro_steps, options.steps + 1, ranks.num_ranks)
    forecast = choose(settled, model_shape(shape), visible_gpu(ranks.local_rank), step_work(settled, packs))
    config = forecast.config
    gauges = Gauges.of(model_shape(shape), ranks)
    engine, kernels = build(shape, config, ranks, variant)
    plan = Plan(
        num_packs=len(packs),
        batch_packs=len(packs),
        micro_packs=variant.micro_packs,
        num_ranks=ranks.num_ranks,
        cost=pack_cost(model_shape(shape)),
    )
    records: list[StepRecord] = []
    torch.cuda.reset_peak_memory_stats()
    train_steps(engine, packs, plan, config, ranks, options.steps + 1, gauges, records.extend, lambda done: None)
    seconds = sum(record.tokens / record.tokens_per_s for record in records[1:])
    tokens = sum(record.tokens for record in records[1:])
    peak = torch.cuda.max_memory_allocated() / GIB
    if name in options.profile:
        profile(engine, packs, plan, config, ranks, gauges)
    return {
        "shape": shape,
        "variant": name,
        "tokens_per_s": tokens / seconds,
        "mfu": gauges.mfu(tokens, options.steps * int(packs.squares.sum()), seconds),
        "peak": peak,
        "reserved": torch.cuda.max_memory_reserved() / GIB,
        "predicted": forecast.memory.total / GIB,
        "expected": forecast.tokens_per_s,
        "step_seconds": [round(record.tokens / record.tokens_per_s, 3) for record in records],
        "losses": [round(record.loss, 4) for record in records],
        "norms": [round(record.grad_norm or 0, 3) for record in records],
        "waiting": [round(record.waiting, 4) for record in records],
        "communication": [round(record.communication, 4) for record in records],
        "kernels": str(kernels),
        "whole": round(time.perf_counter() - started, 1),
    }


def build(
    shape: str, config: RunConfig, ranks: Ranks, variant: Variant, start: dict[str, torch.Tensor] | None = None
) -> tuple[Any, Kernels]:
    """A random model in the trainer's engine, with the variant's attention and kernels; `start` are its weights."""
    settings = deepspeed_config(config, {}, on_gpu=ranks.device.type == "cuda")
    keep_alive.append(HfDeepSpeedConfig(settings) if config.zero == 3 else None)
    model = make_model(shape, DTYPES[config.precision], ranks.device)  # and PyTorch's kernel with it
    attention = "PyTorch's varlen"
    if variant.flash4:
        attention = choose_attention(ranks.device, DTYPES[config.precision], model_shape(shape))
    if start is not None:
        model.load_state_dict(start)
    checkpoint_layers(model, config.checkpointed_layers)
    if variant.chosen:
        return wrap_model(model, model_shape(shape), config, settings, ranks, attention)
    engine, *_ = import_deepspeed(on_gpu=True).initialize(
        model=model, optimizer=build_optimizer(model, config, on_gpu=True), config=settings, dist_init_required=False
    )
    return engine, Kernels(attention=attention, layers=AS_THEY_ARE, head=APART)


def check(num_steps: int, seq_len: int, ranks: Ranks) -> None:
    """Losses and gradient norms of the fast path, twice, beside float32 eager attention on separate examples."""
    shape = "check" if ranks.device.type == "cuda" else "tiny"
    packs = make_packs(2, seq_len, 0.5, seed=4)
    config = run_config(seq_len, Variant(name="", micro_packs=1), 2, num_steps, 1)
    first = make_model(shape, torch.bfloat16, ranks.device)
    start = copy.deepcopy(first.state_dict())
    runs = {}
    ways = {
        "nothing chosen": Variant(name="", micro_packs=1, chosen=False, flash4=False),
        "torch varlen": Variant(name="", micro_packs=1, flash4=False),
        "FA4": Variant(name="", micro_packs=1),
        "FA4 again": Variant(name="", micro_packs=1),
    }
    for name, variant in ways.items():
        engine, kernels = build(shape, config, ranks, variant, start)
        print(name, kernels, flush=True)
        records: list[StepRecord] = []
        plan = Plan(num_packs=2, batch_packs=2, micro_packs=1, num_ranks=1, cost=pack_cost(model_shape(shape)))
        gauges = Gauges.of(model_shape(shape), ranks)
        train_steps(engine, packs, plan, config, ranks, num_steps, gauges, records.extend, lambda done: None)
        runs[name] = [(record.loss, record.grad_norm or 0.0) for record in records]
    model = make_model(shape, torch.float32, ranks.device, attention="eager")
    model.load_state_dict(start)
    reference = runs["float32"] = separate(model, packs, config, num_steps)
    for name, run in runs.items():
        print(f"{name}: loss {run[0][0]:.5f} -> {run[-1][0]:.5f}; off in loss, norm by", end=" ")
        for last in sorted({min(10, num_steps), min(30, num_steps), num_steps}):
            pairs = list(zip(run[:last], reference[:last], strict=True))
            far = [max(abs(a[i] - b[i]) / b[i] for a, b in pairs) for i in (0, 1)]
            print(f"{far[0]:.2%}, {far[1]:.2%} over {last} steps", end="; ", flush=True)
        print(f"norms {reference[0][1]:.2f} -> {reference[-1][1]:.2f}", flush=True)
    print("same losses twice:", runs["FA4"] == runs["FA4 again"], flush=True)


def separate(model: Any, packs: Packs, config: RunConfig, num_steps: int) -> list[tuple[float, float]]:
    """Plain PyTorch in float32: each example alone, one AdamW.

    It computes with weights rounded to bfloat16, as bf16 training does: weights that start on bfloat16's grid don't
    leave it for the first few steps, which would weigh more than all arithmetic.
    """
    exact = {parameter: parameter.detach().clone() for parameter in model.parameters()}
    groups = parameter_groups(model, config.weight_decay)
    for group in groups:
        group["params"] = [exact[parameter] for parameter in group["params"]]
    optimizer = adamw(groups, config, on_gpu=model.device.type == "cuda")
    model.train()
    result = []
    for step in range(num_steps):
        total = 0.0
        for index in range(len(packs)):
            pack, start = packs[index], 0
            for length in pack.seq_lengths.tolist():
                part = slice(start, start + length)
                start += length
                ids = torch.from_numpy(pack.input_ids[part].astype(np.int64)).to(model.device)
                labels = ids.where(torch.from_numpy(pack.is_target[part]).to(model.device), -100)[1:]
                logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
                loss = F.cross_entropy(logits, labels, reduction="sum") / int(packs.num_targets.sum())
                loss.backward()
                total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, num_steps)
        for parameter, weight in exact.items():
            weight.grad, parameter.grad = parameter.grad, None
        optimizer.step()
        with torch.no_grad():
            for parameter, weight in exact.items():
                parameter.copy_(weight.bfloat16())
        result.append((total, norm.item()))
    return result


def profile(engine: Any, packs: Packs, plan: Plan, config: RunConfig, ranks: Ranks, gauges: Gauges) -> None:
    """List where the device's time goes in one optimizer step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CUDA]) as watched:
        train_steps(engine, packs, plan, config, ranks, 1, gauges, lambda records: None, lambda done: None)
    events = sorted(watched.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events)
    print(f"device busy {total / 1e6:.3f} s")
    for event in events[:40]:
        spent = event.self_device_time_total
        print(f"{spent / total:6.1%} {spent / 1e3:9.1f} ms {event.count:6d}x {event.key[:110]}")


def make_model(shape: str, dtype: torch.dtype, device: torch.device, attention: str = NAME) -> Any:
    from transformers import AutoModelForCausalLM, Qwen3Config

    hidden, layers, heads, key_heads, intermediate = SHAPES[shape]
    config = Qwen3Config(
        vocab_size=151936 if shape != "tiny" else 512,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=intermediate,
        head_dim=128,
        tie_word_embeddings=shape not in UNTIED,
        max_position_embeddings=40960,
        rope_theta=1_000_000.0,
    )
    register_packed_attention(torch_kernel())
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    return model


def make_packs(count: int, seq_len: int, targets: float, seed: int) -> Packs:
    """`count` packs of examples with log-normal lengths, longest first, each into the fullest pack with room."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(6.0, 0.95, size=20 * count * seq_len // 4096 + 20), 16, seq_len).astype(int)
    lengths = sorted(lengths[: int(np.searchsorted(np.cumsum(lengths), count * seq_len)) + 1].tolist(), reverse=True)
    packs: list[list[int]] = [[] for _ in range(count)]
    for length in lengths:
        room = [(seq_len - sum(pack), index) for index, pack in enumerate(packs) if seq_len - sum(pack) >= length]
        if room:
            packs[min(room)[1]].append(length)
    for pack in packs:  # what packing by windows of thousands of examples fills with shorter ones
        if seq_len - sum(pack) >= 16:
            pack.append(seq_len - sum(pack))
    rows = []
    for pack in packs:
        masks = [bool(place) and place >= (1 - targets) * length for length in pack for place in range(length)]
        rows.append(
            {
                "input_ids": rng.integers(0, 512, sum(pack)).tolist(),
                "assistant_masks": masks,
                "seq_lengths": pack,
                "num_targets": sum(masks),
                "source_ids": [0] * len(pack),
                "conversation_rows": [0] * len(pack),
                "conversation_starts": [0] * len(pack),
            }
        )
    return Packs([pa.RecordBatch.from_pylist(rows, schema=SHARD)])


def model_shape(shape: str) -> ModelShape:
    """As the trainer reads it of a model's config."""
    hidden, layers, heads, key_heads, intermediate = SHAPES[shape]
    vocab_size = 151936 if shape != "tiny" else 512
    layer = hidden * 128 * (2 * heads + 2 * key_heads) + 3 * hidden * intermediate + 2 * hidden + 2 * 128
    tied = shape not in UNTIED
    num_parameters = layers * layer + hidden + vocab_size * hidden * (1 if tied else 2)
    return ModelShape(
        architecture="Qwen3ForCausalLM",
        num_layers=layers,
        head_dim=128,
        vocab_size=vocab_size,
        num_parameters=num_parameters,
        num_trained=num_parameters,
        hidden=hidden,
        intermediate=intermediate,
        query_width=128 * heads,
        key_width=128 * key_heads,
        dtype=torch.bfloat16,
        norms_queries=True,
    )


def run_config(seq_len: int, variant: Variant, micro_steps: int, steps: int, num_ranks: int) -> RunConfig:
    changed = {"batch_tokens", "gradient_checkpointing", "zero", "offload_optimizer", "precision", "micro_packs"}
    settings = {name: value for name, value in DEFAULTS.items() if name not in changed}
    return RunConfig(
        shards=Path(),
        model="random",
        seq_len=seq_len,
        num_ranks=num_ranks,
        steps=steps,
        batch_packs=num_ranks * variant.micro_packs * micro_steps,
        micro_packs=variant.micro_packs,
        warmup_steps=0,
        free=(),
        eval_every=None,
        save_every=0,
        patience=None,
        checkpointed_layers=variant.again,
        zero=variant.zero,
        offload_optimizer=variant.offload,
        precision=variant.precision,
        **settings | {"epochs": 1, "schedule": "constant"},
    )


if __name__ == "__main__":
    main()
