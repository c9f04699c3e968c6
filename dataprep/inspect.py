"""`dataprep inspect`: a pack or a conversation as text, targets set off from context."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
from tokenizers import Tokenizer

from dataprep.core.columns import read_rows
from dataprep.core.shards import Pack, all_packs, map_shard, read_pack, shards_folder
from dataprep.stages.sides import BY_RECIPE
from schemas.errors import CacheError, InputError
from schemas.manifest import ConversationsManifest, ShardsManifest, read_conversations_manifest, read_shards_manifest

_GREEN, _GREY, _BOLD, _OFF = "\x1b[32m", "\x1b[90m", "\x1b[1m", "\x1b[0m"


def pack_text(cache: Path, split: str, number: int, ids: bool, colour: bool) -> str:
    """Pack `number` of a split, example by example. Raises InputError where there is no such pack."""
    folder = shards_folder(cache)
    manifest = read_shards_manifest(folder)
    if split not in manifest.splits:
        raise InputError(f"--split {split}: the shards hold {' and '.join(manifest.splits)}")
    total = sum(record.packs for record in manifest.splits[split])
    if not 0 <= number < total:
        raise InputError(f"--pack {number}: {split} holds packs 0 to {total - 1}")
    row = number
    for record in manifest.splits[split]:
        if row < record.packs:
            pack = read_pack(map_shard(folder, record), row)
            head = (
                f"{split} pack {number} of {total} ({record.file}, row {row}): {len(pack.input_ids):,} of "
                f"{manifest.options.seq_len:,} tokens, {len(pack.seq_lengths)} examples, {pack.num_targets:,} targets"
            )
            shown = [_example_text(folder, manifest, pack, i, ids, colour) for i in range(len(pack.seq_lengths))]
            return "\n".join([_bold(head, colour), _legend(colour), *shown])
        row -= record.packs
    raise AssertionError("the manifest counts its packs")


def conversation_text(cache: Path, wanted: str, ids: bool, colour: bool) -> str:
    """A conversation by row or by the start of its id: its examples, or why it was turned away."""
    folder = shards_folder(cache)
    manifest = read_shards_manifest(folder)
    conversations = folder.parent / "conversations"
    source = read_conversations_manifest(conversations)
    row = _find_row(conversations, source, wanted)
    record = read_rows(conversations, source, row, row + 1, ["id", "source", "origin"]).to_pylist()[0]
    origin = f"{record['origin']['file']}:{record['origin']['row']}"
    head = f"conversation {row} ({record['id']}) of {record['source']}, from {origin}"
    shown = _examples_of(row, folder, manifest, ids, colour) or [_why_not(folder, manifest, record["id"])]
    return "\n".join([_bold(head, colour), _legend(colour), *shown])


def _find_row(folder: Path, manifest: ConversationsManifest, wanted: str) -> int:
    if wanted.isdecimal() and int(wanted) < manifest.kept:
        return int(wanted)
    ids = read_rows(folder, manifest, 0, manifest.kept, ["id"]).column("id").to_pylist()
    found = [row for row, conversation_id in enumerate(ids) if conversation_id.startswith(wanted)]
    if not found:
        raise InputError(f"--conversation {wanted}: no such row (0 to {manifest.kept - 1}) and no id begins so")
    return found[0]


def _examples_of(row: int, folder: Path, manifest: ShardsManifest, ids: bool, colour: bool) -> list[str]:
    """The examples of a conversation; one with copies once, with the places of all."""
    places: dict[int, list[str]] = {}
    texts: dict[int, str] = {}  # both by the example's first token in the conversation
    for file, pack_row, pack in all_packs(folder, manifest):
        for number in np.flatnonzero(pack.conversation_rows == row).tolist():
            start = int(pack.conversation_starts[number])
            places.setdefault(start, []).append(f"{file}, pack {pack_row}")
            if start not in texts:
                texts[start] = _example_text(folder, manifest, pack, number, ids, colour)
    return [f"in {'; '.join(places[start])}\n{texts[start]}" for start in sorted(texts)]


def _why_not(folder: Path, manifest: ShardsManifest, conversation_id: str) -> str:
    quarantine = folder / manifest.quarantine.file
    for line in quarantine.read_bytes().splitlines():
        record = orjson.loads(line)
        if record["id"] == conversation_id:
            return f"turned away: {record['reason']}: {record['detail']}; {record['fix']}"
    if BY_RECIPE in manifest.ledger.turned_away:
        return f"{BY_RECIPE}: a weight or cap of its source keeps it out of training"
    raise CacheError(f"{quarantine}: says nothing of this conversation; run `dataprep verify`")


def _example_text(folder: Path, manifest: ShardsManifest, pack: Pack, number: int, ids: bool, colour: bool) -> str:
    low, high = pack.bounds()[number]
    targets = pack.targets[low:high]
    row, start = int(pack.conversation_rows[number]), int(pack.conversation_starts[number])
    source = manifest.sources[pack.source_ids[number]]
    title = f"── example {number}: {source}, conversation {row}, {high - low:,} tokens, {int(targets.sum()):,} targets"
    title += f", from its token {start:,} " if start else " "
    tokenizer = _tokenizer(folder, manifest)
    edges = [0, *(np.flatnonzero(np.diff(targets)) + 1).tolist(), high - low]
    spans = [
        _span_text(tokenizer, pack.input_ids[low + a : low + b].tolist(), bool(targets[a]), ids, colour)
        for a, b in pairwise(edges)
    ]
    return _bold(title.ljust(100, "─"), colour) + "\n" + "".join(spans)


def _span_text(tokenizer: Tokenizer, span: list[int], target: bool, ids: bool, colour: bool) -> str:
    if ids:
        text = " ".join(f"{token}:{tokenizer.decode([token], skip_special_tokens=False)!r}" for token in span)
    else:
        text = tokenizer.decode(span, skip_special_tokens=False)
    if colour:
        text = f"{_GREEN if target else _GREY}{text}{_OFF}"
    elif target:
        text = f"⟦{text}⟧"
    return text + "\n" if ids else text


def _tokenizer(folder: Path, manifest: ShardsManifest) -> Tokenizer:
    path = folder / manifest.tokenizer.folder / "tokenizer.json"
    if not path.is_file():
        raise CacheError(f"{path}: missing; run `dataprep tokenize` again")
    return Tokenizer.from_file(str(path))


def _legend(colour: bool) -> str:
    return f"{_GREEN}targets{_OFF} {_GREY}context{_OFF}" if colour else "targets stand in ⟦ ⟧, the rest is context"


def _bold(text: str, colour: bool) -> str:
    return f"{_BOLD}{text}{_OFF}" if colour else text
