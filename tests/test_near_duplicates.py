"""Near duplicates: signatures estimate Jaccard similarity, and the first of those that are nearly equal is named."""

import random
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.stages.near_duplicates import NearDuplicates, band_places, signatures
from schemas.errors import InputError

CHINESE = "心里总是觉得空落落的好像做什么都提不起精神朋友们约出去玩也不想动只想一个人待着听音乐看窗外的雨"


def text_of(numbers: list[int]) -> str:
    return " ".join(f"w{number}" for number in numbers)


def edited(text: list[int], share: float, chance: random.Random) -> list[int]:
    return [chance.randrange(10**9) if chance.random() < share else number for number in text]


def jaccard(one: list[int], other: list[int]) -> float:
    sets = [{tuple(text[at : at + 5]) for at in range(len(text) - 4)} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_equal_texts_have_equal_signatures_whatever_their_case_and_punctuation() -> None:
    signed = signatures(["Rinse the rice, then add water.", "rinse THE rice then -- add water", "Rinse the rice."])
    assert signed.shape == (3, 128) and signed.dtype == np.uint16
    assert (signed[0] == signed[1]).all()
    assert (signed[0] == signed[2]).sum() < 8


def test_the_share_of_equal_places_estimates_the_jaccard_similarity() -> None:
    chance = random.Random(1)
    for share in (0.01, 0.03, 0.1):
        pairs = []
        for _ in range(100):
            text = [chance.randrange(10**9) for _ in range(200)]
            pairs.append((text, edited(text, share, chance)))
        one, other = (signatures([text_of(pair[side]) for pair in pairs]) for side in (0, 1))
        errors = (one == other).mean(axis=1) - [jaccard(*pair) for pair in pairs]
        assert abs(errors.mean()) < 0.015 and np.abs(errors).max() < 0.17


def test_a_chinese_text_with_one_character_changed_is_a_near_duplicate() -> None:
    text = CHINESE + "，然后慢慢地睡着了，第二天醒来又是新的一天，可是心情并没有变好。"
    changed = text.replace("音乐", "音月")
    other = "春江潮水连海平，海上明月共潮生。滟滟随波千万里，何处春江无月明。江流宛转绕芳甸，月照花林皆似霰。"
    found = NearDuplicates(0.8).first_of(signatures([text, other, changed]))
    assert found.tolist() == [-1, -1, 0]


def test_the_first_that_is_nearly_equal_is_named_and_a_duplicate_stands_for_nothing() -> None:
    base = np.arange(128, dtype=np.uint16)
    near, nearer_to_near = base.copy(), base.copy()
    near[:20] += 1000  # 108 of 128 places equal
    nearer_to_near[:20] += 1000
    nearer_to_near[20:40] += 1000  # 88 equal to the first, 108 to the second
    found = NearDuplicates(0.8).first_of(np.stack([base, near, nearer_to_near, near, nearer_to_near]))
    assert found.tolist() == [-1, 0, -1, 0, 2]


def test_numbers_count_over_all_calls() -> None:
    seen = NearDuplicates(0.9)
    signed = signatures(["one two three four five six", "seven eight nine ten eleven twelve"])
    assert seen.first_of(signed).tolist() == [-1, -1]
    assert seen.first_of(signed[:0]).tolist() == []
    assert seen.first_of(signed[::-1]).tolist() == [1, 0]


def test_texts_without_words_are_nobodys_duplicates() -> None:
    signed = signatures(["", "…！", "👍", "ok"])
    assert (signed[:3] == 0xFFFF).all()
    assert NearDuplicates(0.7).first_of(np.concatenate((signed, signed))).tolist() == [-1] * 7 + [3]


@pytest.mark.parametrize(("threshold", "places"), [(0.5, 3), (0.7, 4), (0.8, 6), (0.9, 9), (1.0, 128)])
def test_bands_find_nearly_all_pairs_at_the_threshold(threshold: float, places: int) -> None:
    assert band_places(threshold) == places
    assert 1 - (1 - threshold**places) ** (128 // places) >= 0.995


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 30), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_the_result_does_not_depend_on_batches(seed: int, cuts: list[int]) -> None:
    chance = np.random.default_rng(seed)
    rows = chance.integers(0, 1 << 16, (40, 128), dtype=np.uint16)[chance.integers(0, 40, 300)]
    rows = np.where(chance.random(rows.shape) < chance.choice([0.0, 0.1, 0.2, 0.3], (300, 1)), rows + 1, rows)
    rows = rows.astype(np.uint16)
    whole = NearDuplicates(0.8).first_of(rows)
    bounds = [0, *sorted(cuts), 300]
    piecewise = NearDuplicates(0.8)
    parts = [piecewise.first_of(rows[start:stop]) for start, stop in pairwise(bounds)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert whole.tolist() == one_by_one(rows, 0.8)


def one_by_one(rows: np.ndarray, threshold: float) -> list[int]:
    """The same found slowly: each row beside each kept one that shares a band of six places with it."""
    kept: list[int] = []
    firsts = []
    for number, row in enumerate(rows):
        bands = row[:126].reshape(21, 6)
        found = -1
        for earlier in kept:
            banded = (rows[earlier][:126].reshape(21, 6) == bands).all(axis=1).any()
            if banded and (rows[earlier] == row).mean() >= threshold:
                found = earlier
                break
        firsts.append(found)
        if found < 0:
            kept.append(number)
    return firsts


def test_many_equal_texts_and_many_batches_are_joined() -> None:
    chance = np.random.default_rng(0)
    rows = chance.integers(0, 1 << 16, (9000, 128), dtype=np.uint16)
    seen = NearDuplicates(0.8)
    assert (seen.first_of(rows) == -1).all()
    assert seen.first_of(rows).tolist() == list(range(9000))
    assert (seen.first_of(np.repeat(rows[:1], 5000, axis=0)) == 0).all()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(InputError, match=r"rensa, which isn't here: pip install 'rensa>=0.5,<1'"):
        signatures(["one two three"])
