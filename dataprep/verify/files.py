"""A cache in; what of its tokens and tokenizers is not as it was written, out: no bit of either may flip unnoticed."""

from pathlib import Path

from dataprep.core.chunk_files import damaged_chunks
from dataprep.core.tokenizer import read_bundle
from dataprep.tokenize.in_use import tokens_folder
from schemas.errors import CacheError
from schemas.files import damaged_files
from schemas.manifest import ShardsManifest, read_examples_manifest

_AGAIN = "run `dataprep tokenize` again"


def file_problems(cache: Path, manifest: ShardsManifest) -> list[str]:
    """Check the tokenizer beside the shards, the chunks they were made of that are there, and bundles."""
    tokenizer = cache / "shards" / manifest.tokenizer.folder
    problems = [
        f"{tokenizer / name}: missing, or its checksum differs from the manifest's; remove it and {_AGAIN}"
        for name in damaged_files(tokenizer, manifest.tokenizer.files)
    ]
    tokens = tokens_folder(cache, manifest.tokens_fingerprint)
    problems += [
        f"{path}: its checksum is not that of its name; remove it and {_AGAIN}" for path in damaged_chunks(tokens)
    ]
    if tokens.is_dir():
        try:
            read_examples_manifest(tokens)
        except CacheError as error:
            problems.append(str(error))
    key = manifest.tokenizer.folder.rpartition("-")[2]
    for home in sorted((cache / "tokenizers").glob(f"{key}*")):
        if read_bundle(home) is None:
            problems.append(f"{home}: bundle.json or a file that it stands for is damaged; {_AGAIN}")
    return problems
