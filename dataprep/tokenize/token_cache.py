"""What examples are made by: a tokenizer with its options, loaded once a process, and the fingerprint of both."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from dataprep.core.chunk_files import damaged_chunks
from dataprep.core.columns import canonical_json
from dataprep.core.encode import Encoder
from dataprep.core.tokenizer import ModelTokenizer
from dataprep.stages.render import CLOCK, Renderer
from dataprep.stages.tokenize import SpecialIds, tokenize_chunk
from dataprep.tokenize.targets import options_of
from schemas.errors import CacheError
from schemas.example import EXAMPLES_FORMAT, EXAMPLES_VERSION
from schemas.manifest import (
    ExamplesManifest,
    TargetRules,
    TokenOptions,
    read_examples_manifest,
    write_manifest,
)

_DEFAULTS = TokenOptions()
_NO_RULES: Mapping[str, TargetRules] = {}


def tokens_fingerprint(tokenizer: ModelTokenizer, options: TokenOptions) -> str:
    """Hex digest of everything that decides ids and masks, beside the conversations."""
    decides = {
        "version": EXAMPLES_VERSION,
        "tokenizer": tokenizer.sha256,
        "template": tokenizer.template_sha256,
        "special_tokens": tokenizer.special_tokens,
        "options": asdict(options),
    }
    return hashlib.sha256(canonical_json(decides)).hexdigest()


def all_whole(folder: Path) -> bool:
    """Whether what is there of a tokens folder is as it was written."""
    if not folder.is_dir():
        return True
    try:
        read_examples_manifest(folder)
    except CacheError:
        return False
    return not damaged_chunks(folder)


def write_examples_manifest(folder: Path, model: str, tokenizer: ModelTokenizer, options: TokenOptions) -> None:
    """Tell beside the chunks what they were made by, where nothing whole tells it yet."""
    with suppress(CacheError):
        read_examples_manifest(folder)
        return
    manifest = ExamplesManifest(
        format=EXAMPLES_FORMAT,
        version=EXAMPLES_VERSION,
        model=model,
        tokenizer_sha256=tokenizer.sha256,
        template_sha256=tokenizer.template_sha256,
        special_tokens=tokenizer.special_tokens,
        token_options=options,
        fingerprint=tokens_fingerprint(tokenizer, options),
    )
    write_manifest(folder / "manifest.json", manifest)


@dataclass(slots=True, kw_only=True)
class TokenizeEngine:
    """What a worker holds: renderer, encoder and the special ids of one tokenizer."""

    renderer: Renderer | None
    encoder: Encoder
    special: SpecialIds
    options: TokenOptions
    by_source: dict[str, "TokenizeEngine"] = field(default_factory=dict)  # of the sources with rules of their own

    @classmethod
    def load(
        cls,
        tokenizer: ModelTokenizer,
        options: TokenOptions = _DEFAULTS,
        targets: Mapping[str, TargetRules] = _NO_RULES,
        encoder: Encoder | None = None,
    ) -> "TokenizeEngine":
        """Load what the tokenizer's files hold, its encoder too, unless that is at hand."""
        encoder = encoder or tokenizer.encoder()
        controls = np.zeros(tokenizer.vocab_size + len(tokenizer.control_ids), dtype=bool)
        controls[tokenizer.control_ids] = True
        usual = cls(
            renderer=_renderer(tokenizer, encoder, options),
            encoder=encoder,
            special=SpecialIds(is_control=controls, eos=tokenizer.eos_token_id, tokens=tuple(tokenizer.control_tokens)),
            options=options,
        )
        own: dict[str, TokenizeEngine] = {}
        for rules in dict.fromkeys(targets.values()):
            ruled = options_of(options, rules)
            engine = replace(usual, renderer=_renderer(tokenizer, encoder, ruled), options=ruled, by_source={})
            own |= {source: engine for source, its_rules in targets.items() if its_rules == rules}
        usual.by_source = own
        return usual

    def tokenize(self, table: pa.Table) -> pa.RecordBatch:
        """Tokenise a chunk, each conversation by the rules of its source."""
        if not self.by_source:
            return tokenize_chunk(table, self.renderer, self.encoder, self.special, self.options)
        rows: dict[int, list[int]] = {}
        engines = {id(engine): engine for engine in self.by_source.values()}
        for row, source in enumerate(table.column("source").to_pylist()):
            rows.setdefault(id(self.by_source.get(source)), []).append(row)
        batches = []
        for key, own in rows.items():
            engine = engines.get(key, self)
            part = table.take(own).combine_chunks()
            batches.append(tokenize_chunk(part, engine.renderer, self.encoder, self.special, engine.options))
        order = np.argsort(np.concatenate(list(rows.values())))
        return batches[0] if len(batches) == 1 else pa.concat_batches(batches).take(pa.array(order))


def _renderer(tokenizer: ModelTokenizer, encoder: Encoder, options: TokenOptions) -> Renderer | None:
    if not tokenizer.template:
        return None
    return Renderer(
        tokenizer.template,
        tokenizer.special_tokens,
        tokenizer.control_tokens,
        encoder.length,
        tokenizer.compiled_template(official=bool(options.template_args.keys() - {CLOCK})),
        options=options,
    )
