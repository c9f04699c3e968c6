"""`dataprep tokenize`: conversations in the cache -> examples in the cache -> packed shards, with their manifest."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile, rmtree

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.chunks import Chunk, find_chunks
from dataprep.core.columns import canonical_json, read_rows
from dataprep.core.token_cache import fill_cache, tokens_fingerprint
from dataprep.core.tokenizer import ModelTokenizer, load_tokenizer
from dataprep.core.workers import num_cores
from dataprep.stages.pack import fit, mixed, pack_examples
from dataprep.stages.tokenize import FIXES
from dataprep.stages.write import Examples, open_chunk, write_shards
from schemas.errors import CacheError, InputError
from schemas.files import remove_leftovers, sha256_file, write_text_whole
from schemas.manifest import (
    SHARDS_FORMAT,
    SHARDS_VERSION,
    Artefact,
    ConversationsManifest,
    Ledger,
    PackOptions,
    ShardsManifest,
    TokenizerRecord,
    TokenLedger,
    read_conversations_manifest,
    read_shards_manifest,
    write_manifest,
)

_TOO_LONG = "too-long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What `tokenize_corpus` did."""

    manifest: ShardsManifest
    folder: Path
    tokenized: int  # conversations that weren't in the cache
    up_to_date: bool


def tokenize_corpus(cache: Path, model: str, options: PackOptions, workers: int | None = None) -> Built:
    """Tokenise the conversations of `cache` for `model` and pack them. Does only what isn't there already.

    Raises CacheError (no conversations, damaged files, a full disk), ModelError, InputError (nothing to train on).
    """
    conversations = cache / "conversations"
    source = read_conversations_manifest(conversations)
    _require_parts(conversations, source)
    tokenizer = load_tokenizer(model, cache)
    conversations_sha256 = sha256_file(conversations / "manifest.json")
    ids, source_names = _ids_and_sources(conversations, source)
    tokens = tokens_fingerprint(tokenizer)
    decides = [SHARDS_VERSION, ids, source_names, tokens, asdict(options)]
    fingerprint = hashlib.sha256(canonical_json(decides)).hexdigest()
    shards = cache / "shards"
    there = _complete(shards, fingerprint)
    if there is not None and (there.model, there.conversations_sha256) == (model, conversations_sha256):
        return Built(manifest=there, folder=shards, tokenized=0, up_to_date=True)

    chunks = find_chunks(ids)
    folder = cache / "tokens" / tokens[:16]
    tokenized = fill_cache(folder, conversations, source, chunks, tokenizer, workers or num_cores())
    corpus = _open_corpus(folder, chunks)
    names = sorted(set(source_names))
    selection = _select(corpus, chunks, [names.index(name) for name in source_names], options)
    splits = _write_splits(shards, selection, ids, corpus, options, fingerprint)
    manifest = ShardsManifest(
        format=SHARDS_FORMAT,
        version=SHARDS_VERSION,
        model=model,
        tokenizer=_tokenizer_record(tokenizer, _copy_tokenizer(tokenizer, shards)),
        options=options,
        conversations_sha256=conversations_sha256,
        fingerprint=fingerprint,
        sources=names,
        ledger=_ledger(source, selection, splits),
        splits=splits,
        quarantine=_write_quarantine(shards / f"quarantine-{fingerprint[:8]}.jsonl", conversations, source, selection),
    )
    if not manifest.ledger.tokens.targets:
        raise InputError(f"{cache}: no conversation is left to train on; see {shards / manifest.quarantine.file}")
    write_manifest(shards / "manifest.json", manifest)
    _remove_stale(shards, manifest)
    return Built(manifest=manifest, folder=shards, tokenized=tokenized, up_to_date=False)


def _require_parts(folder: Path, manifest: ConversationsManifest) -> None:
    if manifest.kept == 0:
        raise InputError(
            f"{folder}: holds no conversations; see {folder / manifest.quarantine.file} for why rows were turned away"
        )
    for part in manifest.parts:
        path = folder / part.file
        if not path.is_file() or path.stat().st_size != part.bytes:
            raise CacheError(f"{path}: missing or not of {part.bytes} bytes; run `dataprep normalize` again")


def _complete(shards: Path, fingerprint: str) -> ShardsManifest | None:
    """The manifest in `shards` if it is what a run would make again."""
    try:
        manifest = read_shards_manifest(shards)
    except CacheError:
        return None
    files = [record for records in manifest.splits.values() for record in records]
    whole = all((shards / f.file).is_file() and (shards / f.file).stat().st_size == f.bytes for f in files)
    here = (
        whole
        and (shards / manifest.tokenizer.folder / "tokenizer.json").is_file()
        and (shards / manifest.quarantine.file).is_file()
    )
    return manifest if here and manifest.fingerprint == fingerprint else None


def _ids_and_sources(folder: Path, manifest: ConversationsManifest) -> tuple[list[str], list[str]]:
    table = read_rows(folder, manifest, 0, manifest.kept, ["id", "source"])
    return table.column("id").to_pylist(), table.column("source").to_pylist()


def _open_corpus(folder: Path, chunks: Sequence[Chunk]) -> list[pa.RecordBatch]:
    """Map every chunk, in order. Raises CacheError naming a damaged one, after removing it."""
    batches = []
    for chunk in chunks:
        path = folder / f"{chunk.key}.arrow"
        try:
            batch = open_chunk(path)
        except (OSError, pa.ArrowInvalid) as error:
            path.unlink(missing_ok=True)
            raise CacheError(f"{path}: damaged, removed; run the command again to make it anew") from error
        if batch.num_rows != chunk.stop - chunk.start:
            path.unlink()
            raise CacheError(f"{path}: holds {batch.num_rows} rows, not its own; removed, run the command again")
        batches.append(batch)
    return batches


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    """Which spans of the corpus become examples, and what became of the rest."""

    examples: Examples
    tokens: int  # of all tokenised conversations
    cut: dict[str, int]  # tokens left out, by reason
    turned_away: dict[int, tuple[str, str]]  # row -> reason, detail


def _select(
    corpus: Sequence[pa.RecordBatch], chunks: Sequence[Chunk], sources: Sequence[int], options: PackOptions
) -> _Selection:
    spans: list[NDArray[np.int64]] = [np.empty((0, 5), dtype=np.int64)]
    turned_away: dict[int, tuple[str, str]] = {}
    cut: Counter[str] = Counter()
    tokens = 0
    for number, (chunk, batch) in enumerate(zip(chunks, corpus, strict=True)):
        offsets = to_numpy(batch.column("input_ids").offsets).astype(np.int64)
        lengths = np.diff(offsets)
        tokens += int(lengths.sum())
        kept = np.flatnonzero((lengths > 0) & (lengths <= options.seq_len))
        zero = np.zeros(len(kept), dtype=np.int64)
        spans.append(np.stack([kept + chunk.start, zero, lengths[kept], zero + number, offsets[kept]], axis=1))
        for row in np.flatnonzero(lengths == 0).tolist():
            turned_away[chunk.start + row] = (batch["reason"][row].as_py(), batch["detail"][row].as_py())
        for row in np.flatnonzero(lengths > options.seq_len).tolist():
            pieces = _pieces(batch, row, int(lengths[row]), options)
            reason = f"overflow-{options.overflow}" if pieces else _TOO_LONG
            cut[reason] += int(lengths[row]) - sum(stop - start for start, stop in pieces)
            if not pieces:
                detail = f"{lengths[row]} tokens, no turn of it fits into {options.seq_len}"
                turned_away[chunk.start + row] = (_TOO_LONG, detail)
            for start, stop in pieces:
                spans.append(np.array([[chunk.start + row, start, stop - start, number, offsets[row] + start]]))
    rows, starts, lengths, numbers, places = np.concatenate(spans).T
    in_order = np.lexsort((starts, rows))
    examples = Examples(
        rows=rows,
        starts=starts,
        lengths=lengths,
        sources=np.array(sources, dtype=np.int32)[rows],
        chunks=numbers,
        places=places,
    )
    return _Selection(
        examples=examples[in_order], tokens=tokens, cut={r: n for r, n in cut.items() if n}, turned_away=turned_away
    )


def _pieces(batch: pa.RecordBatch, row: int, length: int, options: PackOptions) -> list[tuple[int, int]]:
    starts, ends = batch["turn_starts"][row].as_py(), batch["turn_ends"][row].as_py()
    targets = to_numpy(batch["assistant_masks"][row].values)
    return fit(length, starts, ends, targets, options.seq_len, options.overflow)


def _write_splits(
    shards: Path,
    selection: _Selection,
    ids: Sequence[str],
    corpus: Sequence[pa.RecordBatch],
    options: PackOptions,
    fingerprint: str,
) -> dict[str, list]:
    """Divide the examples by a hash of their conversation's content, pack each side and write its shards."""
    examples = selection.examples
    keys = np.array([int(conversation_id[:16], 16) for conversation_id in ids], dtype=np.uint64)[examples.rows]
    held_out = mixed(keys, 0) < np.uint64(int(options.val_fraction * 2**64))
    shuffle_keys = mixed(keys + examples.starts.astype(np.uint64), options.seed)
    splits = {}
    for name, chosen in (("train", ~held_out), ("val", held_out)):
        if name == "val" and not chosen.any():
            continue
        own = examples[chosen]
        packing = pack_examples(own.lengths, shuffle_keys[chosen], options.seq_len, options.seed)
        splits[name] = write_shards(shards, name, fingerprint[:8], own, packing, options.seq_len, corpus)
    return splits


def _ledger(source: ConversationsManifest, selection: _Selection, splits: dict[str, list]) -> Ledger:
    records = [record for shard in splits.values() for record in shard]
    targets, packed = sum(r.targets for r in records), sum(r.tokens for r in records)
    assert packed + sum(selection.cut.values()) == selection.tokens, "every token is packed or counted as cut"
    reasons = Counter(source.turned_away) + Counter(reason for reason, _ in selection.turned_away.values())
    return Ledger(
        rows=source.rows,
        kept=source.kept - len(selection.turned_away),
        turned_away=dict(sorted(reasons.items())),
        tokens=TokenLedger(tokens=selection.tokens, targets=targets, context=packed - targets, cut=selection.cut),
    )


def _tokenizer_record(tokenizer: ModelTokenizer, folder: str) -> TokenizerRecord:
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
    )


def _write_quarantine(
    path: Path, conversations: Path, source: ConversationsManifest, selection: _Selection
) -> Artefact:
    rows = sorted(selection.turned_away)
    lines = []
    if rows:
        table = read_rows(conversations, source, 0, source.kept, ["id", "origin"])
        for row, record in zip(rows, table.take(rows).to_pylist(), strict=True):
            reason, detail = selection.turned_away[row]
            fix = FIXES.get(reason, "raise --seq-len, or pass --overflow split")
            line = {**record["origin"], "id": record["id"], "reason": reason, "detail": detail, "fix": fix}
            lines.append(orjson.dumps(line).decode() + "\n")
    write_text_whole(path, "".join(lines))
    return Artefact(file=path.name, rows=len(lines), bytes=path.stat().st_size, sha256=sha256_file(path))


def _copy_tokenizer(tokenizer: ModelTokenizer, shards: Path) -> str:
    """Put the tokenizer's files beside the shards, so that trainers need nothing else; returns the folder's name."""
    folder = shards / f"tokenizer-{Path(tokenizer.folder).parent.name[:8]}"
    if not folder.is_dir():
        partial = shards / f".{folder.name}.{os.getpid()}.tmp"
        try:
            partial.mkdir(parents=True)
            for path in sorted(Path(tokenizer.folder).iterdir()):
                copyfile(path, partial / path.name)
            with suppress(OSError):  # another run has put the same there
                partial.rename(folder)
        except OSError as error:
            raise CacheError(f"{folder}: cannot be written: {error.strerror}; free space there") from error
        finally:
            rmtree(partial, ignore_errors=True)
    return folder.name


def _remove_stale(shards: Path, manifest: ShardsManifest) -> None:
    """Remove what earlier manifests named; a trainer that has mapped a shard keeps it until it ends."""
    named = {record.file for records in manifest.splits.values() for record in records}
    named |= {manifest.quarantine.file, manifest.tokenizer.folder}
    for pattern in ("*.arrow", "quarantine-*.jsonl", "tokenizer-*"):
        for path in shards.glob(pattern):
            if path.name not in named:
                rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    remove_leftovers(shards)
