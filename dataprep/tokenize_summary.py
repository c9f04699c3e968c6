"""What `dataprep tokenize` prints when it is done: both ledgers, the packs, and where to go from there."""

import os
from collections.abc import Iterable

from dataprep.build import Built
from schemas.manifest import ShardRecord


def tokenize_summary(built: Built, seconds: float) -> str:
    """Lines of aligned text, without a newline at the end."""
    manifest = built.manifest
    ledger, tokens = manifest.ledger, manifest.ledger.tokens
    share = f"{tokens.targets / max(1, tokens.targets + tokens.context):.0%} of what is packed"
    rows = [
        ("rows", ledger.rows, ""),
        ("  kept", ledger.kept, ""),
        *((f"  {reason}", count, "turned away") for reason, count in ledger.turned_away.items()),
        ("tokens", tokens.tokens, ""),
        ("  targets", tokens.targets, share),
        ("  context", tokens.context, ""),
        *((f"  {reason}", count, "cut") for reason, count in tokens.cut.items()),
        *(_split_row(name, records, manifest.options.seq_len) for name, records in manifest.splits.items()),
    ]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name:<{width}}  {count:>13,}  {note}".rstrip() for name, count, note in rows]
    if manifest.quarantine.rows:
        lines.append(f"turned away here, with reason and remedy: {built.folder / manifest.quarantine.file}")
    if sum(ledger.turned_away.values()) > manifest.quarantine.rows:
        lines.append(f"turned away by normalize: {built.folder.parent / 'conversations'}/quarantine-*.jsonl")
    lines.append(f"ids by {manifest.tokenizer.encoder}")
    if built.up_to_date:
        lines.append(f"{built.folder}: up to date, nothing to do ({seconds:.1f} s)")
    else:
        lines.append(f"{built.folder}: written in {seconds:.1f} s, {built.tokenized:,} conversations tokenised anew")
    cache = os.fspath(built.folder.parent)
    lines.append(f"next: dataprep inspect {cache}   |   train run --shards {cache}")
    return "\n".join(lines)


def _split_row(name: str, records: Iterable[ShardRecord], seq_len: int) -> tuple[str, int, str]:
    records = list(records)
    packs, tokens = sum(r.packs for r in records), sum(r.tokens for r in records)
    examples, size = sum(r.examples for r in records), sum(r.bytes for r in records)
    note = (
        f"of {seq_len}: {examples:,} examples, {tokens / (packs * seq_len):.2%} full, {size / tokens:.2f} bytes a token"
    )
    return f"{name} packs", packs, note
