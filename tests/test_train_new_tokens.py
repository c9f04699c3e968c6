"""Tokens that were added to a model's tokenizer get embeddings, are trained, and leave with the model."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import Example, chat_examples, packed, tiny_model_dir, write_shards

from train.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A model whose tokenizer has two tokens more than it has embeddings, and shards that use them."""
    from transformers import AutoTokenizer

    home = tmp_path_factory.mktemp("new-tokens")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir)
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.add_tokens(["<mood>", "</mood>"]) == 2
    tokenizer.save_pretrained(model)
    first, last = tokenizer.convert_tokens_to_ids(["<mood>", "</mood>"])
    examples = [
        Example(ids=[first, *each.ids, last], targets=[False, *each.targets, True])
        for each in chat_examples(tiny_tokenizer_dir, 8)
    ]
    write_shards(home / "cache", model, str(model), packed(examples, 96))
    return home


@pytest.mark.parametrize(
    "flags", [["--zero", "1"], pytest.param(["--zero", "3", "--procs", "2"], marks=pytest.mark.long)]
)
def test_embeddings_grow_to_a_multiple_of_64_and_are_exported(home: Path, tmp_path: Path, flags: list[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    command = [sys.executable, "-m", "train.cli", "run", "--shards", str(home / "cache"), "--out", str(tmp_path / "o")]
    command += ["--steps", "2", "--batch-packs", "2", "--learning-rate", "1e-3", "--save-every", "0", *flags]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    base = AutoModelForCausalLM.from_pretrained(home / "base")
    old = base.config.vocab_size
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "o" / "model")
    rows = -(-(old + 2) // 64) * 64
    assert f"vocabulary {rows - old} more embeddings, for tokens that were added to the tokenizer\n" in done.stdout
    assert model.config.vocab_size == rows
    assert model.get_input_embeddings().weight.shape == model.get_output_embeddings().weight.shape == (rows, 64)
    assert "<mood>" in AutoTokenizer.from_pretrained(tmp_path / "o" / "model").get_vocab()
    moved = (model.get_input_embeddings().weight[:old] - base.get_input_embeddings().weight).abs().max()
    assert 0 < moved < 0.1


def test_adapters_can_not_learn_new_tokens(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--shards", str(home / "cache"), "--gpus", "1xH100-80G", "--lora"]
    assert main(command) == 1
    assert "the embeddings of the new ones must be trained; leave --lora, --dora and --freeze out" in (
        capsys.readouterr().err
    )
