import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.stages.best_fit import best_fit, best_fit_decreasing
from dataprep.stages.pack import Packing, fit, mixed, pack_examples

PACKS = ("best-fit", "sequential", "none")


def chat_like(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).lognormal(np.log(640) - 0.32, 0.8, count)
    return np.clip(np.round(drawn), 8, 4_096).astype(np.int64)


def pack(lengths: list[int], copies: list[int], how: str) -> Packing:
    keys = np.zeros(len(lengths), dtype=np.uint64)
    return pack_examples(np.array(lengths), keys, np.array(copies), 10, 0, how)


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Best fit decreasing as the textbook has it: each item into the fullest bin that holds it."""
    bins, rooms = [0] * len(lengths), []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [b for b, room in enumerate(rooms) if room >= lengths[item]]
        chosen = min(fitting, key=lambda b: rooms[b]) if fitting else len(rooms)
        if chosen == len(rooms):
            rooms.append(capacity)
        rooms[chosen] -= lengths[item]
        bins[item] = chosen
    return bins


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=120), st.integers(50, 90))
def test_grouped_packing_fills_bins_as_one_by_one_does(lengths, capacity):
    bins = best_fit_decreasing(np.array(lengths, dtype=np.int64), capacity)
    expected = one_by_one(lengths, capacity)
    assert len(set(bins.tolist())) == len(set(expected))
    loads = np.bincount(bins, weights=lengths) if lengths else np.zeros(0)
    assert sorted(loads.tolist()) == sorted(np.bincount(expected, weights=lengths).tolist() if lengths else [])
    assert all(load <= capacity for load in loads)


@settings(deadline=None)
@given(st.lists(st.integers(1, 64), max_size=200), st.integers(0, 5), st.sampled_from(PACKS))
def test_every_example_is_in_exactly_one_pack(lengths, seed, pack):
    keys = mixed(np.arange(len(lengths), dtype=np.uint64), 1)
    once = np.zeros(len(lengths), dtype=np.int64)
    packing = pack_examples(np.array(lengths, dtype=np.int64), keys, once, 64, seed, pack)
    assert sorted(packing.order.tolist()) == list(range(len(lengths)))
    assert packing.pack_bounds.tolist()[0] == 0
    assert packing.pack_bounds.tolist()[-1] == len(lengths)
    assert all(
        0 < size <= 64 for size in np.diff(np.cumsum([0, *np.array(lengths)[packing.order]])[packing.pack_bounds])
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=150), st.integers(40, 90), st.integers(1, 3))
def test_even_packs_hold_every_item_once_and_never_a_copy_beside_its_like(lengths, capacity, times):
    tiled, copies = np.tile(np.array(lengths, dtype=np.int64), times), np.repeat(np.arange(times), len(lengths))
    bins, num_bins = best_fit(tiled, capacity, copies)
    assert np.unique(bins).tolist() == list(range(num_bins))
    assert np.bincount(bins, weights=tiled).max() <= capacity
    assert all(len(set(own)) == times for own in bins.reshape(times, -1).T.tolist())
    assert num_bins <= 1.001 * (best_fit_decreasing(tiled, capacity, copies).max() + 1)


def test_packs_are_full_and_about_even_in_what_attention_costs():
    lengths = chat_like(30_000)
    bins, num_bins = best_fit(lengths, 8_192)
    cost = np.bincount(bins, weights=lengths**2)
    tight = np.bincount(best_fit_decreasing(lengths, 8_192), weights=lengths**2)
    assert lengths.sum() / (num_bins * 8_192) > 0.999
    assert np.percentile(cost, 95) / np.percentile(cost, 5) < 2.5
    assert np.percentile(tight, 95) / np.percentile(tight, 5) > 10


def test_what_stands_in_one_pack_comes_from_all_over_the_corpus():
    lengths = chat_like(30_000)
    keys = mixed(np.arange(len(lengths), dtype=np.uint64), 0)
    packing = pack_examples(lengths, keys, np.zeros(len(lengths), dtype=np.int64), 4_096, 0)
    pack = np.repeat(np.arange(len(packing.pack_bounds) - 1), np.diff(packing.pack_bounds))
    apart = np.abs(np.diff(packing.order))[np.diff(pack) == 0] / len(lengths)
    assert 0.27 < np.median(apart) < 0.31  # of two places drawn at random: 1 - sqrt(1/2) = 0.293
    assert np.mean(apart < 0.01) < 0.025  # 0.0199


def test_sequential_packs_keep_the_order_and_begin_anew_where_the_next_does_not_fit():
    packing = pack(lengths=[4, 3, 3, 9, 1, 10], copies=[0, 0, 0, 0, 0, 0], how="sequential")
    assert (packing.order.tolist(), packing.pack_bounds.tolist()) == ([0, 1, 2, 3, 4, 5], [0, 3, 5, 6])


def test_second_copies_come_behind_all_first_ones_where_the_order_is_kept():
    packing = pack(lengths=[4, 4, 3, 3], copies=[0, 1, 0, 1], how="sequential")
    assert (packing.order.tolist(), packing.pack_bounds.tolist()) == ([0, 2, 1, 3], [0, 2, 4])


def test_without_packing_each_example_is_a_pack():
    packing = pack(lengths=[4, 3, 3], copies=[0, 0, 0], how="none")
    assert (packing.order.tolist(), packing.pack_bounds.tolist()) == ([0, 1, 2], [0, 1, 2, 3])


def test_scrambled_keys_are_the_published_splitmix64():
    assert mixed(np.array([0], dtype=np.uint64), 0).tolist() == [0xE220A8397B1DCDAF]


def test_another_seed_gives_another_order():
    lengths = np.full(40, 10)
    keys, once = np.arange(40, dtype=np.uint64), np.zeros(40, dtype=np.int64)
    orders = [pack_examples(lengths, mixed(keys, seed), once, 64, seed).order.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


STARTS, ENDS = [0, 12, 22], [10, 20, 40]
TARGETS = np.ones(40, dtype=bool)


@pytest.mark.parametrize(
    ("seq_len", "overflow", "spans"),
    [
        (25, "cut", [(0, 20)]),
        (15, "cut", [(0, 10)]),
        (9, "cut", []),
        (25, "drop", []),
        (20, "split", [(0, 20), (22, 40)]),
        (30, "split", [(0, 20), (22, 40)]),
        (12, "split", [(0, 10), (12, 20)]),
    ],
)
def test_long_conversations_are_divided_at_turns(seq_len, overflow, spans):
    assert fit(40, STARTS, ENDS, TARGETS, seq_len, overflow) == spans


def test_a_document_is_divided_anywhere_and_never_into_a_single_token():
    assert fit(21, [], [], np.ones(21, dtype=bool), 10, "cut") == [(0, 10), (10, 20)]
    assert fit(21, [], [], np.ones(21, dtype=bool), 10, "drop") == []


def test_a_span_without_targets_is_left_out():
    targets = np.zeros(40, dtype=bool)
    targets[25] = True
    assert fit(40, STARTS, ENDS, targets, 20, "split") == [(22, 40)]
    assert fit(40, STARTS, ENDS, targets, 20, "cut") == []


def test_a_token_that_ends_a_turn_and_begins_the_next_message_is_in_one_span_only():
    targets = np.array([False, False, True, True, True, False, True, True])
    assert fit(8, [0, 4], [5, 8], targets, 5, "split") == [(0, 4), (4, 8)]
    assert fit(8, [0, 4], [5, 8], targets, 5, "cut") == [(0, 5)]
