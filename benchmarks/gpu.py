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

from schemas.shard import SHARD
from train.attention import NAME, register_packed_attention, torch_kernel
from train.batch import Plan
from train.config import DEFAULTS, RunConfig
from train.deepspeed_config import deepspeed_config
from train.kernels import APART, AS_THEY_ARE, Kernels, check_isolation, choose_attention, choose_kernels, probe_tokens
from train.launch import Ranks, import_deepspeed, join_ranks, quiet_libraries
from train.load import Packs
from train.log import StepRecord
from train.loop import train_steps
from train.optimizer import adamw, build_optimizer, learning_rate, parameter_groups
from train.plain import PlainEngine

PEAK_FLOPS = 989e12  # of an H100 or H200 in dense bf16, NVIDIA's data sheet

# hidden, layers, heads, key heads, intermediate
SHAPES = {
    "tiny": (64, 2, 4, 2, 128),
    "check": (1024, 6, 16, 8, 3072),
    "0.6B": (1024, 28, 16, 8, 3072),
    "1.7B": (2048, 28, 16, 8, 6144),
    "4B": (2560, 36, 32, 8, 9728),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to take a step."""

    name: str
    micro_packs: int
    micro_steps: int = 8
    flash4: bool = False
    chosen: bool = True  # layers compiled and head in the loss, where they can be
    plain: bool = True  # else DeepSpeed ZeRO-1
    targets: float = 1.0  # share of tokens that are targets


VARIANTS = {
    "before": Variant(name="ZeRO-1, 4k, nothing chosen", micro_packs=1, micro_steps=16, chosen=False, plain=False),
    "zero-8k": Variant(name="ZeRO-1, 8k, torch varlen", micro_packs=2, plain=False),
    "8k": Variant(name="plain, 8k, torch varlen", micro_packs=2),
    "12k": Variant(name="plain, 12k, torch varlen", micro_packs=3),
    "16k": Variant(name="plain, 16k, torch varlen", micro_packs=4),
    "32k": Variant(name="plain, 32k, torch varlen", micro_packs=8, micro_steps=4),
    "8k-fa4": Variant(name="plain, 8k, FA4", micro_packs=2, flash4=True),
    "16k-fa4": Variant(name="plain, 16k, FA4", micro_packs=4, flash4=True),
    "16k-fa4-half": Variant(name="plain, 16k, FA4, half the tokens targets", micro_packs=4, flash4=True, targets=0.5),
    "zero-16k-fa4": Variant(name="ZeRO-1, 16k, FA4", micro_packs=4, flash4=True, plain=False),
    "32k-fa4": Variant(name="plain, 32k, FA4", micro_packs=8, micro_steps=4, flash4=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["4B"], choices=SHAPES)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not")
    parser.add_argument("--seq-len", type=int, default=4096)
    parser.add_argument("--check", type=int, metavar="STEPS", help="compare losses over so many steps instead")
    parser.add_argument("--profile", nargs="*", default=[], choices=VARIANTS, help="list these variants' kernels")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # the process of one variant
    options = parser.parse_args()
    if options.check or options.inside:
        ranks = join_ranks()
        quiet_libraries()
        if options.check:
            check(options.check, min(options.seq_len, 2048), ranks)
        else:
            print(json.dumps(measure(options.shapes[0], options.variants[0], options, ranks)))
        torch.distributed.destroy_process_group()
        return
    print("| shape | variant | tokens/s | MFU | peak GiB | reserved GiB |\n|---|---|---|---|---|---|", flush=True)
    for shape in options.shapes:
        for name in options.variants:
            print(f"| {shape} | {VARIANTS[name].name} | {in_own_process(shape, name, options)} |", flush=True)


def in_own_process(shape: str, name: str, options: argparse.Namespace) -> str:
    """A variant's cells of the table; each variant finds the GPU empty."""
    command = [sys.executable, __file__, "--inside", "--shapes", shape, "--variants", name]
    command += ["--steps", str(options.steps), "--seq-len", str(options.seq_len)]
    if name in options.profile:
        command += ["--profile", name]
    done = subprocess.run(command, capture_output=True, text=True)
    *before, last = done.stdout.splitlines() or [""]
    if done.returncode:
        return "failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    print(*before, last, sep="\n", file=sys.stderr, flush=True)
    row = json.loads(last)
    return f"{row['tokens_per_s']:,.0f} | {row['mfu']:.1%} | {row['peak']:.1f} | {row['reserved']:.1f}"


def measure(shape: str, name: str, options: argparse.Namespace, ranks: Ranks) -> dict[str, Any]:
    """Take steps with the trainer's own loop, the first untimed."""
    started, variant = time.perf_counter(), VARIANTS[name]
    packs = make_packs(variant.micro_packs * variant.micro_steps, options.seq_len, variant.targets, seed=3)
    config = run_config(options.seq_len, variant.micro_packs, variant.micro_steps, options.steps + 1)
    model = make_model(shape, torch.bfloat16, ranks.device)
    engine, kernels = build(model, config, ranks, variant)
    plan = Plan(num_packs=len(packs), batch_packs=len(packs), micro_packs=variant.micro_packs, num_ranks=1)
    records: list[StepRecord] = []
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train_steps(engine, packs, plan, config, ranks, options.steps + 1, records.extend, lambda done: None)
    seconds = sum(record.tokens / record.tokens_per_s for record in records[1:])
    tokens = sum(record.tokens for record in records[1:])
    square = options.steps * sum(
        int((packs[index].seq_lengths.astype(np.int64) ** 2).sum()) for index in range(len(packs))
    )
    _, layers, heads, _, _ = SHAPES[shape]
    parameters = sum(each.numel() for each in model.parameters())
    flops = 6 * parameters * tokens + 12 * layers * heads * 128 * square / 2
    on_gpu = ranks.device.type == "cuda"
    if name in options.profile:
        profile(engine, packs, plan, config, ranks)
    return {
        "shape": shape,
        "variant": name,
        "tokens_per_s": tokens / seconds,
        "mfu": flops / seconds / PEAK_FLOPS,
        "peak": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0,
        "reserved": torch.cuda.max_memory_reserved() / 2**30 if on_gpu else 0.0,
        "step_seconds": [round(record.tokens / record.tokens_per_s, 3) for record in records],
        "losses": [round(record.loss, 4) for record in records],
        "norms": [round(record.grad_norm or 0, 3) for record in records],
        "kernels": str(kernels),
        "whole": round(time.perf_counter() - started, 1),
    }


def build(model: Any, config: RunConfig, ranks: Ranks, variant: Variant) -> tuple[Any, Kernels]:
    on_gpu = ranks.device.type == "cuda"
    attention = "PyTorch's varlen"
    if variant.flash4:
        attention = choose_attention(ranks.device, torch.bfloat16, 128)
    else:
        register_packed_attention(torch_kernel())
    kernels = Kernels(attention=attention, layers=AS_THEY_ARE, head=APART)
    vocab_size = model.config.vocab_size
    model.train()
    if variant.chosen:
        num_tokens, started = probe_tokens(config, ranks.device), time.perf_counter()
        kernels = choose_kernels(model, attention, vocab_size, ranks.device, num_tokens)
        chosen = time.perf_counter()
        check_isolation(model, vocab_size, ranks.device, num_tokens)
        print(f"chosen in {chosen - started:.1f} s, isolation seen in {time.perf_counter() - chosen:.2f} s", flush=True)
    if variant.plain:
        return PlainEngine(model, config, on_gpu=on_gpu, compiled=kernels.compiled), kernels
    settings = deepspeed_config(config, {}, on_gpu=on_gpu)
    engine, *_ = import_deepspeed(on_gpu=on_gpu).initialize(
        model=model, optimizer=build_optimizer(model, config, on_gpu=on_gpu), config=settings, dist_init_required=False
    )
    return engine, kernels


def check(num_steps: int, seq_len: int, ranks: Ranks) -> None:
    """Losses and gradient norms of the fast path, twice, beside float32 eager attention on separate examples."""
    shape = "check" if ranks.device.type == "cuda" else "tiny"
    packs = make_packs(2, seq_len, 0.5, seed=4)
    config = run_config(seq_len, 1, 2, num_steps)
    first = make_model(shape, torch.bfloat16, ranks.device)
    start = copy.deepcopy(first.state_dict())
    runs = {}
    ways = {
        "nothing chosen": Variant(name="", micro_packs=1, chosen=False),
        "torch varlen": Variant(name="", micro_packs=1),
        "FA4": Variant(name="", micro_packs=1, flash4=True),
        "FA4 again": Variant(name="", micro_packs=1, flash4=True),
    }
    for name, variant in ways.items():
        model = make_model(shape, torch.bfloat16, ranks.device)
        model.load_state_dict(start)
        engine, kernels = build(model, config, ranks, variant)
        print(name, kernels, flush=True)
        records: list[StepRecord] = []
        plan = Plan(num_packs=2, batch_packs=2, micro_packs=1, num_ranks=1)
        train_steps(engine, packs, plan, config, ranks, num_steps, records.extend, lambda done: None)
        runs[name] = [(record.loss, record.grad_norm or 0.0) for record in records]
    model = make_model(shape, torch.float32, ranks.device, attention="eager")
    model.load_state_dict(start)
    reference = runs["float32"] = separate(model, packs, config, num_steps)
    for name, run in runs.items():
        far = [max(abs(a[i] - b[i]) / b[i] for a, b in zip(run, reference, strict=True)) for i in (0, 1)]
        print(
            f"{name}: loss {run[0][0]:.5f} -> {run[-1][0]:.5f}, off by {far[0]:.2%} loss, {far[1]:.2%} norm", flush=True
        )
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


def profile(engine: Any, packs: Packs, plan: Plan, config: RunConfig, ranks: Ranks) -> None:
    """List where the device's time goes in one optimizer step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CUDA]) as watched:
        train_steps(engine, packs, plan, config, ranks, 1, lambda records: None, lambda done: None)
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
        tie_word_embeddings=True,
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


def run_config(seq_len: int, micro_packs: int, micro_steps: int, steps: int) -> RunConfig:
    settings = {name: value for name, value in DEFAULTS.items() if name != "batch_tokens"}
    settings |= {"precision": "bf16", "epochs": 1, "micro_packs": micro_packs, "schedule": "constant"}
    return RunConfig(
        shards=Path(),
        model="random",
        seq_len=seq_len,
        num_ranks=1,
        steps=steps,
        batch_packs=micro_packs * micro_steps,
        warmup_steps=0,
        fits_memory=False,
        eval_every=None,
        **settings,
    )


if __name__ == "__main__":
    main()
