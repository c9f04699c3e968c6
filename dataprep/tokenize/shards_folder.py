"""The folder shards/: whether it is complete, the tokenizer in it, and removing what no manifest names any more."""

import os
from contextlib import suppress
from pathlib import Path
from shutil import copyfile, rmtree

from dataprep.core.tokenizer import ModelTokenizer
from schemas.errors import CacheError
from schemas.files import remove_leftovers
from schemas.manifest import ShardsManifest, read_shards_manifest


def complete_manifest(shards: Path, fingerprint: str) -> ShardsManifest | None:
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


def copy_tokenizer(tokenizer: ModelTokenizer, shards: Path) -> str:
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


def remove_stale(shards: Path, manifest: ShardsManifest) -> None:
    """Remove what earlier manifests named; a trainer that has mapped a shard keeps it until it ends."""
    named = {record.file for records in manifest.splits.values() for record in records}
    named |= {manifest.quarantine.file, manifest.tokenizer.folder}
    for pattern in ("*.arrow", "quarantine-*.jsonl", "tokenizer-*"):
        for path in shards.glob(pattern):
            if path.name not in named:
                rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    remove_leftovers(shards)
