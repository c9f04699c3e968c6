"""`dataprep explain`: for each artefact of a cache, what it was made from, and what a run would use again, and why.

It reads manifests, ids and names of files; bytes of raw files only where their times leave a doubt.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataprep.core.chunk_files import CHUNK_FILE, chunk_files
from dataprep.core.sizes import size_text
from dataprep.core.tokenizer import content_key, locate
from dataprep.explain.inputs import InputState, input_lines, input_states
from dataprep.stages.clean.steps import STEPS
from dataprep.tokenize.in_use import needed_chunks, tokens_folder
from schemas.errors import CacheError, SftpackError
from schemas.files import sha256_file
from schemas.manifest import (
    Artefact,
    ConversationsManifest,
    NormalizeOptions,
    ShardsManifest,
    TokenOptions,
    read_conversations_manifest,
    read_examples_manifest,
    read_shards_manifest,
)

_FILES_SHOWN = 6
_FOLDERS_SHOWN = 4
_LABEL = 13  # columns before the text of a line
_USUAL: dict[str, Any] = {
    "format": None,
    "roles": {},
    "preference": "chosen",
    "paths": "best",
    "encoding": None,
    "pii": "off",
}


def explain_cache(cache: Path) -> str:
    """Lines of text without a newline at the end. Raises CacheError where there are no conversations."""
    folder = cache / "conversations"
    source = read_conversations_manifest(folder)
    lines = _conversations_lines(folder, source)
    try:
        shards = read_shards_manifest(cache / "shards")
    except CacheError as error:
        return "\n".join([*lines, *_other_tokens_lines(cache, None), *_labelled("shards", str(error))])
    lines += [
        *_tokens_lines(cache, source, shards),
        *_other_tokens_lines(cache, tokens_folder(cache, shards.tokens_fingerprint)),
    ]
    lines += [*_shards_lines(cache, source, shards), *_tokenizer_lines(cache, shards)]
    return "\n".join(lines)


def _labelled(label: str, *texts: str) -> list[str]:
    """Lines of which the first stands behind a label; a label that is indented is one of the artefact above."""
    return [f"{label if not number else '':<{_LABEL}} {text}" for number, text in enumerate(texts)]


def _conversations_lines(folder: Path, manifest: ConversationsManifest) -> list[str]:
    files: list[Artefact] = [*manifest.parts, manifest.quarantine]
    wrong = [f.file for f in files if not (folder / f.file).is_file() or (folder / f.file).stat().st_size != f.bytes]
    states = input_states(manifest.inputs, (folder / "manifest.json").stat().st_mtime)
    parts = "1 part" if len(manifest.parts) == 1 else f"{len(manifest.parts):,} parts"
    size = size_text(sum(part.bytes for part in manifest.parts))
    turned_away = sum(manifest.turned_away.values())
    return [
        *_labelled("conversations", f"{manifest.kept:,} in {parts} ({size}); {turned_away:,} rows turned away"),
        *_labelled("  made of", *input_lines(states, _FILES_SHOWN)),
        *_labelled("  options", _normalize_options(manifest.options)),
        *_labelled("  next", _normalize_next(wrong, states)),
    ]


def _normalize_next(wrong: list[str], states: list[InputState]) -> str:
    if wrong:
        return f"{wrong[0]} is missing or of another size: run `dataprep normalize` again"
    changed = sum(state.same is False for state in states)
    if changed:
        what = "1 file has changed or gone" if changed == 1 else f"{changed:,} files have changed or gone"
        return f"`dataprep normalize` reads all anew, and gives others: {what}"
    return "`dataprep normalize` reads all anew, and with these files and options gives the same again"


def _normalize_options(options: NormalizeOptions) -> str:
    given: dict[str, Any] = {
        name: getattr(options, name) for name, usual in _USUAL.items() if getattr(options, name) != usual
    }
    given |= {name: value for name, value in options.clean.items() if name not in STEPS or value != STEPS[name].default}
    if options.mapping is not None:
        given["mapping"] = "a file"
    if options.held_out:
        given["held-out"] = ", ".join(options.held_out)
    return _listed(given) or "the usual ones"


def _listed(given: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in given.items())


def _tokens_lines(cache: Path, source: ConversationsManifest, shards: ShardsManifest) -> list[str]:
    folder = tokens_folder(cache, shards.tokens_fingerprint)
    files = chunk_files(folder)
    name = f"tokens/{folder.name}"
    made = [*_labelled("  made by", _made_by(shards.model, shards.tokenizer.sha256, shards.tokenizer.template_sha256))]
    made += _labelled("  options", _token_options(shards.token_options))
    if shards.targets:
        made += _labelled("", f"other targets for {', '.join(shards.targets)}")
    try:
        needed = needed_chunks(cache, source, shards)
    except CacheError as error:
        return [*_labelled("tokens", f"{name}: {len(files):,} chunks"), *made, *_labelled("  next", str(error))]
    missing = [chunk for chunk in needed if chunk.key not in files]
    unused = len(files.keys() - {chunk.key for chunk in needed})
    size = size_text(sum(path.stat().st_size for paths in files.values() for path in paths))
    there = f"{name}: {len(files):,} chunks ({size}), {len(files) - unused:,} of them used"
    rows = sum(chunk.stop - chunk.start for chunk in missing)
    if missing:
        text = f"{len(missing):,} of {len(needed):,} chunks ({rows:,} conversations) would be tokenised anew: "
        text += "conversations changed since" if _changed(cache, shards) else "they are missing"
    else:
        text = f"nothing is tokenised: all {len(needed):,} chunks of the conversations are there"
    gone = [f"{unused:,} chunks are of conversations that are no longer there: dataprep gc"] if unused else []
    return [*_labelled("tokens", there), *made, *_labelled("  next", text, *gone)]


def _changed(cache: Path, shards: ShardsManifest) -> bool:
    return sha256_file(cache / "conversations" / "manifest.json") != shards.conversations_sha256


def _made_by(model: str, tokenizer: str, template: str) -> str:
    return f"{model}: tokenizer {tokenizer[:12]}, chat template {template[:12]}"


def _token_options(options: TokenOptions) -> str:
    return _listed({name: value for name, value in asdict(options).items() if value != {}})


def _other_tokens_lines(cache: Path, used: Path | None) -> list[str]:
    """Tokens that the shards aren't made of."""
    root = cache / "tokens"
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path != used) if root.is_dir() else []
    texts = []
    for folder in folders[:_FOLDERS_SHOWN]:
        try:
            manifest = read_examples_manifest(folder)
            made = f"{manifest.model}, {_token_options(manifest.token_options)}"
        except CacheError:
            made = "what made them is not told"
        number = sum(1 for path in folder.iterdir() if CHUNK_FILE.fullmatch(path.name))
        texts.append(f"tokens/{folder.name}: {number:,} chunks, not of these shards: {made}")
    if len(folders) > _FOLDERS_SHOWN:
        texts.append(f"and {len(folders) - _FOLDERS_SHOWN:,} more such folders")
    if texts:
        texts.append("a run with the same model and options uses them again; dataprep gc removes them")
    return _labelled("other tokens", *texts)


def _shards_lines(cache: Path, source: ConversationsManifest, shards: ShardsManifest) -> list[str]:
    splits = []
    for name, records in shards.splits.items():
        packs, size = sum(r.packs for r in records), size_text(sum(r.bytes for r in records))
        splits.append(f"{name}: {packs:,} packs in {len(records)} {'file' if len(records) == 1 else 'files'} ({size})")
    folder = cache / "shards"
    records = [record for records in shards.splits.values() for record in records]
    wrong = [r.file for r in records if not (folder / r.file).is_file() or (folder / r.file).stat().st_size != r.bytes]
    changed = _changed(cache, shards)
    state = "other conversations than there are now" if changed else "the conversations that are there now"
    if wrong:
        text = f"{wrong[0]} is missing or of another size: written anew, and no other"
    elif changed:
        text = f"packed anew: the conversations changed, {shards.ledger.rows:,} rows then and {source.rows:,} now"
    else:
        text = (
            "with the same model and options there is nothing to do; with another seq-len, seed or split, only packing"
        )
    mixture = [f"weights and caps for {', '.join(shards.mixture)}"] if shards.mixture else []
    return [
        *_labelled("shards", "; ".join(splits)),
        *_labelled("  made of", f"{state}, and tokens/{shards.tokens_fingerprint[:16]}"),
        *_labelled("  options", _listed({n: v for n, v in asdict(shards.options).items() if v != []}), *mixture),
        *_labelled("  next", text),
    ]


def _tokenizer_lines(cache: Path, shards: ShardsManifest) -> list[str]:
    record = shards.tokenizer
    key = record.folder.rpartition("-")[2]
    homes = sorted((cache / "tokenizers").glob(f"{key}*")) if key else []
    kept = f" and tokenizers/{homes[0].name}" if homes else ""
    return [
        *_labelled("tokenizer", f"shards/{record.folder} ({len(record.files)} files){kept}"),
        *_labelled("  made of", f"{shards.model}: {_model_state(shards.model, key)}"),
        *_labelled("  encoder", record.encoder),
    ]


def _model_state(model: str, key: str) -> str:
    if not Path(model).expanduser().exists():
        return "of the hub, or gone; not looked at"
    try:
        same = content_key(locate(model)).startswith(key)
    except (SftpackError, OSError) as error:
        return str(error)
    if same:
        return "its tokenizer files and the libraries that read them are as they were"
    return "its tokenizer files or the libraries that read them changed: read anew; tokens are used again if ids stay"
