"""What `dataprep verify --dataset` finds: how often, what it does to training, and the first place of each, shown."""

from dataclasses import dataclass, field
from itertools import groupby

from dataprep.template.signs import Signs
from dataprep.verify.tokenised import TokenisedRow

_SHOWN_TOKENS = 12  # to each side of the place that is shown
_GREEN, _GREY, _OFF = "\x1b[32m", "\x1b[90m", "\x1b[0m"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A place of a row: text around it, as spans that are targets or not."""

    place: str  # file and row
    spans: list[tuple[str, bool]]

    def text(self, colour: bool) -> str:
        """One line."""
        return "".join(_span(text, target, colour) for text, target in self.spans)


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
    examples: dict[str, Shown] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Nothing was found."""
        return not self.counts

    def note(self, what: str, signs: Signs, row: TokenisedRow, at: int) -> None:
        """Count a row; the first is shown around its token `at`."""
        self.counts[what] = self.counts.get(what, 0) + 1
        if what not in self.examples:
            self.examples[what] = Shown(place=row.place, spans=_spans(signs, row, at))

    def text(self, colour: bool = False) -> str:
        """Lines of text, without a newline at the end."""
        share = f"{self.targets / self.tokens:.1%}" if self.tokens else "none"
        lines = [f"{self.rows:,} rows, {self.tokens:,} tokens, {share} of them targets; {self.answers:,} answers found"]
        found = [what for what in MEANINGS if what in self.counts]
        if found:
            legend = f"{_GREEN}targets{_OFF} {_GREY}context{_OFF}" if colour else "targets stand in ⟦ ⟧"
            lines.append(f"rows count from 0; in the first row of each, {legend}:")
        for what in found:
            shown = self.examples[what]
            lines.append(f"LOOK OUT {what}: {self.counts[what]:,} of {self.rows:,} rows: {MEANINGS[what]}")
            lines.append(f"    {shown.place}: {shown.text(colour)}")
        return "\n".join([*lines, f"{len(found)} findings" if found else "nothing was found"])


def _spans(signs: Signs, row: TokenisedRow, at: int) -> list[tuple[str, bool]]:
    """Text around a token: runs of targets and of context; line ends as \\n, and … where the row goes on."""
    low, high = max(0, at - _SHOWN_TOKENS), min(len(row.ids), at + _SHOWN_TOKENS)
    pairs = [(number, bool(target)) for number, target in zip(row.ids[low:high], row.targets[low:high], strict=True)]
    spans = [
        (_on_one_line(signs, [int(number) for number, _ in group]), target)
        for target, group in groupby(pairs, key=lambda pair: pair[1])
    ]
    before, behind = ([("…", False)] if there else [] for there in (low, high < len(row.ids)))
    return [*before, *spans, *behind]


def _on_one_line(signs: Signs, ids: list[int]) -> str:
    known = [number for number in ids if 0 <= number < signs.vocab_size]
    return signs.text(known).replace("\n", "\\n") + "?" * (len(ids) - len(known))


def _span(text: str, target: bool, colour: bool) -> str:
    if colour:
        return f"{_GREEN if target else _GREY}{text}{_OFF}"
    return f"⟦{text}⟧" if target else text
