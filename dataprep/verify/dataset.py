"""`dataprep verify --dataset`: what the masks of data that another tool tokenised do to training.

The conversations aren't known; turns are found in the ids by what the model's chat template writes around answers.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.core.progress import progress_bar
from dataprep.template.proof import EMPTY_THOUGHT
from dataprep.template.signs import Ids, Signs, load_signs
from dataprep.verify.findings import Findings
from dataprep.verify.tokenised import TokenisedRow, read_tokenised
from schemas.errors import InputError

_THOUGHT_TOKENS = 16  # an empty think block has no more


def verify_dataset(place: Path, model: str) -> Findings:
    """Look through tokenised rows with a model's tokenizer and template. Raises InputError and ModelError."""
    signs, findings = load_signs(model), Findings()
    with progress_bar(None, " rows", "verify") as bar:
        for row in read_tokenised(place):
            bar.update()
            _look(findings, signs, row)
    if not findings.rows:
        raise InputError(f"--dataset {place}: it holds no rows")
    if findings.answers:  # then rows without are documents
        findings.counts.pop("no assistant header", None)
    return findings


def _look(findings: Findings, signs: Signs, row: TokenisedRow) -> None:
    findings.rows += 1
    findings.tokens += len(row.ids)
    targets = row.targets
    if row.labels is not None and targets.any():
        alignment = _alignment(row.ids, row.labels, targets)
        if alignment:
            findings.note(alignment, signs, row, _first(targets))
        if alignment == "labels are shifted":
            targets = np.concatenate(([False], targets[:-1]))
    findings.targets += int(targets.sum())
    if not targets.any():
        findings.note("no targets", signs, row, 0)
    padding = _padding(signs, row)
    unknown = (row.ids < 0) | (row.ids >= signs.vocab_size)
    checks = {
        "ids outside of the vocabulary": _first(unknown) if unknown.any() else None,
        "padding trained": _first(targets & padding) if (targets & padding).any() else None,
        "bos doubled": 1 if signs.bos is not None and row.ids[:2].tolist() == [signs.bos] * 2 else None,
        "several examples in a row": _contaminated_from(signs, row, padding),
    }
    for what, at in checks.items():
        if at is not None:
            findings.note(what, signs, row, at)
    faults: dict[str, int] = {}
    for what, at in _turn_faults(findings, signs, row.ids, targets & ~padding, padding):
        faults.setdefault(what, at)
    for what, at in faults.items():
        findings.note(what, signs, row, at)


def _first(places: NDArray[np.bool_]) -> int:
    """Where the first true one stands."""
    return int(places.argmax())


def _alignment(ids: NDArray[np.int64], labels: NDArray[np.int64], targets: NDArray[np.bool_]) -> str | None:
    if (labels[targets] == ids[targets]).all():
        return None
    inner = targets[:-1]
    shifted = (labels[:-1][inner] == ids[1:][inner]).all() and inner.sum() >= targets.sum() - 1
    return "labels are shifted" if shifted else "labels aren't the ids"


def _padding(signs: Signs, row: TokenisedRow) -> NDArray[np.bool_]:
    """Tokens that fill the row up: not attended to, or a run of the pad token at an end of the row."""
    if row.attended is not None and not row.attended.all():
        return ~row.attended
    padding = np.zeros(len(row.ids), dtype=bool)
    if signs.pad is None or not len(row.ids):
        return padding
    other = np.flatnonzero(row.ids != signs.pad)
    if not len(other):
        return ~padding
    ends_turns = signs.pad in signs.ends or signs.pad == signs.eos  # then the first of the run is no padding
    padding[: other[0] - ends_turns if other[0] else 0] = True
    padding[other[-1] + 1 + ends_turns :] = True
    return padding


def _contaminated_from(signs: Signs, row: TokenisedRow, padding: NDArray[np.bool_]) -> int | None:
    """Where a second example begins inside the row, if nothing sets it apart."""
    if row.bounded:
        return None
    places = _second_beginnings(signs, row.ids[~padding])
    if not places or (row.positions is not None and (row.positions[~padding][1:] == 0).any()):
        return None
    return int(np.flatnonzero(~padding)[min(places)])


def _second_beginnings(signs: Signs, ids: NDArray[np.int64]) -> list[int]:
    """Where something stands that only begins a dialogue, behind the row's beginning."""
    places = []
    if signs.bos is not None and signs.bos not in signs.ends:
        places += [place for place in np.flatnonzero(ids == signs.bos).tolist() if place > 1]
    if signs.eos is not None and signs.eos not in signs.ends and signs.eos != signs.bos:
        places += [place + 1 for place in np.flatnonzero(ids == signs.eos).tolist() if 0 < place < len(ids) - 1]
    systems = _found(ids, signs.system_header)
    answers = _found(ids, signs.header)
    places += [place for place in systems if answers and place > answers[0]]
    return places


def _found(ids: NDArray[np.int64], wanted: Ids) -> list[int]:
    """Where a sequence of ids begins."""
    if not wanted or len(ids) < len(wanted):
        return []
    found = ids[: len(ids) - len(wanted) + 1] == wanted[0]
    for offset, number in enumerate(wanted[1:], start=1):
        found = found & (ids[offset : len(ids) - len(wanted) + 1 + offset] == number)
    return np.flatnonzero(found).tolist()


def _turn_faults(
    findings: Findings,
    signs: Signs,
    ids: NDArray[np.int64],
    targets: NDArray[np.bool_],
    padding: NDArray[np.bool_],
) -> Iterator[tuple[str, int]]:
    headers = _headers(signs, ids)
    if not headers:
        if signs.header:
            yield "no assistant header", 0
        return
    length = len(ids) - int(padding[len(ids) // 2 :].sum())
    of_turns = np.zeros(len(ids), dtype=bool)
    stop = -1
    for (place, start), (following, _) in pairwise([*headers, (length, length)]):
        continued = place == stop and targets[place - 1 : start].all()  # an answer of several parts writes it itself
        closing = next((i for i in range(start, following) if int(ids[i]) in signs.ends), None)
        stop = following if closing is None else _last_end(signs, ids, closing, following) + 1
        of_turns[place:stop] = True
        findings.answers += 1
        if targets[place:start].any() and not continued:
            yield "targets on headers", place + _first(targets[place:start])
        if following == length and not any(int(number) in signs.stops for number in ids[start:stop]):
            yield "cut off", length - 1
        if not targets[start:stop].any():
            yield "answers without targets", start
            continue
        yield from _answer_faults(findings, signs, ids, targets, (place, start, closing, stop))
        if closing is not None:
            behind = _behind(signs, ids, stop, following)
            of_turns[stop:behind] = True
            if targets[stop:behind].any():
                yield "targets behind the end", stop
    if (targets & ~of_turns).any():
        yield "targets on other text", _first(targets & ~of_turns)


def _headers(signs: Signs, ids: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where what stands before answers begins and ends; of those that overlap, the first."""
    found = sorted(
        (place, place + len(each)) for each in (signs.header, *signs.openings) for place in _found(ids, each)
    )
    headers: list[tuple[int, int]] = []
    for place, start in found:
        if not headers or place >= headers[-1][1]:
            headers.append((place, start))
    return headers


def _last_end(signs: Signs, ids: NDArray[np.int64], closing: int, following: int) -> int:
    """Where the last of an answer's end tokens stands: some templates write several, with blanks between."""
    while True:
        place = _behind(signs, ids, closing + 1, following)
        if place >= following or int(ids[place]) not in signs.ends:
            return closing
        closing = place


def _answer_faults(
    findings: Findings,
    signs: Signs,
    ids: NDArray[np.int64],
    targets: NDArray[np.bool_],
    turn: tuple[int, int, int | None, int],
) -> Iterator[tuple[str, int]]:
    place, start, closing, stop = turn
    findings.trained += 1
    stops = [i for i in range(closing or stop, stop) if int(ids[i]) in signs.stops]
    if closing is None or targets[stops or slice(closing, stop)].any():
        findings.ended += 1
    else:
        yield "the end isn't a target", closing
    header = len(signs.text(ids[place:start].tolist()))
    text = signs.text(ids[place : min(stop, start + _THOUGHT_TOKENS)].tolist())
    thought = EMPTY_THOUGHT.search(text)
    if thought and thought.start() <= header < thought.end():
        length = len(text) - len(text[thought.end() :].lstrip(">]▷|").lstrip())  # up to what follows the block
        behind = next((i for i in range(start, stop) if len(signs.text(ids[place : i + 1].tolist())) > length), stop)
        if targets[start:behind].any():
            yield "empty think blocks trained", start


def _behind(signs: Signs, ids: NDArray[np.int64], start: int, length: int) -> int:
    """Where the blanks that follow an end token stop."""
    place = start
    while place < length and int(ids[place]) not in signs.controls and not signs.text([int(ids[place])]).strip():
        place += 1
    return place
