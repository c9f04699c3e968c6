"""What a model's chat template and tokenizer write around turns, as ids, found by rendering short conversations."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.template.checks import end_tokens
from dataprep.template.probes import PROBES, Message
from dataprep.template.proof import prove
from dataprep.template.subject import OFFICIAL_ERRORS, Subject, load_subject

Ids = tuple[int, ...]

_USER: Message = {"role": "user", "content": "Quiet rivers"}
_ANSWER: Message = {"role": "assistant", "content": "Broad meadows"}
_SYSTEM: Message = {"role": "system", "content": "Brief answers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """How turns look in ids."""

    header: Ids  # what stands before an answer; () where it can't be told
    openings: tuple[Ids, ...]  # what else stands before answers, such as behind a tool's output
    ends: frozenset[int]  # tokens that end an answer
    stops: frozenset[int]  # of these, the last ones behind an answer
    system_header: Ids  # what a dialogue with a system message begins with, bos left out
    controls: frozenset[int]
    bos: int | None
    eos: int | None
    pad: int | None
    vocab_size: int
    tokenizer: Any

    def text(self, ids: list[int]) -> str:
        """The text of ids, special tokens too."""
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def load_signs(model: str) -> Signs:
    """Learn a model's signs. Raises ModelError."""
    with tempfile.TemporaryDirectory() as scratch:
        subject = load_subject(model, None, Path(scratch))
        outcomes = {probe.name: prove(subject, probe) for probe in PROBES}
        official = subject.official
        ends = [*end_tokens(subject, outcomes), *_earlier_end(subject)] or [official.eos_token]
        end_ids = frozenset(official.convert_tokens_to_ids(end) for end in ends if end)
        header = _header(subject, end_ids)
        return Signs(
            header=header,
            openings=_openings(subject, header),
            ends=end_ids,
            stops=_stops(subject, [end for end in ends if end]) or end_ids,
            system_header=_before(subject, [_SYSTEM, _USER], official.bos_token_id),
            controls=frozenset(subject.bundle.control_ids),
            bos=official.bos_token_id,
            eos=official.eos_token_id,
            pad=official.pad_token_id,
            vocab_size=subject.bundle.vocab_size,
            tokenizer=official,
        )


def _is(longer: Ids, beginning: Ids) -> bool:
    return longer[: len(beginning)] == beginning


def _header(subject: Subject, ends: frozenset[int]) -> Ids:
    """What stands before every answer: as much of the generation prompt as dialogues show before theirs."""
    header = _added(subject)
    for place, number in enumerate(header[:-1]):  # the end of the question, where the prompt couldn't be told from it
        if number in ends:
            header = header[place + 1 :]
            blanks = [not subject.decode([each]).strip() for each in header]
            header = header[blanks.index(False) if False in blanks else 0 :]
            break
    for messages in ([_USER, _ANSWER], [_USER, _ANSWER, {**_USER, "content": "Go on"}, {**_ANSWER, "content": "More"}]):
        try:
            text = subject.official_text(messages, None)
        except OFFICIAL_ERRORS:
            continue
        shown = _after(subject, text[: text.find(_ANSWER["content"])], _USER["content"])
        places = [place for place in range(len(shown)) if shown[place : place + 1] == header[:1]]
        header = max((_common(header, shown[place:]) for place in places), key=len, default=header)
    return header


def _added(subject: Subject) -> Ids:
    """The ids that a generation prompt adds, or, where it adds none, those between a question and the answer."""
    try:
        bare = tuple(subject.official_ids([_USER], None, False))
        prompt = tuple(subject.official_ids([_USER], None, True))
        if len(prompt) > len(bare) and prompt[: len(bare)] == bare:
            return prompt[len(bare) :]
        return _after(subject, subject.official_text([_USER], None, True), _USER["content"])
    except OFFICIAL_ERRORS:
        return ()


def _after(subject: Subject, text: str, content: str) -> Ids:
    place = text.find(content) + len(content)
    encoded = subject.official(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return tuple(number for number, (start, _) in pairs if start >= place)


def _common(one: Ids, other: Ids) -> Ids:
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _earlier_end(subject: Subject) -> list[str]:
    """The control token behind an answer that others follow, which may be another than behind the last."""
    try:
        text = subject.official_text([_USER, _ANSWER, {**_USER, "content": "Go on"}], None)
    except OFFICIAL_ERRORS:
        return []
    behind = text[text.find(_ANSWER["content"]) + len(_ANSWER["content"]) :].lstrip()
    return [token for token in subject.bundle.control_tokens if behind.startswith(token)][:1]


def _openings(subject: Subject, header: Ids) -> tuple[Ids, ...]:
    """What stands before answers where the header doesn't, from its last control token on."""
    controls, openings = set(subject.bundle.control_ids), []
    for probe in PROBES:
        if not header or not probe.tools():
            continue
        try:
            example = subject.example(probe)
        except OFFICIAL_ERRORS:
            continue
        ids, mask = tuple(example["input_ids"]), example["assistant_masks"]
        for start in (i for i in range(1, len(ids)) if mask[i] and not mask[i - 1]):
            begun = next((i for i in range(start - 1, -1, -1) if ids[i] in controls), None)
            if begun is not None and ids[max(0, start - len(header)) : start] != header:
                openings.append(ids[begun:start])
    return tuple(dict.fromkeys(each for each in openings if not set(header) & set(each) & controls))


def _stops(subject: Subject, ends: list[str]) -> frozenset[int]:
    """The last of the end tokens behind an answer, be it the last or one that others follow."""
    stops = set()
    for further in ([], [{**_USER, "content": "Go on"}]):
        try:
            text = subject.official_text([_USER, _ANSWER, *further], None)
        except OFFICIAL_ERRORS:
            continue
        behind = text[text.find(_ANSWER["content"]) + len(_ANSWER["content"]) :].lstrip()
        last = None
        while found := next((end for end in sorted(ends, key=len, reverse=True) if behind.startswith(end)), None):
            last, behind = found, behind[len(found) :].lstrip()
        stops |= {subject.official.convert_tokens_to_ids(last)} if last else set()
    return frozenset(stops)


def _before(subject: Subject, messages: list[Message], bos: int | None) -> Ids:
    """The ids before the first message's content; () where its role is nowhere to be seen in them."""
    try:
        text = subject.official_text(messages, None)
    except OFFICIAL_ERRORS:
        return ()
    head = text[: max(0, text.find(messages[0]["content"]))]
    if "system" not in head.lower():  # moved into the user's turn: it begins as other turns do
        return ()
    ids = subject.official(head, add_special_tokens=False)["input_ids"]
    return tuple(ids[1:] if ids[:1] == [bos] else ids)
