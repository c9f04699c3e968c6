"""Whole runs through real DeepSpeed and gloo: one rank equals two, at any ZeRO stage, launcher or accumulation."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from train.batch import collate
from train.load import open_shards
from train.loss import summed_loss

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PLAIN = [sys.executable, "-m", "train.cli", "run"]
TWO_RANKS = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TORCHRUN = [*TWO_RANKS, *PLAIN[1:]]
DEEPSPEED_FILE = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": 2, "overlap_comm": False, "reduce_bucket_size": "auto"},
}
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A run that ended well."""

    out: Path
    stdout: str

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def values(self, name: str) -> list[float]:
        return [line[name] for line in self.metrics if name in line]

    def weights(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(self.out / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """13 packs to train on (5, 5 and 3 a step) and 2 held out, all of unequal numbers of targets, and a tied model."""
    home = tmp_path_factory.mktemp("runs")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir, tied=True)
    packs = packed(chat_examples(tiny_tokenizer_dir, 60), 256)[:15]
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packs[:13], packs[13:], seq_len=256)
    return home


@pytest.fixture(scope="module")
def runs(home: Path) -> dict[str, Finished]:
    """The same run in five ways. The first three go side by side, since each keeps one core busy."""
    (home / "ds.json").write_text(json.dumps(DEEPSPEED_FILE), encoding="utf-8")
    alone = [
        _start(home, PLAIN, "one-rank"),
        _start(home, PLAIN, "whole-batch", "--micro-packs", "5", "--zero", "0"),
        _start(home, PLAIN, "bf16", "--deepspeed", str(home / "ds.json"), "--gradient-checkpointing"),
    ]
    finished = [_finish(*each) for each in alone]
    finished.append(_finish(*_start(home, TORCHRUN, "zero-2", "--zero", "2", "--save-every", "2")))
    finished.append(_finish(*_start(home, PLAIN, "zero-3", "--zero", "3", "--procs", "2")))
    return {each.out.name: each for each in finished}


def _start(home: Path, command: Sequence[str], name: str, *flags: str) -> tuple[Path, subprocess.Popen[str]]:
    shared = ["--shards", str(home / "cache"), "--batch-packs", "5", "--learning-rate", "1e-3", "--eval-every", "1"]
    arguments = [*command, *shared, "--out", str(home / name), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return home / name, subprocess.Popen(arguments, env=ENVIRONMENT, encoding="utf-8", **pipes)


def _finish(out: Path, process: subprocess.Popen[str]) -> Finished:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert not [line for line in stderr.splitlines() if "OMP_NUM_THREADS" not in line and line.strip("* ")], stderr
    return Finished(out=out, stdout=stdout)


@pytest.mark.parametrize("other", ["whole-batch", "zero-2", "zero-3"])
def test_losses_gradients_and_weights_are_those_of_one_rank(runs: dict[str, Finished], other: str) -> None:
    one, two = runs["one-rank"], runs[other]
    assert two.values("loss") == pytest.approx(one.values("loss"), rel=1e-5)
    assert two.values("eval_loss") == pytest.approx(one.values("eval_loss"), rel=1e-5)
    if other != "whole-batch":  # DeepSpeed's stage 0 does not tell the norm
        assert two.values("grad_norm") == pytest.approx(one.values("grad_norm"), rel=1e-5)
    base, weights = one.weights(), two.weights()
    assert base.keys() == weights.keys()
    for name, weight in base.items():
        assert torch.allclose(weights[name], weight, rtol=0, atol=1e-5), name


def test_bf16_with_a_deepspeed_file_and_checkpointing_stays_close(runs: dict[str, Finished]) -> None:
    one, bf16 = runs["one-rank"], runs["bf16"]
    assert bf16.values("loss") == pytest.approx(one.values("loss"), rel=1e-2)
    assert bf16.values("eval_loss") == pytest.approx(one.values("eval_loss"), rel=1e-2)
    assert "bf16, ZeRO-2" in bf16.stdout.splitlines()[0]
    assert {weight.dtype for weight in bf16.weights().values()} == {torch.bfloat16}
    config = json.loads((bf16.out / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"


def test_the_first_loss_is_that_of_plain_transformers(runs: dict[str, Finished], home: Path) -> None:
    """All examples of the held-out packs, one by one through the untouched model, are the loss before training."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(home / "base", dtype=torch.float32)
    val = open_shards(home / "cache").val
    assert val is not None
    total = 0.0
    for index in range(len(val)):
        pack, start = val[index], 0
        for length in pack.seq_lengths.tolist():
            ids = torch.tensor(pack.input_ids[start : start + length].astype("int64"))[None]
            labels = ids.where(torch.tensor(pack.is_target[start : start + length])[None], -100)
            with torch.no_grad():
                total += model(input_ids=ids, labels=labels).loss.item() * int((labels != -100).sum())
            start += length
    assert runs["one-rank"].values("eval_loss")[0] == pytest.approx(total / int(val.num_targets.sum()), rel=1e-5)


@pytest.mark.parametrize("name", ["one-rank", "zero-3"])
def test_the_model_that_was_written_is_the_model_that_was_trained(
    runs: dict[str, Finished], home: Path, name: str
) -> None:
    """Loaded by plain transformers it has the held-out loss that the run had at its end; tied weights stay tied."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from train.attention import register_packed_attention

    folder = runs[name].out / "model"
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=register_packed_attention(), output_loading_info=True
    )
    model, info = loaded
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    val = open_shards(home / "cache").val
    assert val is not None
    with torch.no_grad():
        total = sum(summed_loss(model, collate(val, [index])).item() for index in range(len(val)))
    assert runs[name].values("eval_loss")[-1] == pytest.approx(total / int(val.num_targets.sum()), rel=1e-6)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(home / "base").chat_template
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    assert model.generation_config.eos_token_id == ends


def test_a_run_leaves_measures_checkpoints_and_a_report(runs: dict[str, Finished]) -> None:
    run = runs["zero-2"]
    left = sorted(path.name for path in run.out.iterdir())
    made = ["checkpoints", "history.json", "metrics.jsonl", "model", "summary.html", "summary.json", "tensorboard"]
    assert left == made
    assert sorted(path.name for path in (run.out / "checkpoints").iterdir()) == ["step-000002", "step-000003"]
    assert not (runs["one-rank"].out / "checkpoints").exists()  # none behind the last step, unless asked for
    assert run.values("targets") == [line["targets"] for line in run.metrics if "loss" in line]
    assert [math.exp(loss) for loss in run.values("eval_loss")] == pytest.approx(run.values("eval_perplexity"))
    summary = json.loads((run.out / "summary.json").read_text(encoding="utf-8"))
    assert summary["first_loss"] == run.values("loss")[0]
    assert summary["last_eval_loss"] == run.values("eval_loss")[-1]
    assert summary["tokens_trained"] == summary["tokens"] == sum(run.values("tokens"))
    assert summary["steps"] == 3
    assert summary["export"] | {"ends_turn": None} == {
        "weights": 24,
        "dtype": "float32",
        "tied": True,
        "ends_turn": None,
    }
    page = (run.out / "summary.html").read_text(encoding="utf-8")
    assert "<svg" in page and "://" not in page
    assert 'class="state finished"' in page
    assert "The loss on held-out data fell from" in page
    assert [sample["source"] for sample in summary["samples"]["samples"]] == ["tiny"] * 4
    assert page.count('<article class="sample">') == 4


def test_tensorboard_holds_every_measure(runs: dict[str, Finished]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs["zero-2"].out / "tensorboard"))
    events.Reload()
    wanted = {"loss", "learning_rate", "grad_norm", "targets", "tokens", "tokens_per_s", "targets_per_s", "epoch"}
    wanted |= {"waiting", "communication"}
    assert set(events.Tags()["scalars"]) == {f"train/{name}" for name in wanted} | {"eval/loss", "eval/perplexity"}
    logged = [event.value for event in events.Scalars("train/loss")]
    assert logged == pytest.approx(runs["zero-2"].values("loss"), rel=1e-6)


def test_the_last_lines_say_what_came_of_it(runs: dict[str, Finished]) -> None:
    run = runs["zero-3"]
    done, model, checked, report = run.stdout.splitlines()[-4:]
    first, last = run.values("loss")[0], run.values("loss")[-1]
    before, after = run.values("eval_loss")[0], run.values("eval_loss")[-1]
    assert after < before
    assert done.startswith(
        f"done       loss {first:.4f} -> {last:.4f}, held-out {before:.4f} -> {after:.4f}, 3 steps, "
    )
    assert model == f"model      {run.out / 'model'}"
    assert checked.startswith("checked    24 weights in float32 as in the base, all finite, tied, loads again, ")
    assert report == f"report     {run.out / 'summary.html'}"


STOCK_TRL = """
import sys
from datasets import load_dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer
from schemas.shard import with_labels

shards, base, out = sys.argv[1:]
dataset = load_dataset("arrow", data_files=f"{shards}/val-*.arrow", split="train", cache_dir=out)
dataset = dataset.map(with_labels, batched=True, remove_columns=dataset.column_names)
arguments = SFTConfig(
    padding_free=True, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
    output_dir=out, per_device_train_batch_size=len(dataset), max_steps=2, logging_steps=1,
    report_to="none", use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True, learning_rate=1e-3,
)
model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
trainer = SFTTrainer(model=model, args=arguments, train_dataset=dataset)
trainer.train()
print("losses", *(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))
"""


def test_stock_trl_trains_on_the_same_shards_with_the_same_first_loss(
    runs: dict[str, Finished], home: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", STOCK_TRL, str(home / "cache/shards"), str(home / "base"), str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = map(float, done.stdout.splitlines()[-1].split()[1:])
    assert first == pytest.approx(runs["one-rank"].values("eval_loss")[0], rel=1e-5)
    assert second < first


@pytest.mark.long
@pytest.mark.parametrize("flags", [[], ["--gradient-checkpointing", "1"], ["--lora"], ["--freeze", "*embed*"]])
def test_compiled_layers_and_the_head_in_the_loss_at_zero_3(home: Path, flags: list[str]) -> None:
    """Two ranks with what a GPU is given, beside one with nothing chosen."""
    name = "-".join(["plain", *flags]).replace("*", "")
    plain = _start(home, PLAIN, name, *flags)
    script = [*TWO_RANKS, str(Path(__file__).with_name("kernels_of_a_gpu.py")), "run"]
    out, process = _start(home, script, f"{name}-chosen", "--zero", "3", *flags)
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr
    assert "layers     compiled; head: in the loss" in stdout
    one, two = _finish(*plain), Finished(out=out, stdout=stdout)
    for measure in ("loss", "eval_loss", "grad_norm"):
        assert two.values(measure) == pytest.approx(one.values(measure), rel=1e-4), measure


def test_layers_that_do_not_compile_train_as_they_are_at_zero_3(runs: dict[str, Finished], home: Path) -> None:
    """The compiler fails in a backward pass, half of which DeepSpeed then has behind it."""
    script = ["env", "BROKEN_COMPILER=1", *TWO_RANKS, str(Path(__file__).with_name("kernels_of_a_gpu.py")), "run"]
    broken = _finish(*_start(home, script, "broken-compiler", "--zero", "3"))
    assert "layers     torch.compile failed: no kernel for this GPU; head: in the loss" in broken.stdout
    for measure in ("loss", "eval_loss", "grad_norm"):
        assert broken.values(measure) == pytest.approx(runs["one-rank"].values(measure), rel=1e-4), measure
