"""What `dataprep tokenize` prints when it is done: both ledgers, the packs, the sources, and where to go from there."""

import os
from collections.abc import Iterable

from dataprep.stages.agree import END, PROMPT, REASONING, TEXT
from dataprep.stages.control_tokens import CONTROL_TOKENS_AS_TEXT
from dataprep.stages.sides import BY_RECIPE
from dataprep.stages.tracing import END_ADDED, FOUND_BY_RENDERING
from dataprep.tokenize.recipe import listed
from dataprep.tokenize.run import Built
from dataprep.tokenize.targets import targets_text
from schemas.manifest import PackOptions, ShardRecord, ShardsManifest, SourceCounts, SourceMix

_SOURCES_SHOWN = 8
_NOTES = {
    CONTROL_TOKENS_AS_TEXT: "hold strings of control tokens, which stay text (--control-tokens)",
    FOUND_BY_RENDERING: "were rendered part by part to find their turns, as the template can't be traced",
}
_PACKED = {"best-fit": "", "sequential": ", in order", "none": ", one example each"}
_NONE = SourceCounts(conversations=0, examples=0, tokens=0)


def tokenize_summary(built: Built, seconds: float) -> str:
    """Lines of aligned text, without a newline at the end."""
    manifest = built.manifest
    turned_away = manifest.ledger.turned_away
    rows = [*_row_counts(manifest), *_token_counts(manifest), *_turn_counts(manifest)]
    rows += [_split_row(name, records, manifest.options) for name, records in manifest.splits.items()]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name:<{width}}  {count:>13,}  {note}".rstrip() for name, count, note in rows]
    lines += [*_turn_lines(manifest), *_note_lines(manifest), *_source_lines(manifest)]
    if manifest.quarantine.rows:
        lines.append(f"turned away here, with reason and remedy: {built.folder / manifest.quarantine.file}")
    if sum(turned_away.values()) - turned_away.get(BY_RECIPE, 0) > manifest.quarantine.rows:
        lines.append(f"turned away by normalize: {built.folder.parent / 'conversations'}/quarantine-*.jsonl")
    lines.append(f"ids by {manifest.tokenizer.encoder}")
    if built.up_to_date:
        lines.append(f"{built.folder}: up to date, nothing to do ({seconds:.1f} s)")
    else:
        by = f" by {built.cluster}" if built.cluster else ""
        made = f"{built.tokenized:,} conversations tokenised anew{by}"
        lines.append(f"{built.folder}: written in {seconds:.1f} s, {made}")
    cache = os.fspath(built.folder.parent)
    lines.append(f"next: dataprep inspect {cache}   |   train run --shards {cache}")
    return "\n".join(lines)


def _row_counts(manifest: ShardsManifest) -> list[tuple[str, int, str]]:
    ledger = manifest.ledger
    between = [
        ("  branched", ledger.branched, "further conversations of a row"),
        ("  joined", ledger.joined, "to others"),
    ]
    return [
        ("rows", ledger.rows, ""),
        *(row for row in between if row[1]),
        ("  kept", ledger.kept, ""),
        *(
            (f"  {reason}", count, "" if reason == BY_RECIPE else "turned away")
            for reason, count in ledger.turned_away.items()
        ),
    ]


def _token_counts(manifest: ShardsManifest) -> list[tuple[str, int, str]]:
    tokens = manifest.ledger.tokens
    share = f"{tokens.targets / max(1, tokens.targets + tokens.context):.0%} of what is packed"
    return [
        ("tokens", tokens.tokens, ""),
        *([("  repeated", tokens.repeated, "more, by the recipe")] if tokens.repeated else []),
        ("  targets", tokens.targets, share),
        ("  context", tokens.context, ""),
        *((f"  {reason}", count, "cut") for reason, count in tokens.cut.items()),
    ]


def _turn_counts(manifest: ShardsManifest) -> list[tuple[str, int, str]]:
    """Turns trained on, and how those that inference would show otherwise differ."""
    turns = manifest.ledger.turns
    if not turns.trained:
        return []
    differing, alike = sum(turns.differing.values()), turns.trained - sum(turns.differing.values())
    note = "all just as inference shows them" if not differing else f"{alike:,} of them just as inference shows them"
    return [
        ("turns", turns.trained, f"trained on, {note}"),
        *((f"  {name}", count, _DIFFERS.get(name, _ARGUMENT)) for name, count in turns.differing.items()),
        *((f"  {name}", count, "more, not trained on") for name, count in turns.left_out.items()),
    ]


_DIFFERS = {
    REASONING: "the template leaves out their reasoning, or a part of their text",
    PROMPT: "inference would put other text before them",
    TEXT: "written otherwise where a conversation ends with them",
    END: "ended otherwise where a conversation ends with them",
}
_ARGUMENT = "lack what inference puts before the answer with this argument"


def _turn_lines(manifest: ShardsManifest) -> list[str]:
    """What exact turns would cost, and how to ask the model."""
    turns, options = manifest.ledger.turns, manifest.token_options
    lines = []
    if turns.exact_differing < sum(turns.differing.values()) and options.turns == "whole" and options.train_on != "all":
        more = turns.exact_tokens / max(1, manifest.ledger.tokens.tokens) - 1
        lines.append(f"--turns exact: {turns.exact_differing:,} turns differ, for about {more:+.0%} tokens")
    for name, count in turns.prompts.items():
        lines.append(f"{count:,} turns follow the prompt of {name}: at inference, give the template the same")
    return lines


def _note_lines(manifest: ShardsManifest) -> list[str]:
    """What else is to be known of conversations."""
    lines = []
    for note, count in manifest.ledger.notes.items():
        if note.startswith(END_ADDED):
            token = note.removeprefix(END_ADDED).strip()
            what = f"end with {token}, added: the template ends their last turn with nothing, and this stops inference"
        else:
            what = _NOTES[note]
        lines.append(f"{count:,} conversations {what}")
    return lines


def _split_row(name: str, records: Iterable[ShardRecord], options: PackOptions) -> tuple[str, int, str]:
    records = list(records)
    packs, tokens = sum(r.packs for r in records), sum(r.tokens for r in records)
    examples, size = sum(r.examples for r in records), sum(r.bytes for r in records)
    note = (
        f"of {options.seq_len}{_PACKED[options.pack]}: {examples:,} examples, "
        f"{tokens / (packs * options.seq_len):.2%} full, {size / tokens:.2f} bytes a token"
    )
    return f"{name} packs", packs, note


def _source_lines(manifest: ShardsManifest) -> list[str]:
    """A line for each of the largest sources, and how the sides were made; none where there is nothing to tell."""
    train, val = manifest.by_source["train"], manifest.by_source.get("val", {})
    asked = manifest.options.val_fraction or manifest.options.val_sources or manifest.mixture or manifest.targets
    if len(manifest.sources) == 1 and not asked:
        return []
    packed = sum(counts.tokens for counts in train.values())
    order = sorted(manifest.sources, key=lambda name: (-train.get(name, _NONE).tokens, name))
    rows = [["by source", "trained on", "weight", "tokens", "share", "held out", "targets"]]
    for name in order[:_SOURCES_SHOWN]:
        counts = train.get(name, _NONE)
        weight = manifest.mixture.get(name, SourceMix()).weight if name not in manifest.options.val_sources else 0
        held_out = val.get(name, _NONE).conversations
        share = f"{counts.tokens / packed:.1%}"
        numbers = [f"{counts.conversations:,}", f"{weight:g}", f"{counts.tokens:,}", share, f"{held_out:,}"]
        rows.append([f"  {name}", *numbers, targets_text(manifest.targets.get(name, manifest.token_options))])
    there = {2: bool(manifest.mixture), 5: bool(val), 6: bool(manifest.targets)}
    shown = [column for column in range(7) if there.get(column, True)]
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    lines = ["  ".join([f"{row[0]:<{widths[0]}}", *(f"{row[i]:>{widths[i]}}" for i in shown[1:])]) for row in rows]
    if len(order) > _SOURCES_SHOWN:
        lines.append(f"  and {len(order) - _SOURCES_SHOWN:,} more: by_source in manifest.json")
    return [*lines, *_how(manifest, bool(val))]


def _how(manifest: ShardsManifest, some: bool) -> list[str]:
    options = manifest.options
    ways = [f"all of {listed(options.val_sources)}"] if options.val_sources else []
    if options.val_fraction:
        others = " of the other sources" if options.val_sources else ""
        ways.append(
            f"{100 * options.val_fraction:g}%{others} by a hash of content, some of every source with two or more"
        )
    note = "; each once, whatever the recipe" if manifest.mixture else ""
    if ways and not some:
        return ["held out: nothing, as too few conversations are left; add more"]
    return [f"held out: {'; '.join(ways)}{note}"] if ways else []
