"""Which packs go where, and how they are laid in a row."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import Example, write_shards

from train.batch import Ahead, Plan, collate, deal, pack_order
from train.load import Packs, open_shards

PACKS = [
    [Example(ids=[5, 6, 7], targets=[False, True, True]), Example(ids=[8, 9], targets=[False, True])],
    [Example(ids=[4, 3], targets=[False, False])],
    [Example(ids=[10, 11, 12, 13], targets=[False, False, False, True])],
]

GOLDEN_ORDER = [4, 0, 1, 7, 6, 2, 5, 3]


@pytest.fixture
def packs(tmp_path: Path, tiny_tokenizer_dir: Path) -> Packs:
    cache = write_shards(tmp_path / "cache", tiny_tokenizer_dir, "none", PACKS, shard_packs=2)
    return open_shards(cache).train


def test_packs_are_read_in_the_order_of_the_shards(packs: Packs) -> None:
    assert len(packs) == 3
    assert [packs[index].input_ids.tolist() for index in range(3)] == [[5, 6, 7, 8, 9], [4, 3], [10, 11, 12, 13]]
    assert packs[0].is_target.tolist() == [False, True, True, False, True]
    assert packs[0].seq_lengths.tolist() == [3, 2]
    assert packs.num_targets.tolist() == [3, 0, 1]
    assert packs.num_tokens.tolist() == [5, 2, 4]
    assert packs.largest_id() == 13


def test_a_pack_is_a_view_of_the_mapped_file(packs: Packs) -> None:
    assert not packs[0].input_ids.flags.owndata
    assert not packs[0].input_ids.flags.writeable


def test_packs_are_laid_in_one_row_with_positions_that_start_over(packs: Packs) -> None:
    batch = collate(packs, [0, 2])
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 13]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch.cu_seqlens.tolist() == [0, 3, 5, 9]
    assert batch.seq_lengths == (3, 2, 4)


def test_each_target_is_predicted_one_place_before_it_in_its_own_example(packs: Packs) -> None:
    batch = collate(packs, [0, 2])
    assert batch.labels.tolist() == [6, 7, 9, 13]
    assert batch.predicting.tolist() == [0, 1, 3, 7]
    assert batch.num_targets == 4


def test_a_batch_without_targets_counts_nothing(packs: Packs) -> None:
    assert collate(packs, [1]).labels.tolist() == [-100]
    empty = collate(packs, [])
    assert empty.input_ids.tolist() == [[0]]
    assert empty.labels.tolist() == [-100]
    assert empty.num_targets == 0


def test_the_order_of_packs_is_fixed_for_ever() -> None:
    assert pack_order(8, seed=0, epoch=0).tolist() == GOLDEN_ORDER
    assert pack_order(8, seed=0, epoch=1).tolist() != GOLDEN_ORDER
    assert pack_order(8, seed=1, epoch=0).tolist() != GOLDEN_ORDER


def test_the_heaviest_pack_goes_first_in_the_first_epoch_only(packs: Packs) -> None:
    order = [index for index in GOLDEN_ORDER if index != 5]
    assert pack_order(8, seed=0, epoch=0, heaviest=5).tolist() == [5, *order]
    assert pack_order(8, seed=0, epoch=1, heaviest=5).tolist() == pack_order(8, seed=0, epoch=1).tolist()
    heaviest = packs.heaviest
    assert packs.num_tokens[heaviest] == max(packs.num_tokens)


def test_batches_made_ahead_come_in_the_order_they_were_asked_for(packs: Packs) -> None:
    plan = Plan(num_packs=3, batch_packs=3, micro_packs=1, num_ranks=1)
    step = plan.step(0, 0, packs, np.array([2, 0, 1]))
    ahead = Ahead(packs, torch.device("cpu"))
    ahead.ask(step)
    for index in (2, 0, 1):
        assert ahead.take().input_ids.tolist() == collate(packs, [index]).input_ids.tolist()
    assert ahead.take_waited() >= 0.0
    assert ahead.take_waited() == 0.0
    ahead.close()
    lengths = [packs[index].seq_lengths.astype(int) for index in range(3)]
    assert packs.squares.tolist() == [int((each**2).sum()) for each in lengths]
    assert step.squares == sum(packs.squares.tolist())


def test_the_order_mixes_evenly() -> None:
    order = pack_order(10_000, seed=3, epoch=2)
    assert sorted(order.tolist()) == list(range(10_000))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05


def test_packs_are_dealt_in_turn_and_what_is_left_over_is_empty() -> None:
    assert deal(range(7), 0, 2, 2, 2) == ((0, 1), (4, 5))
    assert deal(range(7), 1, 2, 2, 2) == ((2, 3), (6,))
    assert deal(range(2), 2, 3, 1, 2) == ((), ())


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("micro_packs", [1, 2])
def test_every_pack_is_seen_once_an_epoch_in_the_same_step_at_any_number_of_ranks(
    packs: Packs, num_ranks: int, micro_packs: int
) -> None:
    plan = Plan(num_packs=3, batch_packs=2, micro_packs=micro_packs, num_ranks=num_ranks)
    order = pack_order(3, seed=0, epoch=0)
    assert plan.steps_an_epoch == 2
    for index, expected in ((0, order[:2]), (1, order[2:]), (2, order[:2])):
        steps = [plan.step(index, rank, packs, order) for rank in range(num_ranks)]
        seen = [pack for step in steps for micro_batch in step.micro_batches for pack in micro_batch]
        assert sorted(seen) == sorted(expected.tolist())
        assert len({len(step.micro_batches) for step in steps}) == 1
        assert {step.num_targets for step in steps} == {sum([3, 0, 1][pack] for pack in seen)}
        assert steps[0].epoch == index // 2
