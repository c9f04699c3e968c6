"""`dataprep tokenize`: conversations in the cache -> examples in the cache -> packed shards, with their manifest."""

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache as once
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.core.chunk_files import chunk_files, sound_files
from dataprep.core.chunks import Chunk, find_chunks
from dataprep.core.columns import canonical_json
from dataprep.core.encode import Encoder, encoder_name
from dataprep.core.lock import locked
from dataprep.core.ray_tasks import require_ray
from dataprep.core.tokenizer import ModelTokenizer, load_tokenizer
from dataprep.core.workers import num_cores
from dataprep.stages.pack import Packing, mixed, pack_examples
from dataprep.stages.sides import Side, Sides, choose_sides
from dataprep.stages.write import write_shards
from dataprep.tokenize.chunk_store import ChunkStore
from dataprep.tokenize.corpus import Corpus, read_corpus
from dataprep.tokenize.fill import Filled, TokenWork, fill, num_rows, packed_bytes
from dataprep.tokenize.in_use import tokens_folder
from dataprep.tokenize.ledger import close_ledger, count_by_source, write_quarantine
from dataprep.tokenize.on_ray import fill_on_ray
from dataprep.tokenize.options import settled_options
from dataprep.tokenize.recipe import Recipe, listed, settle, settle_targets
from dataprep.tokenize.shards_folder import copy_name, copy_tokenizer, find_same, remove_stale
from dataprep.tokenize.survey import Surveyed, joined, survey, survey_cache
from dataprep.tokenize.targets import keyed_chunks
from dataprep.tokenize.token_cache import all_whole, tokens_fingerprint, write_examples_manifest
from dataprep.tokenize.unchanged import find_alike, none_written, note_checked
from schemas.errors import CacheError, InputError
from schemas.files import remove_leftovers, sha256_file
from schemas.manifest import (
    SHARDS_FORMAT,
    SHARDS_VERSION,
    Artefact,
    ConversationsManifest,
    Ledger,
    PackOptions,
    ShardRecord,
    ShardsManifest,
    SourceCounts,
    SourceMix,
    TargetRules,
    TokenizerRecord,
    TokenOptions,
    read_conversations_manifest,
    write_manifest,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What `tokenize_corpus` did."""

    manifest: ShardsManifest
    folder: Path
    tokenized: int  # conversations that weren't in the cache
    up_to_date: bool
    cluster: str = ""  # which tokenised them; empty: this machine


def tokenize_corpus(
    cache: Path,
    model: str,
    options: PackOptions,
    workers: int | None = None,
    recipe: Recipe | None = None,
    token_options: TokenOptions | None = None,
    engine: str = "local",
    chunks_at: str | None = None,
) -> Built:
    """Tokenise the conversations of `cache` for `model` and pack them. Does only what isn't there already.

    The engine is "local", processes of this machine, or "ray", a Ray cluster. `chunks_at` is where machines
    share chunks, a URL that fsspec reads, or a folder.

    Raises CacheError (no conversations, damaged files, a full disk), ModelError, InputError (nothing to train on, a
    source that isn't there, an option that doesn't fit the chat template).
    """
    if engine == "ray":
        require_ray()
    folder = cache / "conversations"
    read_conversations_manifest(folder)  # before the lock makes a file
    with locked(cache):
        asked = _Asked(
            cache=cache,
            model=model,
            options=options,
            recipe=recipe,
            token_options=token_options or TokenOptions(),
            source=read_conversations_manifest(folder),
            conversations_sha256=sha256_file(folder / "manifest.json"),
            chunks_at=chunks_at,
        )
        return _tokenize(asked, workers, engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a run is asked for, and what it starts from."""

    cache: Path
    model: str
    options: PackOptions
    recipe: Recipe | None
    token_options: TokenOptions  # not settled yet
    source: ConversationsManifest
    conversations_sha256: str
    chunks_at: str | None


def _tokenize(asked: _Asked, workers: int | None, engine: str) -> Built:
    shards = asked.cache / "shards"
    settled = once(partial(_settled, asked))
    same = find_alike(shards, partial(_is_alike, asked, settled))
    if same is not None and asked.chunks_at is None and none_written(asked.cache, asked.source, same):
        return Built(manifest=same, folder=shards, tokenized=0, up_to_date=True)
    corpus, encoder = _read(asked, settled, engine)
    _require_sources(asked.options.val_sources, corpus.names, asked.source)
    mixture = _mixture(asked.recipe, corpus.names, asked.source)
    targets = ruled_targets(asked.recipe, corpus.names, asked.source, asked.token_options)
    tokenizer, token_options, tokens = settled()
    fingerprint = _fingerprint(corpus, tokens, asked.options, mixture, targets)
    there = find_same(shards, fingerprint)
    examples = tokens_folder(asked.cache, tokens)
    if same is not None and asked.chunks_at is None and there.whole and all_whole(examples):
        note_checked(shards)
        return Built(manifest=there.whole, folder=shards, tokenized=0, up_to_date=True)
    write_examples_manifest(examples, asked.model, tokenizer, token_options)
    work = TokenWork(
        conversations=asked.cache / "conversations",
        manifest=asked.source,
        tokenizer=tokenizer,
        options=token_options,
        targets=targets,
        folder=examples,
    )
    chunks = keyed_chunks(find_chunks(corpus.ids), corpus.names, corpus.sources, targets)
    corpus = corpus.without_ids()
    store = ChunkStore(asked.chunks_at, examples) if asked.chunks_at else None
    if store:
        store.fetch(chunks)
    surveyed, filled = _surveyed(work, chunks, corpus, asked, workers, engine, encoder)
    if store:
        store.leave(chunks)
    packed = _pack(asked, corpus, mixture, surveyed, fingerprint, there.shards, workers)
    manifest = ShardsManifest(
        format=SHARDS_FORMAT,
        version=SHARDS_VERSION,
        model=asked.model,
        tokenizer=_tokenizer_record(tokenizer, asked.source, *copy_tokenizer(tokenizer, shards)),
        token_options=token_options,
        options=asked.options,
        mixture=mixture,
        conversations_sha256=asked.conversations_sha256,
        fingerprint=fingerprint,
        tokens_fingerprint=tokens,
        sources=corpus.names,
        ledger=packed.ledger,
        splits=packed.splits,
        by_source=packed.by_source,
        quarantine=packed.quarantine,
        targets=targets,
    )
    write_manifest(shards / "manifest.json", manifest)
    remove_stale(shards, manifest)
    return Built(manifest=manifest, folder=shards, tokenized=filled.tokenized, up_to_date=False, cluster=filled.cluster)


_Settled = tuple[ModelTokenizer, TokenOptions, str]


def _settled(asked: _Asked) -> _Settled:
    """The tokenizer, the options that it settles, and the fingerprint of tokens made with both."""
    tokenizer = load_tokenizer(asked.model, asked.cache)
    options = settled_options(asked.token_options, tokenizer, date.today())
    return tokenizer, options, tokens_fingerprint(tokenizer, options)


def _is_alike(asked: _Asked, settled: Callable[[], _Settled], there: ShardsManifest) -> bool:
    """Whether these shards are of the same conversations, model and options."""
    given = asked.model, asked.conversations_sha256, asked.options
    if (there.model, there.conversations_sha256, there.options) != given:
        return False
    mixture = _mixture(asked.recipe, there.sources, asked.source)
    targets = ruled_targets(asked.recipe, there.sources, asked.source, asked.token_options)
    if (there.mixture, there.targets) != (mixture, targets):
        return False
    tokenizer, _, tokens = settled()
    return (there.tokens_fingerprint, there.tokenizer.folder) == (tokens, copy_name(tokenizer))


def _read(asked: _Asked, settled: Callable[[], _Settled], engine: str) -> tuple[Corpus, Encoder | None]:
    """The corpus; beside it the encoder is loaded, a second of its own, where all is to be tokenised here."""
    with ThreadPoolExecutor(1) as beside:
        encoder = None
        if asked.source.kept and engine == "local":
            tokenizer, _, tokens = settled()
            if not chunk_files(tokens_folder(asked.cache, tokens)):
                encoder = beside.submit(tokenizer.encoder, packed_bytes(asked.source))
        corpus = read_corpus(asked.cache / "conversations", asked.source)
        return corpus, None if encoder is None else encoder.result()


def _surveyed(
    work: TokenWork,
    chunks: list[Chunk],
    corpus: Corpus,
    asked: _Asked,
    workers: int | None,
    engine: str,
    encoder: Encoder | None,
) -> tuple[Surveyed, Filled]:
    """Look through all chunks, making those that aren't there, or aren't whole."""
    there = survey_cache(work.folder, chunks, asked.options, workers)
    found = {number for part in there for number in part.files}
    numbers = [number for number in range(len(chunks)) if number not in found]
    missing = [chunks[number] for number in numbers]
    remove_leftovers(work.folder)
    if engine == "ray":
        filled, made = fill_on_ray(work, missing, workers), _made(work, missing)
    else:
        filled, made = Filled(tokenized=num_rows(missing)), fill(work, missing, workers, encoder)
    with closing(made):
        numbered = ((number, chunk, file) for number, (chunk, file) in zip(numbers, made, strict=True))
        rest = survey(numbered, asked.options)
    return joined([*there, rest], corpus.sources), filled


def _made(work: TokenWork, chunks: Sequence[Chunk]) -> Generator[tuple[Chunk, Path]]:
    """The files of chunks that a cluster has made."""
    for chunk, file in zip(chunks, sound_files(work.folder, chunks), strict=True):
        if file is None:
            raise CacheError(
                f"{work.folder}: chunks that were just written can't be read; check the disk, then run it again"
            )
        yield chunk, file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packed:
    """What the manifest tells of shards that were written."""

    splits: dict[str, list[ShardRecord]]
    ledger: Ledger
    by_source: dict[str, dict[str, SourceCounts]]
    quarantine: Artefact


def _pack(
    asked: _Asked,
    corpus: Corpus,
    mixture: dict[str, SourceMix],
    surveyed: Surveyed,
    fingerprint: str,
    there: Mapping[str, ShardRecord],
    workers: int | None,
) -> _Packed:
    """Write the shards, but for those that are there, and the quarantine file."""
    source, shards, selection = asked.source, asked.cache / "shards", surveyed.selection
    sides = choose_sides(selection.examples, corpus.keys, corpus.names, asked.options, mixture)
    listing = shards / f"quarantine-{fingerprint[:8]}.jsonl"
    quarantine = write_quarantine(listing, asked.cache / "conversations", source, selection, sides)
    _require_examples(asked.cache, sides, listing)
    splits = _write_splits(shards, sides, corpus.keys, surveyed.files, asked.options, fingerprint, there, workers)
    return _Packed(
        splits=splits,
        ledger=close_ledger(source, selection, sides, splits, surveyed.counts),
        by_source={name: count_by_source(side, corpus.names) for name, side in sides.splits.items()},
        quarantine=quarantine,
    )


def ruled_targets(
    recipe: Recipe | None, names: Sequence[str], source: ConversationsManifest, options: TokenOptions
) -> dict[str, TargetRules]:
    """The rules of each source that the recipe decides otherwise than the options do."""
    if recipe is None:
        return {}
    rules = settle_targets(recipe, sorted({*names, *source.sources}), options)
    return {name: rules[name] for name in names if name in rules}


def _fingerprint(
    corpus: Corpus,
    tokens: str,
    options: PackOptions,
    mixture: dict[str, SourceMix],
    targets: dict[str, TargetRules],
) -> str:
    by_source = [{name: asdict(each) for name, each in table.items()} for table in (mixture, targets)]
    decides = [SHARDS_VERSION, corpus.names, tokens, asdict(options), *by_source]
    digest = hashlib.sha256(canonical_json(decides))
    digest.update(corpus.ids.tobytes())
    digest.update(corpus.sources.tobytes())
    return digest.hexdigest()


def _require_sources(named: Sequence[str], names: Sequence[str], source: ConversationsManifest) -> None:
    for name in named:
        if name in source.sources and name not in names:
            raise InputError(
                f"--val-source {name}: none of its rows was kept; where they equal rows of other files, name this one "
                "first in `dataprep normalize`"
            )
        if name not in names:
            raise InputError(f"--val-source {name}: no conversation is of this source; they are of {listed(names)}")


def _mixture(recipe: Recipe | None, names: Sequence[str], source: ConversationsManifest) -> dict[str, SourceMix]:
    """The recipe's mix of each source; an entry may be of one that kept no row."""
    if recipe is None:
        return {}
    mixes = settle(recipe, sorted({*names, *source.sources}))
    return {name: mixes[name] for name in names if name in mixes}


def _require_examples(cache: Path, sides: Sides, quarantine: Path) -> None:
    """Raises InputError where nothing is left to train on."""
    if len(sides.splits["train"].copies):
        return
    if sides.num_trainable:
        raise InputError(f"{cache}: the recipe leaves out every conversation to train on; raise a weight or cap in it")
    if "val" in sides.splits:
        raise InputError(
            f"{cache}: no conversation is left to train on: all are held out; lower --val-fraction, or name fewer "
            "sources by --val-source"
        )
    raise InputError(f"{cache}: no conversation is left to train on; see {quarantine}")


def _write_splits(
    shards: Path,
    sides: Sides,
    keys: NDArray[np.uint64],
    files: Sequence[Path],
    options: PackOptions,
    fingerprint: str,
    there: Mapping[str, ShardRecord],
    workers: int | None,
) -> dict[str, list[ShardRecord]]:
    """Pack each side and write its shards, but for those that are there."""
    splits, most = {}, workers or num_cores()
    for name, side in sides.splits.items():
        packing, seq_len = _packing(side, keys, options), options.seq_len
        splits[name] = write_shards(shards, name, fingerprint[:8], side.examples, packing, seq_len, files, there, most)
    return splits


def _packing(side: Side, keys: NDArray[np.uint64], options: PackOptions) -> Packing:
    examples = side.examples
    shuffle_keys = mixed(keys[examples.rows] + examples.starts.astype(np.uint64), options.seed)
    lengths = examples.lengths.astype(np.int64)
    return pack_examples(lengths, shuffle_keys, side.copies, options.seq_len, options.seed, options.pack)


def _tokenizer_record(
    tokenizer: ModelTokenizer, source: ConversationsManifest, folder: str, files: dict[str, str]
) -> TokenizerRecord:
    is_fast = tokenizer.is_fast(packed_bytes(source))
    note = tokenizer.encoder_note if is_fast or tokenizer.encoder_proof is None else "there is little text"
    return TokenizerRecord(
        folder=folder,
        sha256=tokenizer.sha256,
        template_sha256=tokenizer.template_sha256,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        encoder=f"{encoder_name(is_fast)} ({note})",
        files=files,
    )
