"""TRL's own preparation of a corpus, timed inside one process: what SFTTrainer's constructor does to the dataset."""

import json
import os
import resource
import sys
import time
from importlib.resources import files
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from trl import SFTConfig, SFTTrainer


def cpu_s() -> float:
    """CPU seconds of this process and the children it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    corpus, tokenizer_folder, work = sys.argv[1:4]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    template = files("trl") / "chat_templates" / "qwen3_training.jinja"  # assistant-only loss needs its marks
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
    )
    model = Qwen3ForCausalLM(config).to(torch.float32)
    dataset = load_dataset("json", data_files=corpus, split="train", cache_dir=f"{work}/hf-{os.getpid()}")
    arguments = SFTConfig(
        output_dir=f"{work}/trl",
        packing=True,
        packing_strategy="bfd",
        max_length=4096,
        assistant_only_loss=True,
        dataset_num_proc=os.cpu_count(),
        report_to="none",
        bf16=False,
        use_cpu=True,
    )
    started, before = time.monotonic(), cpu_s()
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    cpu, wall = cpu_s() - before, time.monotonic() - started
    packed = trainer.train_dataset
    tokens = sum(map(sum, packed["seq_lengths"]))
    size = sum(Path(file["filename"]).stat().st_size for file in packed.cache_files)
    result = {"prep_cpu_s": cpu, "prep_wall_s": wall, "tokens": tokens}
    result |= {"fill": tokens / (len(packed) * 4096), "bytes_a_token": size / tokens}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
