"""TRL's SFTTrainer at its best on the packs of gpu.py: `gpu_trl.py SHAPE varlen|flash4 STEPS`, a row as JSON.

Packed, a variable-length attention kernel, Liger's kernels, no checkpointing, ZeRO-2, fused AdamW.
The collator hands the examples' bounds to attention, so that nothing is asked of the device in every layer.
"""

import json
import os
import sys
import time
from typing import Any

import torch
from gpu import make_model, make_packs, model_shape

from train.attention import bounds, register_packed_attention, torch_kernel
from train.batch import collate
from train.cost import model_flops
from train.flash4 import flash4_kernel
from train.gpus import GIB, visible_gpu
from train.load import Packs

MICRO_PACKS, MICRO_STEPS = 2, 16  # 4 and 8 are slower


class Stopwatch:
    """When each optimizer step was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def tick(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def main(shape: str, attention: str, steps: int) -> None:
    on_gpu = torch.cuda.is_available()
    ours = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    os.environ |= ours | {"HF_HUB_OFFLINE": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    packs = make_packs(MICRO_PACKS * MICRO_STEPS, 4096, 1.0, seed=3)
    trainer, watch = build(shape, attention, packs, steps + 1, on_gpu)
    trainer.train()
    seconds = watch.times[-1] - watch.times[0]
    tokens = steps * int(packs.num_tokens.sum())
    mfu = None
    if on_gpu and (peak := visible_gpu(0).peak_flops):
        mfu = model_flops(model_shape(shape), tokens, steps * int(packs.squares.sum())) / seconds / peak
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    memory = torch.cuda.max_memory_allocated() / GIB if on_gpu else 0.0
    print()
    print(json.dumps({"tokens_per_s": tokens / seconds, "mfu": mfu, "peak": memory, "losses": losses}), flush=True)


def build(shape: str, attention: str, packs: Packs, steps: int, on_gpu: bool) -> tuple[Any, Stopwatch]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTTrainer

    watch = Stopwatch()

    class Ticks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.tick()

    device = torch.device("cuda" if on_gpu else "cpu")
    model = make_model(shape, torch.bfloat16, device)
    register_packed_attention(flash4_kernel() if attention == "flash4" else torch_kernel())

    def one_row(rows: list[dict[str, int]]) -> dict[str, Any]:
        batch = collate(packs, [row["pack"] for row in rows])
        labels = torch.full_like(batch.input_ids, -100)
        labels[0, batch.predicting + 1] = batch.labels
        inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "labels": labels}
        return inputs | bounds(batch)

    trainer = SFTTrainer(
        model=model,
        args=arguments(steps, on_gpu),
        train_dataset=Dataset.from_dict({"pack": list(range(len(packs)))}),
        data_collator=one_row,
        processing_class=_tokenizer(),
        callbacks=[Ticks()],
    )
    return trainer, watch


def arguments(steps: int, on_gpu: bool) -> Any:
    from trl import SFTConfig

    zero = {
        "zero_optimization": {"stage": 2},
        "bf16": {"enabled": True},
        "train_micro_batch_size_per_gpu": MICRO_PACKS,
        "gradient_accumulation_steps": MICRO_STEPS,
        "gradient_clipping": 1.0,
    }
    return SFTConfig(
        output_dir="/tmp/trl",
        per_device_train_batch_size=MICRO_PACKS,
        gradient_accumulation_steps=MICRO_STEPS,
        max_steps=steps,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
        use_liger_kernel=on_gpu,
        optim="adamw_torch_fused",
        learning_rate=1e-5,
        weight_decay=0.1,
        adam_beta2=0.95,
        lr_scheduler_type="constant",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        deepspeed=zero if on_gpu else None,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )


def _tokenizer() -> Any:
    """Any tokenizer: SFTTrainer wants one, and nothing here is text."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<eos>": 0}, unk_token="<eos>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
