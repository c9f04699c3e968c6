"""The folder shards/: which of it is whole, the tokenizer in it, and removing what no manifest names any more."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile, rmtree

from dataprep.core.tokenizer import ModelTokenizer
from schemas.errors import CacheError
from schemas.files import damaged_files, remove_leftovers, sha256_file, written_whole
from schemas.manifest import ShardRecord, ShardsManifest, read_shards_manifest

OURS = re.compile(r"[a-z]+-\d{5}-[0-9a-f]{8}\.arrow|quarantine-[0-9a-f]{8}\.jsonl|tokenizer-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is there of the shards that a run would make."""

    whole: ShardsManifest | None = None  # where nothing of what it names is missing or damaged
    shards: dict[str, ShardRecord] = field(default_factory=dict)  # by file: those that are as their manifest says


def find_same(shards: Path, fingerprint: str) -> Found:
    """Look for the shards of this fingerprint, and check every byte of them."""
    try:
        manifest = read_shards_manifest(shards)
    except CacheError:
        return Found()
    if manifest.fingerprint != fingerprint:
        return Found()
    damaged = damaged_files(shards, named_files(manifest))
    records = [record for records in manifest.splits.values() for record in records]
    sound = {record.file: record for record in records if record.file not in damaged}
    return Found(whole=None if damaged else manifest, shards=sound)


def named_files(manifest: ShardsManifest) -> dict[str, str]:
    """Every file that a manifest of shards names, below its folder, with its SHA-256."""
    files = {record.file: record.sha256 for records in manifest.splits.values() for record in records}
    files[manifest.quarantine.file] = manifest.quarantine.sha256
    tokenizer = manifest.tokenizer
    return files | {f"{tokenizer.folder}/{name}": digest for name, digest in tokenizer.files.items()}


def copy_name(tokenizer: ModelTokenizer) -> str:
    """The folder beside the shards for the tokenizer's files."""
    return f"tokenizer-{Path(tokenizer.folder).parent.name[:8]}"


def copy_tokenizer(tokenizer: ModelTokenizer, shards: Path) -> tuple[str, dict[str, str]]:
    """Put the tokenizer's files beside the shards, so that trainers need nothing else.

    Returns the folder's name, and the files in it with their SHA-256.
    """
    folder = shards / copy_name(tokenizer)
    files = {path.name: sha256_file(path) for path in sorted(Path(tokenizer.folder).iterdir())}
    for name in damaged_files(folder, files):
        with written_whole(folder / name) as temporary:
            copyfile(Path(tokenizer.folder) / name, temporary)
    return folder.name, files


def remove_stale(shards: Path, manifest: ShardsManifest) -> None:
    """Remove what earlier manifests named; a trainer that has mapped a shard keeps it until it ends."""
    named = {record.file for records in manifest.splits.values() for record in records}
    named |= {manifest.quarantine.file, manifest.tokenizer.folder}
    for path in list(shards.iterdir()):
        if path.name not in named and OURS.fullmatch(path.name):
            rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    remove_leftovers(shards)
    remove_leftovers(shards / manifest.tokenizer.folder)
