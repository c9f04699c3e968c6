"""The folder that a run leaves: its dtype, where a turn ends, and nothing half-written."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_model import tiny_model_dir

from schemas.errors import TrainError
from train.export import export_model, turn_end_id
from train.launch import Ranks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ALONE = Ranks(rank=0, local_rank=0, num_ranks=1, device=torch.device("cpu"))


def test_a_half_precision_base_stays_so_whatever_it_was_trained_in(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = tiny_model_dir(tmp_path / "base", tiny_tokenizer_dir, tied=True)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    engine = SimpleNamespace(module=model)
    for dtype, expected in ((torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32), (None, torch.float32)):
        out = tmp_path / str(dtype)
        export_model(engine, out, tiny_tokenizer_dir, dtype, ALONE)
        loaded = AutoModelForCausalLM.from_pretrained(out)
        assert loaded.dtype == expected
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.to(expected))
        assert {path.stat().st_mode for path in out.iterdir()} == {(out / "config.json").stat().st_mode}


def test_a_folder_that_cannot_be_finished_is_not_there(tmp_path: Path, tiny_tokenizer_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir(tmp_path / "base", tiny_tokenizer_dir))
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "precious").touch()
    with pytest.raises(TrainError, match="the model can't be written"):
        export_model(SimpleNamespace(module=model), tmp_path / "run" / "model", tiny_tokenizer_dir, None, ALONE)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "run" / "model").iterdir()] == ["precious"]


def test_the_end_of_a_turn_is_read_off_the_chat_template(tiny_tokenizer_dir: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    assert turn_end_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}<|endoftext|>{% endfor %}"
    assert turn_end_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.chat_template = None
    assert turn_end_id(tokenizer) is None
