"""What a report says, as numbers: made by collect.py and samples.py, shown by terminal.py and page.py."""

from dataclasses import dataclass

from schemas.manifest import PackOptions, Reading, TokenLedger

BETWEEN = "\x7f"  # one byte in JSON too


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """One number a conversation (or pack), as a histogram with percentiles."""

    edges: list[int]  # bin i holds edges[i] <= value < edges[i + 1]
    counts: list[int]
    mean: float
    p50: int
    p90: int
    p99: int
    max: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLedger:
    """rows + branched = ready + joined + what was turned away at both stages."""

    rows: int
    branched: int  # conversations beyond one a row
    joined: int  # rows beyond one a conversation
    kept: int  # by normalize
    ready: int  # packed; kept, where the cache holds no shards
    turned_away: dict[str, int]  # by normalize
    refused: dict[str, int]  # by tokenize

    def reasons(self) -> dict[str, int]:
        """What was turned away at both stages, the most frequent reason first."""
        both = {name: self.turned_away.get(name, 0) + self.refused.get(name, 0) for name in self.turned_away}
        both |= {name: count for name, count in self.refused.items() if name not in both}
        return dict(sorted(both.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFigures:
    """What the conversations hold as text."""

    turns: Distribution  # messages that aren't of the system
    characters: Distribution  # of all messages
    roles: dict[str, int]  # messages
    scripts: dict[str, int]  # conversations, by the script that most of their text is in
    languages: dict[str, int]  # of a sample of those in Latin script
    language_samples: int
    with_tools: int  # conversations that define tools
    with_calls: int  # conversations in which one is called
    calls: int
    tool_messages: int
    with_reasoning: int  # conversations
    reasoning_characters: int
    content_characters: int  # of assistant turns and documents
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """What keeping only the first `limit` tokens of each conversation would lose."""

    limit: int
    conversations: int  # longer than that
    tokens: int
    targets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFigures:
    """What tokenizing gave, before packing."""

    lengths: Distribution  # of the conversations that were tokenised
    targets: int
    truncation: list[Truncation]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFigures:
    """How one split is packed."""

    name: str
    packs: int
    examples: int
    tokens: int
    targets: int
    fill: Distribution  # tokens of a pack in thousandths of seq_len
    examples_per_pack: Distribution
    attention: Distribution  # sum of squared lengths in thousandths of seq_len squared
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFigures:
    """What became of one source."""

    name: str
    kept: int  # conversations, by normalize
    ready: int  # conversations that are packed; kept, where the cache holds no shards
    held_out: int  # of those
    turned_away: dict[str, int]  # at both stages, by reason
    turns: int
    characters: int
    longest_characters: int
    tokens: int  # packed, with copies
    targets: int
    longest_tokens: int  # before packing where that is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All numbers of a report."""

    name: str  # of the cache's folder
    cache: str
    date: str  # when the newest manifest was written
    version: str  # of sftpack
    model: str | None
    encoder: str | None
    vocab_size: int | None
    fingerprint: str | None
    options: PackOptions | None
    mixture: dict[str, str]  # source -> how much of it is trained on, where it isn't taken whole and once
    stale: bool  # the shards there are of other conversations, and left out
    rows: RowLedger
    tokens: TokenLedger | None
    num_inputs: int
    input_bytes: int
    formats: dict[str, int]
    cleaned: dict[str, int]
    seen: dict[str, int]
    readings: list[Reading]
    settings: dict[str, str]  # what normalize was told
    text: TextFigures | None  # None where nothing was kept
    lengths: TokenFigures | None  # None where nothing was tokenised, or its cache is gone
    splits: list[SplitFigures]
    sources: list[SourceFigures]  # the largest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Tokens in a row that are all targets or all context."""

    target: bool
    text: str  # BETWEEN stands between tokens, where each has a text of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleExample:
    """An example of a sample, as its tokens."""

    source: str
    row: int  # of conversations/
    start: int  # where in its conversation it begins
    split: str
    pack: int
    tokens: int
    targets: int
    spans: list[Span]
    left_out: int  # tokens that aren't shown


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMessage:
    """A message of a sample, as text that may be cut."""

    role: str
    text: str
    reasoning: str | None
    calls: list[tuple[str, str]]  # name, arguments
    name: str | None
    train: bool | None
    left_out: int  # characters that aren't shown


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConversation:
    """A conversation to look at."""

    row: int
    id: str
    source: str
    origin: str  # file:row
    messages: list[SampleMessage]
    left_out: int  # messages that aren't shown
    tools: str | None
    examples: list[SampleExample]  # none where it isn't packed


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePack:
    """A pack to look at."""

    split: str
    number: int
    tokens: int
    targets: int
    examples: list[SampleExample]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTurnedAway:
    """A row that was turned away, to look at."""

    source: str
    file: str
    row: int
    stage: str  # normalize | tokenize
    reason: str
    detail: str
    fix: str
    raw: str | None  # of normalize: the row as text, maybe cut
    messages: list[SampleMessage]  # of tokenize


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What the page's browser shows."""

    conversations: list[SampleConversation]
    packs: list[SamplePack]
    turned_away: list[SampleTurnedAway]
    note: str | None  # why something is missing
