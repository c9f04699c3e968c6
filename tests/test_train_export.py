"""The folder that a run leaves: its dtype, where a turn ends, nothing half-written, and nothing unlike its base."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import ModelError, TrainError
from train.export import export, take, turn_end_id
from train.hub import ModelFiles, find_model
from train.launch import Ranks
from train.load import Shards, open_shards
from train.model import load_weights
from train.proof import ExportProof, prove_export, shortest_answer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ALONE = Ranks(rank=0, local_rank=0, num_ranks=1, device=torch.device("cpu"))


def made(home: Path, tokenizer: Path, dtype: torch.dtype = torch.float32) -> tuple[ModelFiles, Shards]:
    """A tied base in `dtype`, and shards for it."""
    from transformers import AutoModelForCausalLM

    base = tiny_model_dir(home / "base", tokenizer, tied=True)
    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(base)
    packs = packed(chat_examples(tokenizer, 9), 128)
    return find_model(str(base)), open_shards(write_shards(home / "cache", tokenizer, str(base), packs))


def exported(model: Any, out: Path, base: ModelFiles, shards: Shards) -> ExportProof:
    engine = SimpleNamespace(module=model, empty_partition_cache=lambda: None)
    return export(take(engine, base, ALONE, is_adapter=False), out, shards.tokenizer, base, shards)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_half_precision_base_stays_so_whatever_it_was_trained_in(
    tmp_path: Path, tiny_tokenizer_dir: Path, dtype: torch.dtype
) -> None:
    from transformers import AutoModelForCausalLM

    base, shards = made(tmp_path, tiny_tokenizer_dir, dtype)
    model = load_weights(base, torch.float32)
    out = tmp_path / "out"
    proof = exported(model, out, base, shards)
    assert (proof.weights, proof.tied, proof.ends_turn) == (24, True, False)
    assert proof.line() == (
        f"24 weights in {str(dtype)[6:]} as in the base, all finite, tied, loads again, "
        "does not end its turn on a training prompt"
    )
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == dtype
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.to(dtype))
    assert {path.stat().st_mode for path in out.iterdir()} == {(out / "config.json").stat().st_mode}


def test_a_folder_that_cannot_be_finished_is_not_there(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    base, shards = made(tmp_path, tiny_tokenizer_dir)
    model = load_weights(base, torch.float32)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "precious").touch()
    with pytest.raises(TrainError, match="the model can't be written"):
        exported(model, tmp_path / "run" / "model", base, shards)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "run" / "model").iterdir()] == ["precious"]


def test_what_does_not_pass_its_check_does_not_get_its_name(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    base, shards = made(tmp_path, tiny_tokenizer_dir)
    model = load_weights(base, torch.float32)
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    (tmp_path / "run").mkdir()
    with pytest.raises(TrainError, match=r"layers.1.mlp.up_proj.weight holds values that are no numbers") as caught:
        exported(model, tmp_path / "run" / "model", base, shards)
    assert f"{tmp_path / 'run' / 'model-refused'}: model.layers.1" in str(caught.value)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model-refused"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "weights are missing, model.norm.weight first"),
        ("shape", "model.norm.weight is [63], in the base model [64]"),
        ("extra", "model.extra is not in the base model"),
        ("dtype", "its weights are {torch.float16}, they should be torch.float32"),
        ("template", "its chat template is not the shards'"),
        ("tokenizer", "holds no tokenizer"),
    ],
)
def test_a_folder_that_is_not_as_its_base_is_refused(
    tmp_path: Path, tiny_tokenizer_dir: Path, change: str, message: str
) -> None:
    from safetensors.torch import load_file, save_file

    base, shards = made(tmp_path, tiny_tokenizer_dir)
    folder = Path(shutil.copytree(base.folder, tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    assert prove_export(folder, base, shards).weights == 24
    if change == "missing":
        del weights["model.norm.weight"]
    elif change == "shape":
        weights["model.norm.weight"] = torch.ones(63)
    elif change == "extra":
        weights["model.extra"] = torch.ones(1)
    elif change == "dtype":
        weights = {name: weight.half() for name, weight in weights.items()}
    elif change == "template":
        (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    else:
        (folder / "tokenizer_config.json").unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=re.escape(message)):
        prove_export(folder, base, shards)


def test_the_prompt_to_try_is_that_with_the_shortest_answer(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    from transformers import AutoTokenizer

    _, shards = made(tmp_path, tiny_tokenizer_dir)
    prompt, length = shortest_answer(shards.train)
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
    assert length == min(sum(example.targets) for example in chat_examples(tiny_tokenizer_dir, 9))


def test_the_end_of_a_turn_is_read_off_the_chat_template(tiny_tokenizer_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    assert turn_end_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}<|endoftext|>{% endfor %}"
    assert turn_end_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.chat_template = None
    assert turn_end_id(tokenizer) is None
