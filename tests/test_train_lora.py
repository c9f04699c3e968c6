"""Adapters: trained alike by any number of ranks, read by peft, merged to the same answers, counted in the plan."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_runs import PLAIN, Finished, _finish, _start
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import ModelError, TrainError
from train.attention import register_packed_attention
from train.batch import collate
from train.cli import main
from train.hub import find_model
from train.load import open_shards
from train.lora import adapted_layers, choose_trained
from train.loss import summed_loss
from train.memory import states
from train.method import Lora, Method
from train.model import load_weights, shape_as_trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),  # peft asks transformers for it
]

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# a layer's linear layers as (in, out): 4 heads and 2 key heads of 16, hidden 64, inner 128
SIZES = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """DoRA on one rank, merged at the end, and on two at ZeRO-3."""

    home: Path
    alone: Finished
    shared_out: Finished


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    home = tmp_path_factory.mktemp("adapters")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir, tied=True)
    packs = packed(chat_examples(tiny_tokenizer_dir, 60), 256)[:9]
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packs[:8], packs[8:], seq_len=256)
    return home


@pytest.fixture(scope="module")
def runs(home: Path) -> Runs:
    flags = ["--dora", "--lora", "4", "--learning-rate", "1e-2", "--lora-dropout", "0"]
    alone = _finish(*_start(home, PLAIN, "alone", *flags, "--merge"))
    shared_out = _finish(*_start(home, PLAIN, "shared-out", *flags, "--zero", "3", "--procs", "2"))
    return Runs(home=home, alone=alone, shared_out=shared_out)


def adapter(run: Finished) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.out / "adapter" / "adapter_model.safetensors")


def held_out(model: Any, home: Path) -> float:
    val = open_shards(home / "cache").val
    assert val is not None
    with torch.no_grad():
        total = sum(summed_loss(model, collate(val, [index])).item() for index in range(len(val)))
    return total / int(val.num_targets.sum())


def test_two_ranks_at_zero_3_train_the_adapters_of_one(runs: Runs) -> None:
    one, two = runs.alone, runs.shared_out
    assert two.values("loss") == pytest.approx(one.values("loss"), rel=1e-5)
    assert two.values("eval_loss") == pytest.approx(one.values("eval_loss"), rel=1e-5)
    assert one.values("eval_loss")[-1] < one.values("eval_loss")[0] - 0.01
    assert adapter(one).keys() == adapter(two).keys()
    assert len(adapter(one)) == 2 * len(LINEAR) * 3
    for name, weight in adapter(one).items():
        assert torch.allclose(adapter(two)[name], weight, rtol=0, atol=1e-4), name
    assert "DoRA of rank 4, alpha 8 on q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj" in one.stdout
    left = sorted(path.name for path in two.out.iterdir())
    made = ["adapter", "history.json", "metrics.jsonl", "summary.html", "summary.json", "tensorboard"]
    assert left == made


def test_peft_loads_the_adapter_that_was_trained(runs: Runs) -> None:
    from peft import AutoPeftModelForCausalLM

    for run in (runs.alone, runs.shared_out):
        loaded: Any = AutoPeftModelForCausalLM.from_pretrained(run.out / "adapter")
        model = loaded.base_model.model
        model.set_attn_implementation(register_packed_attention())
        assert held_out(model, runs.home) == pytest.approx(run.values("eval_loss")[-1], rel=1e-6)


def test_the_merged_model_has_the_adapters_logits(runs: Runs) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    merged, info = AutoModelForCausalLM.from_pretrained(runs.alone.out / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    adapted = AutoPeftModelForCausalLM.from_pretrained(runs.alone.out / "adapter")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        one, other = merged(ids).logits, adapted(input_ids=ids).logits
    assert (one - other).abs().max() < 1e-5 * other.abs().max()
    names = sorted(path.name for path in (runs.alone.out / "model").iterdir())
    assert not [name for name in names if name.startswith("adapter")]
    assert {"chat_template.jinja", "config.json", "generation_config.json", "model.safetensors"} <= set(names)


def test_export_merges_what_the_run_did_not_and_chat_reads_both(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = runs.shared_out.out, tmp_path / "merged"
    assert main(["export", "--model", str(run), "--out", str(out)]) == 1
    assert "which peft loads as it is; add --merge for a whole model" in capsys.readouterr().err
    assert main(["export", "--model", str(run), "--merge", "--out", str(out)]) == 0
    assert main(["export", "--model", str(out), "--merge", "--out", str(tmp_path / "again")]) == 1
    assert "holds no adapter" in capsys.readouterr().err
    answers = []
    for model in (run, run / "adapter", out, runs.home / "base"):
        assert main(["chat", "--model", str(model), "--prompt", "Hello", "--max-tokens", "12"]) == 0
        answers.append(capsys.readouterr().out.partition("]\n")[2])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(("dora", "dtype"), [(False, torch.float32), (False, torch.bfloat16), (True, torch.float32)])
def test_merging_is_what_the_adapters_do(home: Path, tmp_path: Path, dora: bool, dtype: torch.dtype) -> None:
    from train.export import export, take
    from train.launch import Ranks

    base = find_model(str(home / "base"))
    model = load_weights(base, dtype)
    lora = Lora(rank=3, alpha=5.0, dropout=0.3, targets=("q_proj", "down_proj"), dora=dora, merge=False)
    choose_trained(model, Method(lora=lora), seed=1)
    assert adapted_layers(model) == ["q_proj", "down_proj"]
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    ranks = Ranks(rank=0, local_rank=0, num_ranks=1, device=torch.device("cpu"))
    taken = take(_Engine(model), base, ranks, is_adapter=True)
    shards = open_shards(home / "cache")
    proof = export(taken, tmp_path / "adapter", shards.tokenizer, base, shards)
    assert (proof.weights, proof.tied) == (2 * 2 * (3 if dora else 2), True)
    merged = load_weights(find_model(str(tmp_path / "adapter")), dtype)
    assert merged.dtype == dtype
    assert merged.state_dict().keys() == load_weights(base, dtype).state_dict().keys()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        one, other, before = merged(ids).logits, model.eval()(ids).logits, load_weights(base, dtype)(ids).logits
    far = 1e-5 if dtype == torch.float32 else 3e-2
    assert (one - other).abs().max() < far * other.abs().max() < (before - other).abs().max()


@dataclass(frozen=True)
class _Engine:
    module: Any

    def empty_partition_cache(self) -> None:
        pass


@pytest.mark.parametrize(("dora", "targets"), [(False, ()), (True, ()), (False, ("q_proj",))])
def test_the_plan_counts_the_adapters(home: Path, dora: bool, targets: tuple[str, ...]) -> None:
    from test_train_plan import run_config

    method = Method(lora=Lora(rank=4, alpha=8.0, dropout=0.0, targets=targets, dora=dora, merge=False))
    shape = shape_as_trained(find_model(str(home / "base")), method)
    sizes = SIZES[:1] if targets else SIZES
    expected = 2 * sum(4 * (inputs + outputs) + (outputs if dora else 0) for inputs, outputs in sizes)
    assert shape.num_trained == expected
    weights, gradients, optimizer = states(run_config(method=method), shape)
    assert weights == 2 * (shape.num_parameters + expected)
    assert (gradients, optimizer) == (2 * expected, 12 * expected)


def test_layers_that_are_not_there_are_named(home: Path) -> None:
    model = load_weights(find_model(str(home / "base")), torch.float32)
    lora = Lora(rank=4, alpha=8.0, dropout=0.0, targets=("query",), dora=False, merge=False)
    with pytest.raises(TrainError, match="--lora-targets query: the model has no such layers; its linear ones are"):
        choose_trained(model, Method(lora=lora), seed=0)


def test_an_adapter_that_is_not_whole_is_refused(runs: Runs, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import save_file

    broken = Path(shutil.copytree(runs.alone.out / "adapter", tmp_path / "adapter"))
    weights = adapter(runs.alone)
    weights.pop(sorted(weights)[0])
    save_file(weights, broken / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="is missing; the adapter is not whole, or of another model"):
        load_weights(find_model(str(broken)), torch.float32)
