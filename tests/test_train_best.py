"""The best model of a run: as it was when it was the best, on disk before any checkpoint that knows of it."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from schemas.errors import TrainError
from train.background import Background
from train.best import Best
from train.hub import find_model
from train.launch import Ranks
from train.load import open_shards
from train.model import load_weights

ALONE = Ranks(rank=0, local_rank=0, num_ranks=1, device=torch.device("cpu"))


@pytest.fixture
def group(tmp_path: Path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def made(tmp_path: Path, tokenizer: Path, background: Background) -> tuple[Best, Any]:
    """A run's best model to be, and the engine it is taken from."""
    base = tiny_model_dir(tmp_path / "base", tokenizer, tied=True)
    shards = write_shards(tmp_path / "cache", tokenizer, str(base), packed(chat_examples(tokenizer, 9), 128))
    files = find_model(str(base))
    inner = SimpleNamespace(module=load_weights(files, torch.float32), empty_partition_cache=lambda: None)
    best = Best(tmp_path / "best", files, open_shards(shards), ALONE, background)
    return best, SimpleNamespace(deepspeed=inner)


def test_jobs_are_done_in_their_order_and_none_behind_one_that_failed(group):
    background, may_go, done = Background(ALONE), threading.Event(), []

    def first() -> None:
        may_go.wait()
        done.append("first")

    def second() -> None:
        done.append("second")
        raise OSError(28, "No space left on device")

    background.begin(first)
    background.begin(None)
    background.begin(second)
    background.begin(lambda: done.append("third"))
    background.check()
    may_go.set()
    with pytest.raises(TrainError, match="No space left on device"):
        background.finish()
    assert done == ["first", "second"]


def test_the_best_model_is_as_it_was_then_and_takes_the_place_of_the_one_before(tmp_path, tiny_tokenizer_dir, group):
    background = Background(ALONE)
    best, engine = made(tmp_path, tiny_tokenizer_dir, background)
    weight = engine.deepspeed.module.model.norm.weight
    for step, loss in ((4, 2.5), (8, 2.0)):
        with torch.no_grad():
            weight.fill_(step)
        best.keep(engine, step, loss, is_adapter=False)
        with torch.no_grad():
            weight.fill_(-1)
    background.finish()
    [folder] = (tmp_path / "best").iterdir()
    assert folder.name == "step-000008"
    assert json.loads((folder / "evaluation.json").read_text(encoding="utf-8")) == {"step": 8, "eval_loss": 2.0}
    assert load_weights(find_model(str(folder)), torch.float32).model.norm.weight.unique().tolist() == [8]
    assert best.unless(2.1) == folder
    assert best.unless(2.0) is None
    assert best.unless(None) is None


def test_a_best_model_that_cannot_be_written_is_told_and_leaves_the_one_before(tmp_path, tiny_tokenizer_dir, group):
    background, done = Background(ALONE), []
    best, engine = made(tmp_path, tiny_tokenizer_dir, background)
    best.keep(engine, 4, 2.5, is_adapter=False)
    background.finish()
    engine.deepspeed.module.save_pretrained = _full
    best.keep(engine, 8, 2.0, is_adapter=False)
    background.begin(lambda: done.append("checkpoint of step 8"))
    with pytest.raises(TrainError, match="step-000008: the model can't be written: No space left on device"):
        background.finish()
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["step-000004"]
    assert done == []


def _full(folder: Path, **_: Any) -> None:
    raise OSError(28, "No space left on device")
