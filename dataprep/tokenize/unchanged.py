"""A run that would make the shards that are there: found without reading conversations, chunks or shards.

Bytes count as checked where no file was written to since shards/manifest.json was, nor in the same tick of some
milliseconds. The time is that of the file system (ctime), which no program sets: in a copied cache every byte is
checked once. What flips on a disk without being written is for `dataprep verify` to find, and for runs that read it.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dataprep.tokenize.in_use import tokens_folder
from dataprep.tokenize.shards_folder import named_files
from schemas.errors import CacheError
from schemas.manifest import Artefact, ConversationsManifest, ShardRecord, ShardsManifest, read_shards_manifest


def find_alike(shards: Path, alike: Callable[[ShardsManifest], bool]) -> ShardsManifest | None:
    """The manifest of shards that are there, if it is alike what a run would write."""
    try:
        manifest = read_shards_manifest(shards)
    except CacheError:
        return None
    return manifest if alike(manifest) else None


def none_written(cache: Path, source: ConversationsManifest, manifest: ShardsManifest) -> bool:
    """Whether the parts, the shards and the files beside them are there in full, and none was written to since.

    Chunks may be gone, but those that are there may not have been written to, either.
    """
    shards, tokens = cache / "shards", tokens_folder(cache, manifest.tokens_fingerprint)
    try:
        made = (shards / "manifest.json").stat().st_ctime_ns
        for path, size in _files(cache, source, manifest):
            found = path.stat()
            if found.st_ctime_ns >= made or size not in (None, found.st_size):
                return False
        if tokens.is_dir():
            (tokens / "manifest.json").stat()
            with os.scandir(tokens) as entries:
                return all(entry.stat().st_ctime_ns < made for entry in entries)
    except OSError:
        return False
    return True


def _files(cache: Path, source: ConversationsManifest, manifest: ShardsManifest) -> Iterator[tuple[Path, int | None]]:
    """Files and their sizes, where those are known."""
    shards = cache / "shards"
    records: list[Artefact | ShardRecord] = [record for side in manifest.splits.values() for record in side]
    records.append(manifest.quarantine)
    sizes = {record.file: record.bytes for record in records}
    yield from ((cache / "conversations" / part.file, part.bytes) for part in source.parts)
    yield from ((shards / name, sizes.get(name)) for name in named_files(manifest))


def note_checked(shards: Path) -> None:
    """Let `none_written` take every byte for checked that was written so far."""
    path = shards / "manifest.json"
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # sets its ctime to now
