"""`dataprep tokenize`: conversations in the cache -> examples in the cache -> packed shards, with their manifest."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.core.chunk_files import open_chunk, sound_files
from dataprep.core.chunks import find_chunks
from dataprep.core.columns import canonical_json
from dataprep.core.lock import locked
from dataprep.core.ray_tasks import require_ray
from dataprep.core.tokenizer import ModelTokenizer, load_tokenizer
from dataprep.stages.pack import mixed, pack_examples
from dataprep.stages.select import select_spans
from dataprep.stages.sides import Sides, choose_sides
from dataprep.stages.write import write_shards
from dataprep.tokenize.corpus import Corpus, read_corpus
from dataprep.tokenize.fill import TokenWork, fill_cache
from dataprep.tokenize.ledger import RowCounts, close_ledger, count_by_source, write_quarantine
from dataprep.tokenize.options import settled_options
from dataprep.tokenize.recipe import Recipe, listed, settle, settle_targets
from dataprep.tokenize.shards_folder import copy_tokenizer, find_same, remove_stale
from dataprep.tokenize.targets import keyed_chunks
from dataprep.tokenize.token_cache import all_whole, tokens_fingerprint, write_examples_manifest
from schemas.errors import CacheError, InputError
from schemas.files import remove_leftovers, sha256_file
from schemas.manifest import (
    SHARDS_FORMAT,
    SHARDS_VERSION,
    ConversationsManifest,
    PackOptions,
    ShardRecord,
    ShardsManifest,
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
) -> Built:
    """Tokenise the conversations of `cache` for `model` and pack them. Does only what isn't there already.

    The engine is "local", processes of this machine, or "ray", a cluster that shares the cache.

    Raises CacheError (no conversations, damaged files, a full disk), ModelError, InputError (nothing to train on, a
    source that isn't there, an option that doesn't fit the chat template).
    """
    if engine == "ray":
        require_ray()
    read_conversations_manifest(cache / "conversations")  # before the lock makes a file
    with locked(cache):
        return _tokenize(cache, model, options, workers, recipe, token_options or TokenOptions(), engine)


def _tokenize(
    cache: Path,
    model: str,
    options: PackOptions,
    workers: int | None,
    recipe: Recipe | None,
    token_options: TokenOptions,
    engine: str,
) -> Built:
    folder = cache / "conversations"
    source = read_conversations_manifest(folder)
    corpus = read_corpus(folder, source)
    _require_sources(options.val_sources, corpus.names, source)
    mixture = _mixture(recipe, corpus.names, source)
    targets = ruled_targets(recipe, corpus.names, source, token_options)
    tokenizer = load_tokenizer(model, cache)
    token_options = settled_options(token_options, tokenizer, date.today())
    tokens = tokens_fingerprint(tokenizer, token_options)
    fingerprint = _fingerprint(corpus, tokens, options, mixture, targets)
    conversations_sha256 = sha256_file(folder / "manifest.json")
    shards = cache / "shards"
    there = find_same(shards, fingerprint)
    made_of = there.whole and (there.whole.model, there.whole.conversations_sha256)
    examples = cache / "tokens" / tokens[:16]
    if there.whole is not None and made_of == (model, conversations_sha256) and all_whole(examples):
        return Built(manifest=there.whole, folder=shards, tokenized=0, up_to_date=True)

    chunks = keyed_chunks(find_chunks(corpus.ids), corpus, targets)
    write_examples_manifest(examples, model, tokenizer, token_options)
    found = sound_files(examples, chunks)
    missing = [chunk for chunk, file in zip(chunks, found, strict=True) if file is None]
    remove_leftovers(examples)
    work = TokenWork(
        conversations=folder,
        manifest=source,
        tokenizer=tokenizer,
        options=token_options,
        targets=targets,
        folder=examples,
    )
    filled = fill_cache(work, missing, workers, engine)
    files = _with_made(found, sound_files(examples, missing), examples)
    counts = RowCounts()
    selection = select_spans(counts.watch(map(open_chunk, files)), chunks, corpus.sources, options)
    sides = choose_sides(selection.examples, corpus.keys, corpus.names, options, mixture)
    listing = shards / f"quarantine-{fingerprint[:8]}.jsonl"
    quarantine = write_quarantine(listing, folder, source, selection, sides)
    _require_examples(cache, sides, listing)
    splits = _write_splits(shards, sides, corpus.keys, files, options, fingerprint, there.shards)
    manifest = ShardsManifest(
        format=SHARDS_FORMAT,
        version=SHARDS_VERSION,
        model=model,
        tokenizer=_tokenizer_record(tokenizer, *copy_tokenizer(tokenizer, shards)),
        token_options=token_options,
        options=options,
        mixture=mixture,
        conversations_sha256=conversations_sha256,
        fingerprint=fingerprint,
        tokens_fingerprint=tokens,
        sources=corpus.names,
        ledger=close_ledger(source, selection, sides, splits, counts),
        splits=splits,
        by_source={name: count_by_source(side, corpus.names) for name, side in sides.splits.items()},
        quarantine=quarantine,
        targets=targets,
    )
    write_manifest(shards / "manifest.json", manifest)
    remove_stale(shards, manifest)
    return Built(manifest=manifest, folder=shards, tokenized=filled.tokenized, up_to_date=False, cluster=filled.cluster)


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


def _with_made(found: Sequence[Path | None], made: Sequence[Path | None], folder: Path) -> list[Path]:
    """The files of all chunks: in the places of those that weren't found, in order, those that were made."""
    rest = iter(made)
    files = [next(rest) if file is None else file for file in found]
    whole = [file for file in files if file is not None]
    if len(whole) < len(files):
        raise CacheError(f"{folder}: chunks that were just written can't be read; check the disk, then run it again")
    return whole


def _write_splits(
    shards: Path,
    sides: Sides,
    keys: NDArray[np.uint64],
    files: Sequence[Path],
    options: PackOptions,
    fingerprint: str,
    there: Mapping[str, ShardRecord],
) -> dict[str, list[ShardRecord]]:
    """Pack each side and write its shards, but for those that are there."""
    splits = {}
    for name, side in sides.splits.items():
        examples = side.examples
        shuffle_keys = mixed(keys[examples.rows] + examples.starts.astype(np.uint64), options.seed)
        lengths, copies = examples.lengths, side.copies
        packing = pack_examples(lengths, shuffle_keys, copies, options.seq_len, options.seed, options.pack)
        splits[name] = write_shards(shards, name, fingerprint[:8], examples, packing, options.seq_len, files, there)
    return splits


def _tokenizer_record(tokenizer: ModelTokenizer, folder: str, files: dict[str, str]) -> TokenizerRecord:
    from dataprep.core.encode import encoder_name

    proven = tokenizer.encoder_proof is not None
    return TokenizerRecord(
        folder=folder,
        sha256=tokenizer.sha256,
        template_sha256=tokenizer.template_sha256,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        encoder=f"{encoder_name(fast=proven)} ({tokenizer.encoder_note})",
        files=files,
    )
