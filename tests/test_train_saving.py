"""Checkpoints written while training goes on: the copy is the state as it was, and a failure is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed

from schemas.errors import TrainError
from train.background import Background
from train.checkpoint import Checkpoint, newest_checkpoint
from train.launch import Ranks
from train.saving import WRITTEN, Saver
from train.snapshot import has_room, num_bytes, snapshot

ALONE = Ranks(rank=0, local_rank=0, num_ranks=1, device=torch.device("cpu"))


class Engine:
    """What a saver uses of DeepSpeed's engine; its own `save` is never to be called."""

    def __init__(self) -> None:
        self.module = torch.nn.Linear(3, 2)
        self.checkpoint_engine: Any = type("", (), {"save": None})()

    def save_checkpoint(self, folder: str, tag: str, *, save_latest: bool, exclude_frozen_parameters: bool) -> None:
        assert not save_latest
        assert exclude_frozen_parameters
        (Path(folder) / tag).mkdir()
        self.checkpoint_engine.save({"module": self.module.state_dict()}, f"{folder}/{tag}/weights.pt")


@pytest.fixture
def group(tmp_path: Path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        epoch=0,
        packs_consumed=step,
        num_ranks=1,
        zero=1,
        seconds=1.5,
        evals=[(0, 2.0)],
        options={},
        fingerprint="",
    )


def test_a_copy_shares_memory_as_the_state_does_and_stays_as_it_was():
    whole = torch.arange(10.0)
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    state = {"views": [whole[:4], whole[4:].view(2, 3).T], "own": (parameter, 7), "step": torch.tensor(3)}
    copied = snapshot(state)
    whole.zero_()
    state["step"] += 1
    one, other = copied["views"]
    assert one.tolist() == [0, 1, 2, 3]
    assert other.tolist() == [[4, 7], [5, 8], [6, 9]]
    assert one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    assert copied["step"].item() == 3
    assert copied["own"][0].requires_grad and copied["own"][1] == 7
    assert num_bytes(state) == num_bytes(copied) == 40 + 16 + 8


def test_room_is_shared_out_among_the_ranks_of_a_machine(monkeypatch):
    assert has_room(1 << 20)
    assert not has_room(1 << 50)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(1 << 30))
    assert not has_room(1 << 20)


@pytest.mark.parametrize("ranks_here", [1, 1 << 30], ids=["room", "no-room"])
def test_a_checkpoint_holds_the_weights_of_its_step_and_the_newest_stay(tmp_path, group, monkeypatch, ranks_here):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks_here))
    engine, background = Engine(), Background(ALONE)
    saver = Saver(tmp_path, ALONE, 2, background)
    expected = {}
    for step in (1, 2, 3):
        expected[step] = engine.module.weight.detach().clone()
        saver.save(engine, checkpoint(step))
        with torch.no_grad():
            engine.module.weight += 1
    background.finish()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000002", "step-000003"]
    for step in (2, 3):
        loaded = torch.load(tmp_path / "checkpoints" / f"step-{step:06d}" / "state" / "weights.pt")
        assert torch.equal(loaded["module"]["weight"], expected[step])
    assert newest_checkpoint(tmp_path) == (checkpoint(3), [])


def test_what_cannot_be_written_is_told_at_the_next_step_and_has_no_name(tmp_path, group, monkeypatch):
    def full(state: Any, path: Path) -> None:
        raise OSError(28, "No space left on device")

    engine, background = Engine(), Background(ALONE)
    saver = Saver(tmp_path, ALONE, 2, background)
    saver.save(engine, checkpoint(1))
    background.finish()
    monkeypatch.setattr(torch, "save", full)
    saver.save(engine, checkpoint(2))
    background.join()
    with pytest.raises(TrainError, match="step-000002: the checkpoint can't be written: No space left on device; free"):
        background.check()
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 1


def test_one_rank_that_cannot_write_keeps_the_checkpoint_from_its_name(tmp_path, group):
    """The word of the other rank is there before the first has written."""
    two = Ranks(rank=0, local_rank=0, num_ranks=2, device=ALONE.device)
    engine, background = Engine(), Background(two)
    saver = Saver(tmp_path, two, 2, background)
    written = Engine.save_checkpoint

    def with_word(self: Engine, folder: str, tag: str, **choices: bool) -> None:
        written(self, folder, tag, **choices)
        (Path(folder) / WRITTEN.format(1)).write_text('{"error": "Read-only file system"}', encoding="utf-8")

    engine.save_checkpoint = with_word.__get__(engine)  # type: ignore[method-assign]
    saver.save(engine, checkpoint(1))
    with pytest.raises(TrainError, match="the checkpoint can't be written: Read-only file system"):
        background.finish()
    assert newest_checkpoint(tmp_path) == (None, [])
