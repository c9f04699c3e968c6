import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.stages.pack import best_fit_decreasing, fit, mixed, pack_examples


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
@given(st.lists(st.integers(1, 64), max_size=200), st.integers(0, 5))
def test_every_example_is_in_exactly_one_pack(lengths, seed):
    keys = mixed(np.arange(len(lengths), dtype=np.uint64), 1)
    packing = pack_examples(np.array(lengths, dtype=np.int64), keys, np.zeros(len(lengths), dtype=np.int64), 64, seed)
    assert sorted(packing.order.tolist()) == list(range(len(lengths)))
    sizes = [
        sum(lengths[i] for i in packing.order[a:b])
        for a, b in zip(packing.pack_bounds[:-1], packing.pack_bounds[1:], strict=True)
    ]
    assert all(0 < size <= 64 for size in sizes)


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
