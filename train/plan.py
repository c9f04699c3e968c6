"""`train plan`: what a run would take and how fast it would go, on GPUs that are only named; no GPU is needed."""

from argparse import Namespace
from dataclasses import replace

from schemas.errors import TrainError
from train.config import RunConfig, settle
from train.cost import Work
from train.deepspeed_config import file_settings, read_deepspeed_file
from train.gpus import GIB, Gpu, parse_gpus, visible_gpu
from train.hub import find_config
from train.launch import quiet_libraries
from train.load import Shards, open_shards
from train.memory import host_bytes
from train.model import ModelShape, shape_as_trained, shape_for
from train.page.words import duration
from train.planner import USABLE, Forecast, choose, foresee, step_work


def plan(options: Namespace) -> int:
    """Print the plan of the run that the same flags would start. Gives the exit code: 1 where it does not fit."""
    quiet_libraries()
    shards = open_shards(options.shards)
    count, gpu = parse_gpus(options.gpus) if options.gpus else _gpus_here()
    content = read_deepspeed_file(options.deepspeed) if options.deepspeed else {}
    name = options.model or shards.manifest.model
    config = settle(
        options,
        file_settings(content),
        model=name,
        seq_len=shards.manifest.options.seq_len,
        num_ranks=count,
        has_bf16_gpu=True,
    )
    shape = shape_for(shape_as_trained(find_config(name), config.method), shards)
    if config.checkpointed_layers < 0:
        config = replace(config, checkpointed_layers=shape.num_layers)
    work = step_work(config, shards.train)
    chosen = choose(config, shape, gpu, work)
    print("\n".join([*_opening(chosen, shape, gpu, shards), "", *_memory_table(chosen, shape, gpu)]))
    print("\n".join(["", *_speed(chosen, shards), "", *_others(chosen, shape, gpu, work)]))
    return 0 if chosen.fits else 1


def _gpus_here() -> tuple[int, Gpu]:
    import torch

    if not torch.cuda.is_available():
        raise TrainError("no GPU is visible here; name those of the run, as in --gpus 4xH100-80G")
    return torch.cuda.device_count(), visible_gpu(0)


def _opening(chosen: Forecast, shape: ModelShape, gpu: Gpu, shards: Shards) -> list[str]:
    config, packs = chosen.config, shards.train
    trained = config.method.line(shape.num_trained, shape.num_parameters)
    return [
        f"model      {config.model}: {shape.num_parameters:,} parameters, {config.precision}",
        *([f"trained    {trained}"] if shape.num_trained != shape.num_parameters else []),
        f"GPUs       {config.num_ranks} x {gpu.name}, {gpu.memory_bytes / GIB:.1f} GiB each",
        f"data       {len(packs):,} packs, {int(packs.num_tokens.sum()):,} tokens, of which "
        f"{int(packs.num_targets.sum()) / max(1, int(packs.num_tokens.sum())):.0%} targets",
        f"chosen     --zero {config.zero} --micro-packs {config.micro_packs} --gradient-checkpointing "
        f"{config.checkpointed_layers}{' --offload-optimizer' if config.offload_optimizer else ''}",
        f"           micro-batches of {config.micro_packs * config.seq_len:,} tokens, {config.num_micro_steps} a step "
        f"on each GPU; {config.checkpointed_layers} of {shape.num_layers} layers computed twice",
    ]


def _memory_table(chosen: Forecast, shape: ModelShape, gpu: Gpu) -> list[str]:
    memory = chosen.memory
    rows = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "logits": memory.logits,
        "buffers": memory.buffers,
        "peak": memory.total,
        "usable": USABLE * gpu.memory_bytes,
    }
    lines = ["memory of each GPU, GiB", *(f"  {name:<12}{size / GIB:8.1f}" for name, size in rows.items())]
    if size := host_bytes(chosen.config, shape):
        lines.append(f"  CPU memory  {size / GIB:8.1f}   of all GPUs together")
    if not chosen.fits:
        lines.append("does not fit; use more GPUs, or a smaller `dataprep tokenize --seq-len`")
    return lines


def _speed(chosen: Forecast, shards: Shards) -> list[str]:
    if chosen.tokens_per_s is None or chosen.mfu is None:
        return ["speed      not known for this GPU"]
    config, tokens = chosen.config, int(shards.train.num_tokens.sum())
    whole = tokens * config.epochs
    if config.steps is not None:
        whole = round(config.steps * tokens * min(1.0, config.batch_packs / len(shards.train)))
    return [
        f"speed      about {chosen.tokens_per_s:,.0f} tokens/s, MFU {chosen.mfu:.0%}",
        f"time       about {duration(whole / chosen.tokens_per_s)} for {whole:,} tokens",
    ]


def _others(chosen: Forecast, shape: ModelShape, gpu: Gpu, work: Work) -> list[str]:
    """Beside what was chosen: each size of micro-batch without and with all layers computed twice."""
    lines = ["micro-packs  layers twice  GiB a GPU  tokens/s"]
    for size in sorted({1, 2, 4, 8, chosen.config.micro_packs}):
        for again in sorted({0, chosen.config.checkpointed_layers, shape.num_layers}):
            config: RunConfig = replace(chosen.config, micro_packs=size, checkpointed_layers=again)
            if size * config.num_ranks > config.batch_packs:
                continue
            row = foresee(config, shape, gpu, work)
            speed = "" if row.tokens_per_s is None else f"{row.tokens_per_s:,.0f}"
            mark = "  <- chosen" if config == chosen.config else "" if row.fits else "  too much"
            lines.append(f"{size:11}  {again:12}  {row.memory.total / GIB:9.1f}  {speed:>8}{mark}")
    return lines
