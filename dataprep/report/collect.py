"""A cache in, the figures and samples of its report out.

Columns are read a row group, a chunk or a record batch at a time; what is held is a few numbers a conversation. Each
figure is a manifest's or a sum over columns, and both ledgers are the manifests' own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataprep.core.shards import shards_folder
from dataprep.report.by_source import figures_by_source
from dataprep.report.figures import (
    Distribution,
    Figures,
    RowLedger,
    Samples,
    SplitFigures,
    TextFigures,
    TokenFigures,
)
from dataprep.report.samples import choose_rows, make_samples
from dataprep.report.scripts import SCRIPTS
from dataprep.report.text import Index, Texts, languages_of, measure_texts, read_index
from dataprep.report.tokens import Cached, Packed, read_cached, read_packed
from dataprep.report.turned_away import Quarantined, read_quarantines, sample_lines
from schemas.files import sha256_file
from schemas.manifest import (
    ConversationsManifest,
    NormalizeOptions,
    ShardsManifest,
    SourceMix,
    read_conversations_manifest,
    read_shards_manifest,
)

SEED = 0
PACK_SAMPLES = 20
_TURN_EDGES = [*range(1, 11), 13, 17, 25, 33, 49, 65, 129, 257]
_FILL_EDGES = [0, 500, 700, 800, 900, 950, 970, 980, 990, 995, 1_000, 1_001]  # thousandths
_ATTENTION_EDGES = [*range(0, 1_000, 100), 1_001]  # thousandths
_COUNT_EDGES = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 129]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What was read of a cache."""

    cache: Path
    source: ConversationsManifest
    manifest: ShardsManifest | None  # None where there are no shards of these conversations
    stale: bool
    index: Index
    packed: list[Packed]
    cached: Cached | None
    quarantined: Quarantined
    texts: Texts | None


def collect_report(cache: Path, num_samples: int) -> tuple[Figures, Samples]:
    """Measure a cache that holds conversations, and shards where there are some. Raises CacheError."""
    shards = shards_folder(cache)
    folder = shards.parent / "conversations"
    source = read_conversations_manifest(folder)
    there = read_shards_manifest(shards) if (shards / "manifest.json").is_file() else None
    stale = there is not None and there.conversations_sha256 != sha256_file(folder / "manifest.json")
    manifest = None if stale else there

    index = read_index(folder, source)
    packed = read_packed(shards, manifest) if manifest else []
    stages = [("normalize", folder / source.quarantine.file)]
    stages += [("tokenize", shards / manifest.quarantine.file)] if manifest else []
    quarantined = read_quarantines(stages, index.files, max(1, num_samples // 4), SEED)
    lines = sample_lines(quarantined, num_samples)
    wanted = choose_rows(index, packed, num_samples, SEED)
    refused = _rows_of(index, [line["id"] for stage, line in lines if stage == "tokenize"])
    read = _Read(
        cache=shards.parent,
        source=source,
        manifest=manifest,
        stale=stale,
        index=index,
        packed=packed,
        cached=read_cached(shards.parent, index, manifest) if manifest else None,
        quarantined=quarantined,
        texts=measure_texts(folder, source, [*wanted, *refused.values()], SEED) if source.kept else None,
    )
    num_packs = min(PACK_SAMPLES, num_samples)
    samples = make_samples(shards, manifest, index, packed, read.texts, wanted, refused, lines, num_packs, SEED)
    return _figures(read), samples


def _figures(read: _Read) -> Figures:
    source, manifest, cached = read.source, read.manifest, read.cached
    names = list(dict.fromkeys([*read.index.names, *source.sources]))
    rows = _row_ledger(source, manifest)
    newest = read.cache / ("shards" if manifest else "conversations") / "manifest.json"
    return Figures(
        name=read.cache.resolve().name,
        cache=str(read.cache),
        date=datetime.fromtimestamp(newest.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=_version(),
        model=manifest.model if manifest else None,
        encoder=manifest.tokenizer.encoder if manifest else None,
        vocab_size=manifest.tokenizer.vocab_size if manifest else None,
        fingerprint=manifest.fingerprint if manifest else None,
        options=manifest.options if manifest else None,
        mixture={name: _mix_text(mix) for name, mix in manifest.mixture.items()} if manifest else {},
        stale=read.stale,
        rows=rows,
        tokens=manifest.ledger.tokens if manifest else None,
        num_inputs=len(source.inputs),
        input_bytes=sum(file.bytes for file in source.inputs),
        formats=source.formats,
        cleaned=source.cleaned,
        seen=source.seen,
        readings=source.readings,
        settings=_settings(source.options),
        text=_text_figures(read.texts) if read.texts else None,
        lengths=_token_figures(cached) if cached and cached.lengths.any() else None,
        splits=[_split_figures(split, manifest) for split in read.packed] if manifest else [],
        sources=figures_by_source(names, read.index, read.texts, read.packed, cached, read.quarantined, rows),
    )


def distribution(values: NDArray[Any], edges: Sequence[int]) -> Distribution:
    """Describe values, all at least `edges[0]`; a last bin is added for what lies beyond the last edge."""
    top = int(values.max()) if len(values) else 0
    used = [edge for number, edge in enumerate(edges) if number < 2 or edges[number - 1] <= top]
    if top >= used[-1]:
        used.append(top + 1)
    counts, _ = np.histogram(values, bins=np.array(used))
    ranks = np.percentile(values, [50, 90, 99], method="nearest") if len(values) else np.zeros(3)
    p50, p90, p99 = ranks.astype(np.int64).tolist()
    return Distribution(
        edges=used,
        counts=counts.tolist(),
        mean=float(values.mean()) if len(values) else 0.0,
        p50=p50,
        p90=p90,
        p99=p99,
        max=top,
        total=int(values.sum()),
    )


def log_edges(values: NDArray[Any]) -> list[int]:
    """Two bins an octave, from the power of two at or below the 0.1 percentile; the first begins at 0."""
    low = max(3, int(np.log2(max(1.0, float(np.percentile(values, 0.1))))))
    high = max(low + 1, int(np.ceil(np.log2(max(2, int(values.max()) + 1)))))
    return [0, *(round(2 ** (step / 2)) for step in range(2 * low, 2 * high + 1))]


def _row_ledger(source: ConversationsManifest, manifest: ShardsManifest | None) -> RowLedger:
    both = manifest.ledger.turned_away if manifest else source.turned_away
    refused = {name: count - source.turned_away.get(name, 0) for name, count in both.items()}
    return RowLedger(
        rows=source.rows,
        branched=source.branched,
        joined=source.joined,
        kept=source.kept,
        ready=manifest.ledger.kept if manifest else source.kept,
        turned_away=source.turned_away,
        refused={name: count for name, count in refused.items() if count},
    )


def _text_figures(texts: Texts) -> TextFigures:
    languages = languages_of(texts.latin_texts)
    scripts = np.bincount(texts.scripts, minlength=len(SCRIPTS)).tolist()
    return TextFigures(
        turns=distribution(texts.turns, _TURN_EDGES if texts.turns.min() else [0, *_TURN_EDGES]),
        characters=distribution(texts.characters, log_edges(texts.characters)),
        roles=dict(texts.roles.most_common()),
        scripts={name: n for n, name in sorted(zip(scripts, SCRIPTS, strict=True), reverse=True) if n},
        languages=dict(languages.most_common()),
        language_samples=languages.total(),
        with_tools=int(texts.has_tools.sum()),
        with_calls=int((texts.calls > 0).sum()),
        calls=int(texts.calls.sum()),
        tool_messages=texts.roles["tool"],
        with_reasoning=int((texts.reasoning_characters > 0).sum()),
        reasoning_characters=int(texts.reasoning_characters.sum()),
        content_characters=texts.answer_characters,
        messages=texts.roles.total(),
    )


def _token_figures(cached: Cached) -> TokenFigures:
    lengths = distribution(cached.lengths, log_edges(cached.lengths))
    return TokenFigures(lengths=lengths, targets=cached.targets, truncation=cached.truncation)


def _split_figures(split: Packed, manifest: ShardsManifest) -> SplitFigures:
    seq_len = manifest.options.seq_len
    records = manifest.splits[split.name]
    return SplitFigures(
        name=split.name,
        packs=sum(record.packs for record in records),
        examples=sum(record.examples for record in records),
        tokens=sum(record.tokens for record in records),
        targets=sum(record.targets for record in records),
        fill=distribution(split.pack_tokens * 1_000 // seq_len, _FILL_EDGES),
        examples_per_pack=distribution(split.pack_examples, _COUNT_EDGES),
        attention=distribution(split.pack_squares * 1_000 // seq_len**2, _ATTENTION_EDGES),
        bytes=sum(record.bytes for record in records),
    )


def _mix_text(mix: SourceMix) -> str:
    """Put a recipe's entry into words: weight 2, at most 5,000 conversations."""
    caps = {"conversations": mix.max_conversations, "tokens": mix.max_tokens}
    parts = [f"weight {mix.weight:g}", *(f"at most {cap:,} {what}" for what, cap in caps.items() if cap)]
    return ", ".join(parts)


def _rows_of(index: Index, ids: Sequence[str]) -> dict[str, int]:
    """The first row of each of these conversations."""
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return {}
    found = pc.index_in(pa.array(wanted, pa.string()), value_set=index.ids.combine_chunks())
    return {name: row for name, row in zip(wanted, found.to_pylist(), strict=True) if row is not None}


def _settings(options: NormalizeOptions) -> dict[str, str]:
    """What was told to normalize, as words; what was left at nothing is left out."""
    roles = ", ".join(f"{name}={role}" for name, role in options.roles.items())
    clean = ", ".join(f"{step}={value}" for step, value in options.clean.items() if value != "off")
    settings = {
        "format": options.format,
        "roles": roles,
        "preference rows": options.preference,
        "paths of trees": options.paths,
        "encoding": options.encoding,
        "mapping file": options.mapping and f"{len(options.mapping.splitlines())} lines",
        "cleaning": clean,
        "personal data": options.pii,
        "held out": ", ".join(options.held_out),
    }
    return {name: value for name, value in settings.items() if value}


def _version() -> str:
    try:
        return version("sftpack")
    except PackageNotFoundError:
        return "unknown"
