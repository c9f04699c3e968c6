"""Which packs go where, and how they are laid in a row."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import Example, write_shards

from train.batch import Ahead, PackCost, Plan, collate, deal, pack_order
from train.load import Packs, open_shards

PACKS = [
    [Example(ids=[5, 6, 7], targets=[False, True, True]), Example(ids=[8, 9], targets=[False, True])],
    [Example(ids=[4, 3], targets=[False, False])],
    [Example(ids=[10, 11, 12, 13], targets=[False, False, False, True])],
]

TOKENS = PackCost(a_token=1.0, a_target=0.0, a_square=0.0)
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
    assert empty.input_ids.tolist() == collate(packs, [0]).input_ids.tolist()
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
    plan = Plan(num_packs=3, batch_packs=3, micro_packs=1, num_ranks=1, cost=TOKENS)
    step = plan.step(0, 0, packs, np.array([2, 0, 1]))
    assert step.packs == (2, 0, 1)
    assert step.micro_batches == ((2,), (0,), (1,))  # the order's first pack is first, then the longest
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


def test_packs_are_dealt_by_cost_and_what_is_left_over_is_empty() -> None:
    assert deal([9, 1, 8, 2, 5, 6], 2, 1, 3) == [[[0], [4], [3]], [[2], [5], [1]]]
    assert deal([4, 3, 2, 1], 2, 2, 1) == [[[0, 3]], [[1, 2]]]
    assert deal([1, 2, 3], 2, 1, 2) == [[[0], [1]], [[], [2]]]
    assert deal([7, 7], 3, 1, 2) == [[[0], []], [[1], []], [[], []]]


@pytest.mark.parametrize("num_ranks", [2, 4, 8])
@pytest.mark.parametrize("micro_packs", [1, 2, 3])
def test_ranks_get_about_as_much_work_in_each_micro_step_and_together(num_ranks: int, micro_packs: int) -> None:
    drawn = np.random.default_rng(num_ranks)
    for _ in range(50):
        num_packs = int(drawn.integers(1, 100))
        costs = drawn.lognormal(0, 0.8, num_packs).tolist()
        num_micro_steps = -(-num_packs // (num_ranks * micro_packs)) + int(drawn.integers(2))
        dealt = deal(costs, num_ranks, micro_packs, num_micro_steps)
        assert sorted(place for rank in dealt for micro in rank for place in micro) == list(range(num_packs))
        assert all(len(rank) == num_micro_steps for rank in dealt)
        assert all(len(micro) <= micro_packs for rank in dealt for micro in rank)
        assert 0 in {place for rank in dealt for place in rank[0]}
        loads = np.array([[sum(costs[place] for place in micro) for micro in rank] for rank in dealt])
        assert np.ptp(loads.sum(axis=1)) <= max(costs) * (1 + 1e-12)
        together = [sorted(costs[place] for rank in dealt for place in rank[micro]) for micro in range(num_micro_steps)]
        for micro, own in enumerate(together):
            assert np.ptp(loads[:, micro]) <= max(own, default=0) * (1 + 1e-12)
        falling = sorted(((own[0], own[-1]) for own in together if own), reverse=True)
        assert all(least >= most for (least, _), (_, most) in itertools.pairwise(falling))


def test_a_pack_costs_what_its_tokens_targets_and_attention_do(packs: Packs) -> None:
    cost = PackCost(a_token=100.0, a_target=10.0, a_square=1.0)
    assert cost.of(packs, np.array([2, 0])).tolist() == [400 + 10 + 16, 500 + 30 + 9 + 4]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("micro_packs", [1, 2])
def test_every_pack_is_seen_once_an_epoch_in_the_same_step_at_any_number_of_ranks(
    packs: Packs, num_ranks: int, micro_packs: int
) -> None:
    plan = Plan(num_packs=3, batch_packs=2, micro_packs=micro_packs, num_ranks=num_ranks, cost=TOKENS)
    order = pack_order(3, seed=0, epoch=0)
    assert plan.steps_an_epoch == 2
    for index, expected in ((0, order[:2]), (1, order[2:]), (2, order[:2])):
        steps = [plan.step(index, rank, packs, order) for rank in range(num_ranks)]
        seen = [pack for step in steps for micro_batch in step.micro_batches for pack in micro_batch]
        assert sorted(seen) == sorted(expected.tolist())
        assert len({len(step.micro_batches) for step in steps}) == 1
        assert {step.num_targets for step in steps} == {sum([3, 0, 1][pack] for pack in seen)}
        assert steps[0].epoch == index // 2
