"""`dataprep tokenize --shard I/N`: one of N parts of the examples, made apart from the others; packs nothing.

Which part a chunk belongs to follows from the conversations alone, so parts may run at once, on machines that know
nothing of each other, or one after another; together they make every chunk once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from dataprep.core.chunk_files import chunk_files
from dataprep.core.chunks import Chunk, find_chunks
from dataprep.core.lock import locked
from dataprep.core.tokenizer import load_tokenizer
from dataprep.tokenize.chunk_store import ChunkStore
from dataprep.tokenize.corpus import read_corpus
from dataprep.tokenize.fill import ROWS_AT_ONCE, TokenWork, fill_cache, num_rows
from dataprep.tokenize.in_use import tokens_folder
from dataprep.tokenize.options import settled_options
from dataprep.tokenize.recipe import Recipe
from dataprep.tokenize.run import ruled_targets
from dataprep.tokenize.targets import keyed_chunks
from dataprep.tokenize.token_cache import tokens_fingerprint, write_examples_manifest
from schemas.errors import InputError
from schemas.manifest import TokenOptions, read_conversations_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The `number`-th of `count` parts, from 1."""

    number: int
    count: int

    def of(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Its own of all chunks: stripes of about a task, dealt out in turns."""
        return [chunk for chunk in chunks if chunk.start // ROWS_AT_ONCE % self.count == self.number - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartMade:
    """What `tokenize_part` did, in conversations."""

    part: Part
    tokenized: int
    there: int  # tokenised before
    left: int  # of other parts, not tokenised yet


def parsed_part(text: str) -> Part:
    """I/N of --shard. Raises InputError."""
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return Part(number=int(number), count=int(count))
    raise InputError(
        f"--shard {text}: expected I/N, I from 1 to N, such as 2/8; for a Slurm array 1-8: $SLURM_ARRAY_TASK_ID/8"
    )


def tokenize_part(
    cache: Path,
    model: str,
    part: Part,
    workers: int | None = None,
    recipe: Recipe | None = None,
    token_options: TokenOptions | None = None,
    chunks_at: str | None = None,
) -> PartMade:
    """Tokenise one part of the conversations of `cache` that aren't tokenised yet, beside runs of other parts.

    `chunks_at` is where machines share chunks. Raises what `tokenize_corpus` raises.
    """
    folder = cache / "conversations"
    read_conversations_manifest(folder)  # before the lock makes a file
    with locked(cache, shared=True):
        source = read_conversations_manifest(folder)
        corpus = read_corpus(folder, source)
        given = token_options or TokenOptions()
        targets = ruled_targets(recipe, corpus.names, source, given)
        tokenizer = load_tokenizer(model, cache)
        options = settled_options(given, tokenizer, date.today())
        examples = tokens_folder(cache, tokens_fingerprint(tokenizer, options))
        write_examples_manifest(examples, model, tokenizer, options)
        chunks = keyed_chunks(find_chunks(corpus.ids), corpus.names, corpus.sources, targets)
        store = ChunkStore(chunks_at, examples) if chunks_at else None
        if store:
            store.fetch(part.of(chunks))
        before = chunk_files(examples)
        missing = [chunk for chunk in part.of(chunks) if chunk.key not in before]
        work = TokenWork(
            conversations=folder,
            manifest=source,
            tokenizer=tokenizer,
            options=options,
            targets=targets,
            folder=examples,
        )
        filled = fill_cache(work, missing, workers)
        after = set(chunk_files(examples))
        if store:
            store.leave(part.of(chunks))
            after |= store.keys()
        left = [chunk for chunk in chunks if chunk.key not in after]
    return PartMade(
        part=part,
        tokenized=filled.tokenized,
        there=num_rows(part.of(chunks)) - filled.tokenized,
        left=num_rows(left),
    )


def part_summary(made: PartMade, seconds: float) -> str:
    """Two lines: what was made, and what comes next."""
    part = made.part
    done = f"{made.tokenized:,} conversations tokenised in {seconds:.1f} s" if made.tokenized else "nothing to do"
    there = f", {made.there:,} were there" if made.there else ""
    when = f"when the other parts are done ({made.left:,} conversations to go)" if made.left else "all parts are done"
    return f"part {part.number} of {part.count}: {done}{there}\nnext: {when}: run it without --shard to pack them"
