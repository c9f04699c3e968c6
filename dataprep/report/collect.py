"""A cache in, the figures and samples of its report out.

Columns are read a row group, a chunk or a record batch at a time; what is held is a few numbers a conversation. Each
figure is a manifest's or a sum over columns, and both ledgers are the manifests' own.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.core.shards import shards_folder
from dataprep.report.figures import (
    Distribution,
    Figures,
    RowLedger,
    Samples,
    SourceFigures,
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
    cached = read_cached(shards.parent, index.ids.to_pylist(), manifest, packed) if manifest else None
    stages = [("normalize", folder / source.quarantine.file)]
    stages += [("tokenize", shards / manifest.quarantine.file)] if manifest else []
    quarantined = read_quarantines(stages, index.files, max(1, num_samples // 4), SEED)
    lines = sample_lines(quarantined, num_samples)
    wanted = choose_rows(index, packed, num_samples, SEED)
    refused = _rows_of(index, [line["id"] for stage, line in lines if stage == "tokenize"])
    texts = measure_texts(folder, source, [*wanted, *refused.values()], SEED) if source.kept else None
    num_packs = min(PACK_SAMPLES, num_samples)
    samples = make_samples(shards, manifest, index, packed, texts, wanted, refused, lines, num_packs, SEED)
    names = list(dict.fromkeys([*index.names, *source.sources]))
    rows = _row_ledger(source, manifest)
    figures = Figures(
        name=shards.parent.resolve().name,
        cache=str(shards.parent),
        date=_date(folder / "manifest.json", shards / "manifest.json" if manifest else None),
        version=_version(),
        model=manifest.model if manifest else None,
        encoder=manifest.tokenizer.encoder if manifest else None,
        vocab_size=manifest.tokenizer.vocab_size if manifest else None,
        fingerprint=manifest.fingerprint if manifest else None,
        options=manifest.options if manifest else None,
        mixture={name: _mix_text(mix) for name, mix in manifest.mixture.items()} if manifest else {},
        stale=stale,
        rows=rows,
        tokens=manifest.ledger.tokens if manifest else None,
        num_inputs=len(source.inputs),
        input_bytes=sum(file.bytes for file in source.inputs),
        formats=source.formats,
        cleaned=source.cleaned,
        seen=source.seen,
        readings=source.readings,
        settings=_settings(source.options),
        text=_text_figures(texts) if texts else None,
        lengths=_token_figures(cached) if cached and cached.lengths.any() else None,
        splits=[_split_figures(split, manifest) for split in packed] if manifest else [],
        sources=_source_figures(names, index, texts, packed, cached, quarantined, rows),
    )
    return figures, samples


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
    lengths = cached.lengths[cached.lengths > 0]
    return TokenFigures(
        lengths=distribution(lengths, log_edges(lengths)), targets=cached.targets, truncation=cached.truncation
    )


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


def _source_figures(
    names: Sequence[str],
    index: Index,
    texts: Texts | None,
    packed: Sequence[Packed],
    cached: Cached | None,
    quarantined: Quarantined,
    ledger: RowLedger,
) -> list[SourceFigures]:
    turned_away = quarantined.by_source()
    every = list(dict.fromkeys([*names, *turned_away]))
    of_row, size = index.sources, len(every)
    blank = np.zeros(len(of_row), dtype=np.int64)
    turns, characters = (texts.turns, texts.characters) if texts else (blank, blank)
    rows = np.concatenate([blank[:0], *(split.rows for split in packed)])
    lengths = np.concatenate([blank[:0], *(split.example_lengths for split in packed)])
    targets = np.concatenate([blank[:0], *(split.example_targets for split in packed)])
    kept = np.bincount(of_row, minlength=size)
    ready = np.bincount(of_row[np.unique(rows)], minlength=size) if packed else kept
    for name, count in zip(every, (kept - ready).tolist(), strict=True):
        turned_away[name].update(_unlisted(quarantined, ledger, name, count))
    held_out = np.concatenate([blank[:0], *(split.rows for split in packed if split.name == "val")])
    by_row, by_length = (of_row, cached.lengths) if cached else (of_row[rows], lengths)
    columns = {
        "kept": kept,
        "ready": ready,
        "held_out": np.bincount(of_row[np.unique(held_out)], minlength=size),
        "turns": np.bincount(of_row, turns, size),
        "characters": np.bincount(of_row, characters, size),
        "longest_characters": _largest(of_row, characters, size),
        "tokens": np.bincount(of_row[rows], lengths, size),
        "targets": np.bincount(of_row[rows], targets, size),
        "longest_tokens": _largest(by_row, by_length, size),
    }
    figures = [
        SourceFigures(
            name=name,
            turned_away=dict(turned_away[name].most_common()),
            **{column: int(values[number]) for column, values in columns.items()},
        )
        for number, name in enumerate(every)
    ]
    return sorted(figures, key=lambda source: (-source.tokens, -source.kept, source.name))


def _unlisted(quarantined: Quarantined, ledger: RowLedger, source: str, left: int) -> dict[str, int]:
    """Of the `left` conversations of a source that tokenize left out, those that its quarantine file doesn't list."""
    listed = {reason: count for (stage, name, reason), count in quarantined.counts.items() if stage == "tokenize"}
    unlisted = [reason for reason in ledger.refused if reason not in listed]
    own = sum(n for (stage, name, _), n in quarantined.counts.items() if stage == "tokenize" and name == source)
    return {", ".join(unlisted): left - own} if unlisted and left > own else {}


def _mix_text(mix: SourceMix) -> str:
    """Put a recipe's entry into words: weight 2, at most 5,000 conversations."""
    caps = {"conversations": mix.max_conversations, "tokens": mix.max_tokens}
    parts = [f"weight {mix.weight:g}", *(f"at most {cap:,} {what}" for what, cap in caps.items() if cap)]
    return ", ".join(parts)


def _largest(groups: NDArray[Any], values: NDArray[Any], size: int) -> NDArray[np.int64]:
    largest = np.zeros(size, dtype=np.int64)
    np.maximum.at(largest, groups, values)
    return largest


def _rows_of(index: Index, ids: Sequence[str]) -> dict[str, int]:
    """The first row of each of these conversations."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return {}
    found = pc.index_in(pa.array(wanted, pa.string()), value_set=index.ids.combine_chunks())
    return {name: row for name, row in zip(wanted, found.to_pylist(), strict=True) if row is not None}


def _settings(options: NormalizeOptions) -> dict[str, str]:
    """What was told to normalize, as words; what was left at nothing is left out."""
    roles = ", ".join(f"{name}={role}" for name, role in options.roles.items())
    clean = ", ".join(f"{step}={value}" for step, value in options.clean.items())
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


def _date(*manifests: Path | None) -> str:
    newest = max(path.stat().st_mtime for path in manifests if path is not None)
    return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _version() -> str:
    try:
        return version("sftpack")
    except PackageNotFoundError:
        return "unknown"
