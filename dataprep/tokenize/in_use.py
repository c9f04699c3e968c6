"""Which cached chunks the conversations of a cache need, by the options that its shards were made with."""

from pathlib import Path

from dataprep.core.chunks import Chunk, find_chunks
from dataprep.tokenize.corpus import read_corpus
from dataprep.tokenize.targets import keyed_chunks
from schemas.manifest import ConversationsManifest, ShardsManifest


def needed_chunks(cache: Path, source: ConversationsManifest, shards: ShardsManifest) -> list[Chunk]:
    """Find the chunks that a run with the options of `shards` would look for in tokens/.

    Raises CacheError where a part isn't whole.
    """
    if source.kept == 0:
        return []
    corpus = read_corpus(cache / "conversations", source)
    targets = {name: rules for name, rules in shards.targets.items() if name in corpus.names}
    return keyed_chunks(find_chunks(corpus.ids), corpus.names, corpus.sources, targets)


def tokens_folder(cache: Path, fingerprint: str) -> Path:
    """The folder of the chunks with this fingerprint of tokens."""
    return cache / "tokens" / fingerprint[:16]
