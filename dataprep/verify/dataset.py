"""`dataprep verify --dataset`: what the masks of data that another tool tokenised do to training.

The conversations aren't known; turns are found in the ids by what the model's chat template writes around answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.core.progress import progress_bar
from dataprep.template.proof import EMPTY_THOUGHT
from dataprep.template.signs import Ids, Signs, load_signs
from dataprep.verify.tokenised import TokenisedRow, read_tokenised
from schemas.errors import InputError

_THOUGHT_TOKENS = 16  # an empty think block has no more
_MOSTLY = 0.9  # of the trained answers must end with a trained end token

# What is found: what it does to training, and what to do.
MEANINGS = {
    "no assistant header": "the rows weren't made with this model's chat template, so that it is trained on a format "
    "that it isn't asked in; the other checks of turns can't be made",
    "ids outside of the vocabulary": "another tokenizer made them; the model reads other text than you think, or stops",
    "no targets": "nothing is learnt from these rows, some trainers' loss becomes NaN; drop them",
    "labels are shifted": "labels[i] is input_ids[i+1], and trainers shift once more: the model learns to skip a "
    "token; store labels as a copy of input_ids",
    "labels aren't the ids": "where a label is set it is another token than the row has; tokenise anew",
    "targets on headers": "the model learns to write the role header that inference gives it",
    "targets on other text": "the model learns to speak for the user, the system or tools; mask all but its answers",
    "targets behind the end": "what the template writes after the end token is trained on; inference stops before it: "
    "harmless at best",
    "the end isn't a target": "the model will not learn to stop; make the end token a target",
    "answers without targets": "these turns of the assistant aren't learnt; meant, if only last turns are trained",
    "empty think blocks trained": "the model learns to skip thinking; inference gives such a block in the prompt",
    "bos doubled": "the row begins as no prompt does; encode rendered text with add_special_tokens=False",
    "padding trained": "the model learns to write padding; set labels there to -100",
    "cut off": "the row ends inside an answer, which never ends: rows are truncated; use a greater length or drop them",
    "several examples in a row": "no position_ids begin anew and no seq_lengths tell: an example reads the one before",
}


@dataclass(slots=True)
class Findings:
    """What was found in how many rows, with the first row of each."""

    rows: int = 0
    tokens: int = 0
    targets: int = 0
    answers: int = 0
    trained: int = 0  # answers with targets
    ended: int = 0  # of those, with the end token
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Nothing was found."""
        return not self.counts

    def note(self, what: str, place: str) -> None:
        """Count a row."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.examples.setdefault(what, place)

    def text(self) -> str:
        """Lines of text, without a newline at the end."""
        share = f"{self.targets / self.tokens:.1%}" if self.tokens else "none"
        head = f"{self.rows:,} rows, {self.tokens:,} tokens, {share} of them targets; {self.answers:,} answers found"
        lines = [
            f"LOOK OUT {what}: {self.counts[what]:,} of {self.rows:,} rows, such as {self.examples[what]}: {meaning}"
            for what, meaning in MEANINGS.items()
            if what in self.counts
        ]
        return "\n".join([head, *lines, f"{len(lines)} findings" if lines else "nothing was found"])


def verify_dataset(place: Path, model: str) -> Findings:
    """Look through tokenised rows with a model's tokenizer and template. Raises InputError and ModelError."""
    signs, findings = load_signs(model), Findings()
    with progress_bar(None, " rows", "verify") as bar:
        for row in read_tokenised(place):
            bar.update()
            _look(findings, signs, row)
    if not findings.rows:
        raise InputError(f"--dataset {place}: it holds no rows")
    _weigh(findings)
    return findings


def _weigh(findings: Findings) -> None:
    """Take back what is no fault in so few rows, or follows from another finding."""
    if findings.trained and findings.ended >= _MOSTLY * findings.trained:
        findings.counts.pop("the end isn't a target", None)
    if findings.answers:
        findings.counts.pop("no assistant header", None)


def _look(findings: Findings, signs: Signs, row: TokenisedRow) -> None:
    findings.rows += 1
    findings.tokens += len(row.ids)
    targets = row.targets
    if row.labels is not None and targets.any():
        alignment = _alignment(row.ids, row.labels, targets)
        if alignment:
            findings.note(alignment, row.place)
        if alignment == "labels are shifted":
            targets = np.concatenate(([False], targets[:-1]))
    findings.targets += int(targets.sum())
    if not targets.any():
        findings.note("no targets", row.place)
    padding = _padding(signs, row)
    checks = {
        "ids outside of the vocabulary": bool(len(row.ids)) and int(row.ids.max()) >= signs.vocab_size,
        "padding trained": bool((targets & padding).any()),
        "bos doubled": signs.bos is not None and row.ids[:2].tolist() == [signs.bos] * 2,
        "several examples in a row": _is_contaminated(signs, row, padding),
    }
    for what, found in checks.items():
        if found:
            findings.note(what, row.place)
    for what in dict.fromkeys(_turn_faults(findings, signs, row.ids, targets & ~padding, padding)):
        findings.note(what, row.place)


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


def _is_contaminated(signs: Signs, row: TokenisedRow, padding: NDArray[np.bool_]) -> bool:
    """Whether a second example begins inside the row and nothing sets it apart."""
    if row.bounded:
        return False
    places = _second_beginnings(signs, row.ids[~padding])
    if row.positions is not None and len(places):
        return len(np.flatnonzero(row.positions[~padding][1:] == 0)) == 0
    return bool(len(places))


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
) -> Iterator[str]:
    headers = _found(ids, signs.header)
    if not headers:
        if signs.header:
            yield "no assistant header"
        return
    length = len(ids) - int(padding[len(ids) // 2 :].sum())
    of_turns = np.zeros(len(ids), dtype=bool)
    stop = -1
    for place, following in zip(headers, [*headers[1:], length], strict=True):
        start = place + len(signs.header)
        continued = place == stop and targets[place - 1 : start].all()  # an answer of several parts writes it itself
        closing = next((i for i in range(start, following) if int(ids[i]) in signs.ends), None)
        stop = following if closing is None else _last_end(signs, ids, closing, following) + 1
        of_turns[place:stop] = True
        findings.answers += 1
        if targets[place:start].any() and not continued:
            yield "targets on headers"
        if closing is None and following == length:
            yield "cut off"
        if not targets[start:stop].any():
            yield "answers without targets"
            continue
        yield from _answer_faults(findings, signs, ids, targets, (place, start, closing, stop))
        if closing is not None:
            behind = _behind(signs, ids, stop, following)
            of_turns[stop:behind] = True
            if targets[stop:behind].any():
                yield "targets behind the end"
    if (targets & ~of_turns).any():
        yield "targets on other text"


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
) -> Iterator[str]:
    place, start, closing, stop = turn
    findings.trained += 1
    if closing is None or targets[closing:stop].any():
        findings.ended += 1
    else:
        yield "the end isn't a target"
    if not targets[start]:
        return
    header = len(signs.text(ids[place:start].tolist()))
    thought = EMPTY_THOUGHT.search(signs.text(ids[place : min(stop, start + _THOUGHT_TOKENS)].tolist()))
    if thought and thought.start() <= header < thought.end():
        yield "empty think blocks trained"


def _behind(signs: Signs, ids: NDArray[np.int64], start: int, length: int) -> int:
    """Where the blanks that follow an end token stop."""
    place = start
    while place < length and int(ids[place]) not in signs.controls and not signs.text([int(ids[place])]).strip():
        place += 1
    return place
