"""`dataprep verify`: is the cache what its manifests say, and are ids and masks what the model's own tokenizer gives?

Ids and masks are derived anew, conversation by conversation, with another encoder and another way to the bounds than
the build takes (dataprep/verify/reference.py); and each trained turn is compared with what inference would show.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.core.columns import read_rows
from dataprep.core.progress import progress_bar
from dataprep.core.shards import Pack, all_packs, map_shard, shards_folder
from dataprep.stages.plan import RefusedError
from dataprep.tokenize.targets import options_of, targets_text
from dataprep.verify.files import file_problems
from dataprep.verify.reference import Derived, Reference
from dataprep.verify.splits import split_problems
from schemas.errors import CacheError, InputError
from schemas.files import sha256_file
from schemas.manifest import (
    Artefact,
    ConversationsManifest,
    ShardRecord,
    ShardsManifest,
    read_conversations_manifest,
    read_shards_manifest,
)

_SHOWN = 20
_KEPT_TOKENS = 20_000_000  # of conversations with several examples, which stand in packs far apart


@dataclass(slots=True)
class Report:
    """What was looked at and what is wrong."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not self.problems

    def text(self) -> str:
        """Lines of text, without a newline at the end."""
        more = [f"… and {len(self.problems) - _SHOWN:,} more"] if len(self.problems) > _SHOWN else []
        verdict = "verified: nothing is wrong" if self.sound else f"{len(self.problems):,} problems"
        return "\n".join([*self.checked, *(f"WRONG {problem}" for problem in self.problems[:_SHOWN]), *more, verdict])


def verify_cache(cache: Path, sample: int | None) -> Report:
    """Check a cache; with `sample`, derive only about so many examples anew. Raises CacheError where none is there."""
    if sample is not None and sample < 1:
        raise InputError(f"--sample {sample}: must be 1 or more; leave it out to check all")
    folder = shards_folder(cache)
    conversations = folder.parent / "conversations"
    source, manifest = read_conversations_manifest(conversations), read_shards_manifest(folder)
    report = Report()
    _check_conversations(report, conversations, source)
    if sha256_file(conversations / "manifest.json") != manifest.conversations_sha256:
        report.problems.append(f"{folder}: made from other conversations; run `dataprep tokenize` again")
    _check_shards(report, folder, manifest)
    report.problems += file_problems(folder.parent, manifest)
    report.checked.append("tokenizer and tokens: checksums")
    _check_ledger(report, manifest)
    if report.sound:
        report.problems += split_problems(folder, manifest)
    if report.sound:
        _check_examples(report, folder, conversations, source, manifest, sample)
    return report


def _check_file(report: Report, path: Path, sha256: str, command: str) -> bool:
    """Whether a file is there with the bytes that its manifest records."""
    if not path.is_file():
        report.problems.append(f"{path}: missing; run `{command}` again")
    elif sha256_file(path) != sha256:
        report.problems.append(f"{path}: its checksum differs from the manifest's; remove it and run `{command}` again")
    else:
        return True
    return False


def _check_conversations(report: Report, folder: Path, manifest: ConversationsManifest) -> None:
    files: list[Artefact] = [*manifest.parts, manifest.quarantine]
    for artefact in files:
        _check_file(report, folder / artefact.file, artefact.sha256, "dataprep normalize")
    if manifest.rows + manifest.branched != manifest.kept + manifest.joined + sum(manifest.turned_away.values()):
        report.problems.append(f"{folder}: rows + branched are not kept + joined + turned away")
    if manifest.kept != sum(part.rows for part in manifest.parts):
        report.problems.append(f"{folder}: kept is not the sum of the parts' rows")
    report.checked.append(f"conversations: {manifest.kept:,} in {len(manifest.parts)} parts, checksums and ledger")


def _check_shards(report: Report, folder: Path, manifest: ShardsManifest) -> None:
    for records in manifest.splits.values():
        for record in records:
            if _check_file(report, folder / record.file, record.sha256, "dataprep tokenize"):
                _check_shard(report, folder, record, manifest.options.seq_len)
    _check_file(report, folder / manifest.quarantine.file, manifest.quarantine.sha256, "dataprep tokenize")
    names = ", ".join(f"{len(records)} {split}" for split, records in manifest.splits.items())
    report.checked.append(f"shards: {names}; checksums, schema, counts, lengths")


def _check_shard(report: Report, folder: Path, record: ShardRecord, seq_len: int) -> None:
    try:
        table = map_shard(folder, record)
    except CacheError as error:
        report.problems.append(str(error))
        return
    for batch in table.to_batches():
        lengths, tokens = _list_lengths(batch, "seq_lengths"), _list_lengths(batch, "input_ids")
        examples = batch.column("seq_lengths").flatten().to_numpy()
        targets = batch.column("assistant_masks").flatten().to_numpy(zero_copy_only=False)
        ends = np.cumsum(examples)
        packs = np.concatenate(([0], np.cumsum(tokens)))
        sums = np.add.reduceat(examples, np.concatenate(([0], np.cumsum(lengths)[:-1])))
        wrong = {
            "seq_lengths don't add up": (sums != tokens).any(),
            "a pack is longer than seq_len": (tokens > seq_len).any(),
            "the first token of an example is a target": targets[ends - examples].any(),
            "num_targets isn't the number of targets": (
                np.add.reduceat(targets, packs[:-1], dtype=np.int64) != batch.column("num_targets").to_numpy()
            ).any(),
        }
        report.problems.extend(f"{folder / record.file}: {what}" for what, is_wrong in wrong.items() if is_wrong)
    counted = {
        "packs": table.num_rows,
        "tokens": sum(len(chunk.flatten()) for chunk in table.column("input_ids").chunks),
        "examples": sum(len(chunk.flatten()) for chunk in table.column("seq_lengths").chunks),
        "targets": int(table.column("num_targets").to_numpy().sum()),
    }
    for name, count in counted.items():
        if getattr(record, name) != count:
            report.problems.append(
                f"{folder / record.file}: holds {count} {name}, the manifest says {getattr(record, name)}"
            )


def _list_lengths(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    return np.diff(batch.column(name).offsets.to_numpy()).astype(np.int64)


def _check_ledger(report: Report, manifest: ShardsManifest) -> None:
    ledger, tokens = manifest.ledger, manifest.ledger.tokens
    if ledger.rows + ledger.branched != ledger.kept + ledger.joined + sum(ledger.turned_away.values()):
        report.problems.append("ledger: rows + branched are not kept + joined + turned away")
    if tokens.tokens + tokens.repeated != tokens.targets + tokens.context + sum(tokens.cut.values()):
        report.problems.append("ledger: tokens + repeated are not targets + context + cut")
    packed = sum(record.tokens for records in manifest.splits.values() for record in records)
    if packed != tokens.targets + tokens.context:
        report.problems.append("ledger: targets + context are not the shards' tokens")
    report.checked.append(f"ledger: {ledger.rows:,} rows and {tokens.tokens:,} tokens accounted for")


def _check_examples(
    report: Report,
    folder: Path,
    conversations: Path,
    source: ConversationsManifest,
    manifest: ShardsManifest,
    sample: int | None,
) -> None:
    tokenizer = _load_tokenizer(report, folder, manifest)
    if tokenizer is None:
        return
    table = read_rows(conversations, source, 0, source.kept, ["messages", "tools", "source"])
    anew = _Anew(_References(tokenizer, manifest), table)
    total = sum(record.examples for records in manifest.splits.values() for record in records)
    step = max(1, total // sample) if sample else 1
    same = copies = 0
    first_copies: dict[tuple[int, int], bytes] = {}
    with progress_bar(-(-total // step), " examples", "verify") as bar:
        for name, pack, number in _every(step, folder, manifest):
            bar.update()
            row = int(pack.conversation_rows[number])
            if manifest.ledger.tokens.repeated:
                content = _content(pack, number)
                first = first_copies.setdefault((row, int(pack.conversation_starts[number])), content)
                if first is not content:
                    copies += 1
                    if first != content:
                        report.problems.append(f"{name}, conversation {row}: its copies differ")
                    continue
            problem = anew.problem(row, pack, number)
            if problem:
                report.problems.append(f"{name}, conversation {row}: {problem}")
            same += problem is None
    distinct = -(-total // step) - copies
    note = f"; {copies:,} more are copies of them" if copies else ""
    report.checked.append(f"examples: {same:,} of {distinct:,} derived anew give the same ids and mask{note}")
    _check_turns(report, manifest, anew, everything=step == 1)


def _check_turns(report: Report, manifest: ShardsManifest, anew: "_Anew", everything: bool) -> None:
    """Tell how the trained turns stand to inference; compare with the manifest where all conversations were seen."""
    turns, tokens = manifest.ledger.turns, manifest.ledger.tokens
    found = ", ".join(f"{count:,} {name}" for name, count in sorted(anew.differing.items())) or "none"
    report.checked.append(
        f"turns: {anew.trained:,} are trained on; those that follow other text than inference shows: {found}"
    )
    for source, rules in manifest.targets.items():
        report.checked.append(f"targets of {source}: {targets_text(rules)}, by the recipe")
    whole = everything and not tokens.cut  # every conversation that was tokenised is in the shards
    if whole and (turns.trained, turns.differing) != (anew.trained, dict(anew.differing)):
        report.problems.append("ledger: turns are not those of the conversations")


class _References:
    """References by the sources' rules: one where no source has its own."""

    def __init__(self, tokenizer: Any, manifest: ShardsManifest) -> None:
        options = manifest.token_options
        self._usual = Reference(tokenizer, options)
        own = {rules: Reference(tokenizer, options_of(options, rules)) for rules in manifest.targets.values()}
        self._own = {source: own[rules] for source, rules in manifest.targets.items()}

    def derive(self, record: dict[str, Any]) -> Derived:
        """All there is to know of a conversation. Raises RefusedError."""
        return self._own.get(record["source"], self._usual).derive(record)

    def decoded(self, ids: NDArray[Any]) -> str:
        """The text of ids."""
        return self._usual.decoded(ids)

    def difference(self, own: NDArray[np.int64], held: NDArray[np.int32]) -> str:
        """How the ids that a shard holds differ from those derived anew, in words."""
        both = min(len(own), len(held))
        unlike = np.flatnonzero(own[:both] != held[:both])
        at = int(unlike[0]) if len(unlike) else both
        texts = [self.decoded(ids[max(0, at - 2) : at + 3]) for ids in (held, own)]
        whole = sorted((self.decoded(own), self.decoded(held)), key=len)
        same = whole[1].startswith(whole[0])
        why = "the same text, by another tokenizer" if same else "other text: its chat template or content is another"
        return f"from token {at} on {texts[0]!r}, not {texts[1]!r} ({why})"


class _Anew:
    """Conversations derived anew; those with several examples are kept for a while."""

    def __init__(self, references: _References, table: pa.Table) -> None:
        self._references, self._table = references, table
        self._kept: dict[int, Derived] = {}
        self._kept_tokens = 0
        self.seen: set[int] = set()
        self.trained = 0
        self.differing: Counter[str] = Counter()

    def problem(self, row: int, pack: Pack, number: int) -> str | None:
        """How an example differs from what the conversation gives anew; None where it doesn't."""
        try:
            derived = self._derived(row)
        except RefusedError as refused:
            return f"should have been turned away: {refused.reason}: {refused}"
        low, high = pack.bounds()[number]
        start = int(pack.conversation_starts[number])
        stop = start + high - low
        if not np.array_equal(derived.ids[start:stop], pack.input_ids[low:high]) or not derived.inside_one(start, stop):
            other = self._references.difference(derived.ids[start:stop], pack.input_ids[low:high])
            return f"its ids differ from apply_chat_template's: {other}"
        expected = derived.mask[start:stop].copy()
        expected[:1] = False
        if not np.array_equal(expected, pack.targets[low:high]):
            at = int((expected != pack.targets[low:high]).argmax())
            said = self._references.decoded(derived.ids[start + at : start + at + 1])
            return f"its mask differs: token {at}, {said!r}, {'is no' if expected[at] else 'is a'} target there"
        return derived.unshown[0] if derived.unshown else None

    def _derived(self, row: int) -> Derived:
        if row in self._kept:
            return self._kept[row]
        derived = self._references.derive(self._table.slice(row, 1).to_pylist()[0])
        if row not in self.seen and derived.turns is not None:
            self.trained += derived.turns.trained
            self.differing.update(derived.turns.differ)
        self.seen.add(row)
        if len(derived.lengths) > 1:
            if self._kept_tokens > _KEPT_TOKENS:
                self._kept.clear()
                self._kept_tokens = 0
            self._kept[row] = derived
            self._kept_tokens += len(derived.ids)
        return derived


def _content(pack: Pack, number: int) -> bytes:
    """A digest of an example's ids and mask."""
    low, high = pack.bounds()[number]
    return blake2b(pack.input_ids[low:high].tobytes() + pack.targets[low:high].tobytes()).digest()


def _every(step: int, folder: Path, manifest: ShardsManifest) -> Iterator[tuple[str, Pack, int]]:
    count = 0
    for file, row, pack in all_packs(folder, manifest):
        for number in range(len(pack.seq_lengths)):
            if count % step == 0:
                yield f"{file}, pack {row}", pack, number
            count += 1


def _load_tokenizer(report: Report, folder: Path, manifest: ShardsManifest) -> Any:
    import hashlib

    from transformers import AutoTokenizer

    place = folder / manifest.tokenizer.folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        report.problems.append(f"{place}: can't be read: {str(error).splitlines()[0]}")
        return None
    found = {
        "sha256": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "template_sha256": hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest(),
    }
    for name, value in found.items():
        if value != getattr(manifest.tokenizer, name):
            report.problems.append(f"{place}: its {name} is not the manifest's; run `dataprep tokenize` again")
    return tokenizer if report.sound else None
