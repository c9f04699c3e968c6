"""`train run --backend trl`: the same packs in the same steps, trained by TRL's SFTTrainer under accelerate.

For those who want FSDP2, accelerate's launcher or Trainer's callbacks. Data, attention, optimizer, schedule and export
are ours; the loop, the loss and what is sharded how are TRL's. The run is one long epoch whose dataset is the numbers
of the packs, in order, so that no sampler of theirs decides anything.
"""

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR

from schemas.errors import TrainError
from schemas.shard import IGNORED_LABEL
from train.attention import NAME, bounds, check_every_layer_attends
from train.batch import collate, pack_order
from train.config import RunConfig, flag_name
from train.deepspeed_config import deepspeed_config
from train.export import Taken, export, gathered_weights
from train.gpus import common_gpu
from train.hub import ModelFiles
from train.kernels import check_isolation, choose_attention
from train.launch import Ranks
from train.load import Packs, Shards
from train.lora import choose_trained
from train.method import ADAPTER_FLAGS
from train.model import (
    DTYPES,
    ModelShape,
    checkpoint_layers,
    half_dtype,
    load_weights,
    make_room,
    shape_as_trained,
    shape_for,
)
from train.optimizer import build_optimizer, learning_rate
from train.planner import choose, step_work

EMPTY = -1  # in the order of packs: no pack, so that all ranks take equally many
ONLY_DEEPSPEED = (*ADAPTER_FLAGS, "lora", "dora", "neftune", "label_smoothing", "save_every", "keep", "patience")
SHOWN = "loss", "eval_loss", "grad_norm"
OF_LAUNCHER = "zero", "offload_optimizer", "deepspeed"


def check_options(options: Namespace) -> None:
    """Raise TrainError for what only the DeepSpeed backend does, and for what accelerate's launcher has settled."""
    for name in ONLY_DEEPSPEED:
        if getattr(options, name, None):
            raise TrainError(f"{flag_name(name)} is not done by --backend trl; leave one of the two out")
    launcher = _launcher()
    for name in OF_LAUNCHER if launcher else ():
        if getattr(options, name) is not None:
            raise TrainError(f"{flag_name(name)}: accelerate launch has settled {launcher}; leave it out here")
    if options.out is not None and (options.out / "model").exists():
        raise TrainError(f"{options.out / 'model'}: is there already; choose another --out, or add --fresh")


def train_with_trl(
    config: RunConfig, content: dict[str, Any], shards: Shards, files: ModelFiles, out: Path, ranks: Ranks
) -> None:
    """Train and leave OUT/model and OUT/metrics.jsonl; every rank calls this. `content` is the DeepSpeed file."""
    if config.optimizer is not None:
        raise TrainError(f"optimizer.type {config.optimizer.kind} is not done by --backend trl; leave one of them out")
    shape = shape_for(shape_as_trained(files, config.method), shards)
    if ranks.device.type == "cuda":
        config = choose(config, shape, common_gpu(ranks), step_work(config, shards.train)).config
    elif config.checkpointed_layers < 0:
        config = replace(config, checkpointed_layers=shape.num_layers)
    trainer = _trainer(config, content, shards, files, shape, out, ranks)
    if ranks.is_first:
        print("\n".join(_opening_lines(config, shards, trainer)), flush=True)
    trainer.train()
    weights = _whole_weights(trainer, files, ranks)
    if ranks.is_first:
        taken = Taken(model=trainer.accelerator.unwrap_model(trainer.model), weights=weights)
        proof = export(taken, out / "model", shards.tokenizer, files, shards)
        print(f"model      {out / 'model'}", f"checked    {proof.line()}", sep="\n", flush=True)


def run_order(packs: Packs, config: RunConfig) -> list[int]:
    """The packs of the whole run as SFTTrainer takes them, each step filled up with EMPTY.

    3 packs, 2 a step, 1 a micro-batch, 2 ranks, 1 epoch in the order [2, 0, 1] -> [2, 0, 1, EMPTY].
    """
    room = config.num_ranks * config.micro_packs * config.num_micro_steps
    steps_an_epoch = -(-len(packs) // config.batch_packs)
    found: list[int] = []
    for index in range(config.num_steps(len(packs))):
        epoch, within = divmod(index, steps_an_epoch)
        if within == 0:
            order = pack_order(len(packs), config.seed, epoch, packs.heaviest)
        taken = order[within * config.batch_packs : (within + 1) * config.batch_packs].tolist()
        found += taken + [EMPTY] * (room - len(taken))
    return found


def held_out_order(packs: Packs, config: RunConfig) -> list[int]:
    """The packs of the held-out split, filled up with EMPTY to whole batches on all ranks."""
    return [*range(len(packs)), *[EMPTY] * (-len(packs) % (config.num_ranks * config.micro_packs))]


def laid_out(splits: dict[str, Packs], rows: Sequence[dict[str, int]], *, on_gpu: bool) -> dict[str, Any]:
    """What the model's forward is given for packs of a split: one row, with labels and the bounds of examples."""
    [split] = rows[0]
    batch = collate(splits[split], [row[split] for row in rows if row[split] != EMPTY])
    labels = torch.full_like(batch.input_ids, IGNORED_LABEL)
    if batch.num_targets:
        labels[0, batch.predicting + 1] = batch.labels
    known = {name: value for name, value in bounds(batch).items() if name != "seq_lengths" or not on_gpu}
    return {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "labels": labels, **known}


def _launcher() -> str | None:
    """What `accelerate launch` was told to shard with."""
    for name, variable in (("DeepSpeed", "ACCELERATE_USE_DEEPSPEED"), ("FSDP", "ACCELERATE_USE_FSDP")):
        if os.environ.get(variable, "").lower() in ("true", "1"):
            return name
    return None


def _trainer(
    config: RunConfig,
    content: dict[str, Any],
    shards: Shards,
    files: ModelFiles,
    shape: ModelShape,
    out: Path,
    ranks: Ranks,
) -> Any:
    """TRL's trainer around the model."""
    import datasets
    from transformers import AutoTokenizer, PrinterCallback, ProgressCallback

    on_gpu = ranks.device.type == "cuda"
    arguments = _arguments(config, content, shards, out, on_gpu=on_gpu)  # before the model, which ZeRO-3 cuts up
    choose_attention(ranks.device, DTYPES[config.precision], shape)
    model = load_weights(files, DTYPES[config.precision], NAME)
    make_room(model, shape.vocab_size, config.seed)
    choose_trained(model, config.method, config.seed)
    checkpoint_layers(model, config.checkpointed_layers)
    splits, views = {"train": shards.train}, {"train": run_order(shards.train, config)}
    if shards.val is not None:
        splits["val"], views["val"] = shards.val, held_out_order(shards.val, config)
    trainer = _trainer_class(config, shards, on_gpu=on_gpu)(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"train": views["train"]}),
        eval_dataset=datasets.Dataset.from_dict({"val": views["val"]}) if "val" in views else None,
        data_collator=lambda rows: laid_out(splits, rows, on_gpu=on_gpu),
        processing_class=AutoTokenizer.from_pretrained(shards.tokenizer, local_files_only=True),
    )
    for kind in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(kind)
    trainer.add_callback(_watch(shape, out, config.num_steps(len(shards.train)), ranks))
    return trainer


def _trainer_class(config: RunConfig, shards: Shards, *, on_gpu: bool) -> Any:
    """SFTTrainer with the optimizer, the schedule and the held-out loss of the other backend."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from trl import SFTTrainer

    num_steps = config.num_steps(len(shards.train))
    num_batches, num_targets = 0.0, 0
    if shards.val is not None:
        num_batches = len(held_out_order(shards.val, config)) / config.micro_packs
        num_targets = int(shards.val.num_targets.sum())

    class Trainer(SFTTrainer):
        def create_optimizer(self, model: Any = None) -> Any:
            self.optimizer = build_optimizer(cast(Any, model or self.model), config, on_gpu=on_gpu)
            return self.optimizer

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            def factor(step: int) -> float:
                return learning_rate(config, step, num_steps) / config.learning_rate

            self.lr_scheduler = LambdaLR(cast(Any, optimizer or self.optimizer), factor)
            return self.lr_scheduler

        def prediction_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **settings: Any) -> Any:
            """Weigh a batch's mean by its targets: Trainer gives the mean over batches."""
            loss, *others = super().prediction_step(model, inputs, *rest, **settings)
            share = (inputs["labels"] != IGNORED_LABEL).sum() / num_targets
            return loss * share * num_batches, *others

    return Trainer


def _arguments(config: RunConfig, content: dict[str, Any], shards: Shards, out: Path, *, on_gpu: bool) -> Any:
    from trl import SFTConfig

    num_steps = config.num_steps(len(shards.train))
    own: dict[str, Any] = {} if _launcher() else {"deepspeed": deepspeed_config(config, content, on_gpu=on_gpu)}
    return SFTConfig(
        **own,
        output_dir=str(out),
        max_steps=num_steps,
        per_device_train_batch_size=config.micro_packs,
        per_device_eval_batch_size=config.micro_packs,
        gradient_accumulation_steps=config.num_micro_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.precision == "bf16",
        fp16=config.precision == "fp16",
        use_cpu=not on_gpu,
        seed=config.seed,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,  # the layers that are to be computed twice are settled already
        eval_strategy="no" if shards.val is None else "steps",
        eval_steps=config.eval_every or max(1, num_steps // 4),
        prediction_loss_only=True,
        logging_steps=max(1, min(10, num_steps // 50)),
        save_strategy="no",
        report_to=[],
        ddp_find_unused_parameters=False,
    )


def _watch(shape: ModelShape, out: Path, num_steps: int, ranks: Ranks) -> Any:
    """One that looks on: the promise that examples keep apart, signs of life, and OUT/metrics.jsonl."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Called by Trainer."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            with torch.no_grad():
                check_every_layer_attends(rest["model"], ranks.device, shape.num_layers)
                check_isolation(rest["model"], shape.vocab_size, ranks.device)

        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            ranks.sign.at("a step of TRL's", state.global_step + 1)

        def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if not ranks.is_first:
                return
            logs: dict[str, float] = rest["logs"]
            with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | logs) + "\n")
            shown = [f"{name} {logs[name]:.4g}" for name in SHOWN if name in logs]
            if shown:
                print(f"step {state.global_step:,}/{num_steps:,}  {'  '.join(shown)}", flush=True)

    return Watch()


def _opening_lines(config: RunConfig, shards: Shards, trainer: Any) -> list[str]:
    packs = len(shards.train)
    kind = str(trainer.accelerator.distributed_type).rpartition(".")[2]
    return [
        f"model      {config.model}: {config.precision}, by TRL's SFTTrainer under accelerate ({kind})",
        f"data       {packs:,} packs of up to {config.seq_len:,} tokens",
        f"steps      {config.num_steps(packs):,}, {config.batch_packs} packs each: {config.num_ranks} ranks x "
        f"{config.num_micro_steps} micro-batches of {config.micro_packs}",
    ]


def _whole_weights(trainer: Any, files: ModelFiles, ranks: Ranks) -> dict[str, torch.Tensor]:
    """All weights in CPU memory of rank 0, in the dtype of the model's files."""
    half = half_dtype(files)
    module = trainer.accelerator.unwrap_model(trainer.model)
    if _launcher() != "FSDP":
        return gathered_weights(module, half, ranks)
    names = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    whole = trainer.accelerator.get_state_dict(trainer.model)
    return {name: tensor.to(half or tensor.dtype) for name, tensor in whole.items() if name in names}
