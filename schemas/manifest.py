"""Manifests: what a folder of artefacts holds and what it was made from. Written last; read strictly. Specs: *.md."""

import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from schemas.conversation import CONVERSATIONS_FORMAT, CONVERSATIONS_VERSION
from schemas.errors import CacheError
from schemas.example import EXAMPLES_FORMAT, EXAMPLES_VERSION
from schemas.files import seal_holds, sealed, write_text_whole

SHARDS_FORMAT = "sftpack.shards"
SHARDS_VERSION = 3

_STRICT = ConfigDict(extra="forbid", strict=True)

Manifest = TypeVar("Manifest")


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class InputFile:
    """One raw file that was read."""

    path: str
    bytes: int
    sha256: str
    encoding: str | None = None  # where its text is not UTF-8


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Artefact:
    """One file of a folder, named relative to its manifest."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class NormalizeOptions:
    """What the user settled for `dataprep normalize`."""

    format: str | None
    roles: dict[str, str]
    preference: str  # chosen | rejected | both
    paths: str  # best | top | all
    encoding: str | None  # given for files that are not UTF-8
    mapping: str | None  # the mapping file's text
    clean: dict[str, str]  # every cleaning step and its value
    pii: str  # off | count | redact | drop
    held_out: list[str]  # files whose text must not be trained on


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Reading:
    """A choice between two possible readings that rows were read by."""

    reading: str  # in words
    rows: int
    example: str  # file:row of the first


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class ConversationsManifest:
    """conversations/manifest.json; rows + branched = kept + joined + the sum of turned_away."""

    format: str
    version: int
    inputs: list[InputFile]
    options: NormalizeOptions
    rows: int
    branched: int  # conversations beyond one a row
    joined: int  # rows beyond one a conversation
    kept: int
    turned_away: dict[str, int]
    cleaned: dict[str, int]  # cleaning step: conversations that it changed
    seen: dict[str, int]  # cleaning step: conversations in which it found something and left it
    readings: list[Reading]
    formats: dict[str, int]
    sources: dict[str, int]
    parts: list[Artefact]
    quarantine: Artefact


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TokenizerRecord:
    """The tokenizer the ids belong to, and the folder beside the manifest that holds its files."""

    folder: str
    sha256: str  # of the tokenizer's canonical JSON
    template_sha256: str  # of the chat template's text
    vocab_size: int
    eos_token_id: int | None
    pad_token_id: int | None
    encoder: str  # which program made the ids, its version, and the probes it agreed with Hugging Face's on
    files: dict[str, str] = field(default_factory=dict)  # of the folder: name -> SHA-256


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class PackOptions:
    """What decides how examples become packs."""

    seq_len: int
    overflow: str  # cut | drop | split
    pack: str = "best-fit"  # best-fit | sequential | none
    val_fraction: float  # held out by a hash of content
    val_sources: list[str] = field(default_factory=list)  # held out as a whole; sorted
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TokenOptions:
    """What decides ids and masks, beside the conversations and the model."""

    turns: str = "whole"  # whole | last | exact
    train_on: str = "assistant"  # assistant | last | tool-calls | all
    thinking: str = "keep"  # keep | drop | only
    template_args: dict[str, Any] = field(default_factory=dict)  # given to the chat template, beside the messages
    control_tokens: str = "text"  # text | turn-away | allow: what a control token's string in a message becomes


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TargetRules:
    """What of one source is trained on; fields are those of TokenOptions."""

    turns: str
    train_on: str
    thinking: str


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class SourceMix:
    """How much of one source is trained on: its first conversations by hash up to the caps, each `weight` times."""

    weight: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 1.0
    max_conversations: Annotated[int, Field(ge=1, le=2**62)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**62)] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TokenLedger:
    """tokens + repeated = targets + context + the sum of cut; tokens are those of all that was tokenised, once."""

    tokens: int
    repeated: int  # of the second and further copies of examples
    targets: int
    context: int
    cut: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class TurnLedger:
    """Assistant turns of all that was tokenised, once."""

    trained: int
    differing: dict[str, int]  # of these, shown otherwise than inference shows them: by what differs
    left_out: dict[str, int]  # not trained on, for what differs
    prompts: dict[str, int]  # of the trained, those that follow the prompt of this template argument
    exact_differing: int  # of the differing, how many would under --turns exact
    exact_tokens: int  # about so many tokens would --turns exact make of the same


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Ledger:
    """rows + branched = kept + joined + the sum of turned_away, from the raw rows on."""

    rows: int
    branched: int  # conversations beyond one a row
    joined: int  # rows beyond one a conversation
    kept: int
    turned_away: dict[str, int]
    tokens: TokenLedger
    turns: TurnLedger
    notes: dict[str, int] = field(default_factory=dict)  # conversations, by what else is to be known of them


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class SourceCounts:
    """What one source gives to one split."""

    conversations: int  # each once
    examples: int  # with their copies
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class ShardRecord:
    """One Arrow file of packs."""

    file: str
    packs: int
    examples: int
    tokens: int
    targets: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class ShardsManifest:
    """shards/manifest.json; see shard.md."""

    format: str
    version: int
    model: str  # as given to --model
    tokenizer: TokenizerRecord
    token_options: TokenOptions
    options: PackOptions
    mixture: dict[str, SourceMix]  # of the sources that aren't taken whole and once
    conversations_sha256: str  # of conversations/manifest.json
    fingerprint: str  # of everything that decides the shards' bytes
    tokens_fingerprint: str  # of everything that decides ids and masks; tokens/ has a folder by its first 16 digits
    sources: list[str]  # what source_ids index
    ledger: Ledger
    splits: dict[str, list[ShardRecord]]  # "train", and "val" where one was split off
    by_source: dict[str, dict[str, SourceCounts]]  # of each split, of each source that gives something to it
    quarantine: Artefact
    targets: dict[str, TargetRules] = field(default_factory=dict)  # of the sources that token_options don't decide


@dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class ExamplesManifest:
    """tokens/<fingerprint>/manifest.json: what decided the ids and masks in it, beside the conversations."""

    format: str
    version: int
    model: str  # as given to --model, by the run that began the folder
    tokenizer_sha256: str
    template_sha256: str
    special_tokens: dict[str, str]
    token_options: TokenOptions
    fingerprint: str  # of all this but the model; the folder is named by its first 16 digits


def write_manifest(path: Path, manifest: Any) -> None:
    """Write a manifest as indented JSON, sealed by a checksum, whole or not at all."""
    write_text_whole(path, sealed(TypeAdapter(type(manifest)).dump_json(manifest, indent=2).decode()))


def read_conversations_manifest(folder: Path) -> ConversationsManifest:
    """Read `folder`/manifest.json. Raises CacheError when it is missing, damaged or of another version."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise CacheError(f"{folder}: no conversations here yet; run: dataprep normalize INPUT…")
    return _read(path, ConversationsManifest, CONVERSATIONS_FORMAT, CONVERSATIONS_VERSION, "dataprep normalize")


def read_shards_manifest(folder: Path) -> ShardsManifest:
    """Read `folder`/manifest.json. Raises CacheError when it is missing, damaged or of another version."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise CacheError(f"{folder}: no shards here yet; run: dataprep tokenize --model MODEL")
    return _read(path, ShardsManifest, SHARDS_FORMAT, SHARDS_VERSION, "dataprep tokenize")


def read_examples_manifest(folder: Path) -> ExamplesManifest:
    """Read `folder`/manifest.json. Raises CacheError when it is missing, damaged or of another version."""
    return _read(folder / "manifest.json", ExamplesManifest, EXAMPLES_FORMAT, EXAMPLES_VERSION, "dataprep tokenize")


def _read(path: Path, kind: type[Manifest], name: str, version: int, command: str) -> Manifest:
    try:
        text = path.read_bytes()
        head = TypeAdapter(dict[str, Any]).validate_json(text)
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    except ValidationError as error:
        raise CacheError(f"{path}: not a JSON object; the file is damaged, run `{command}` again") from error
    checksum = head.pop("checksum", None)
    for key, expected in (("format", name), ("version", version)):
        if head.get(key) != expected:
            raise CacheError(
                f"{path}: {key} is {head.get(key)!r}, this version reads {expected!r}; run `{command}` again"
            )
    try:
        manifest = TypeAdapter(kind).validate_json(json.dumps(head))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CacheError(f"{path}: field {where}: {first['msg']}; run `{command}` again") from error
    if not seal_holds(text, checksum):
        raise CacheError(f"{path}: its checksum is not its own, so it was changed or is damaged; run `{command}` again")
    return manifest
