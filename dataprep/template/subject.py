"""What is examined: a chat template with a tokenizer, as the build uses it and as transformers does.

A model is loaded as `dataprep tokenize` loads it. A template file is put onto a given tokenizer, or onto one that is
made for it (markers.py).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataprep.core.sandbox import TEMPLATE_ERRORS
from dataprep.core.tokenizer import ModelTokenizer, load_tokenizer, locate
from dataprep.stages.render import in_parts, template_arguments
from dataprep.stages.tokenize import tokenize_chunk
from dataprep.template.markers import tokenizer_for
from dataprep.template.probes import PROBES, Message, Probe
from dataprep.tokenize.token_cache import TokenizeEngine
from schemas.errors import InputError, ModelError

OFFICIAL_ERRORS = (*TEMPLATE_ERRORS, MemoryError)
_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A template with its tokenizer: `bundle` and `engine` are the build's, `official` is transformers'."""

    bundle: ModelTokenizer
    template: str
    engine: TokenizeEngine
    official: Any
    place: Path | None  # the folder that the tokenizer is from; None: it was made for the template

    def arguments(self) -> list[str]:
        """Names that the template asks for beside messages, tools and tokens; some are variables of its own."""
        names = template_arguments(self.bundle.compiled_template(), self.template, self.bundle.special_tokens)
        return [name for name in names if not name.endswith("_token")]

    def example(self, probe: Probe) -> dict[str, Any]:
        """The probe as the build tokenises it: one row of schemas/example.md."""
        engine = self.engine
        batch = tokenize_chunk(probe.table(), engine.renderer, engine.encoder, engine.special)
        return pa.Table.from_batches([batch]).to_pylist()[0]

    def official_text(
        self, messages: list[Message], tools: Any, prompt: bool = False, further: Mapping[str, Any] | None = None
    ) -> str:
        """The rendering of transformers. Raises OFFICIAL_ERRORS."""
        return self.official.apply_chat_template(
            self.given(messages),
            tools=tools,
            chat_template=self.template,
            add_generation_prompt=prompt,
            tokenize=False,
            **(further or {}),
        )

    def official_ids(
        self, messages: list[Message], tools: Any, prompt: bool = False, further: Mapping[str, Any] | None = None
    ) -> list[int]:
        """The ids of transformers. Raises OFFICIAL_ERRORS."""
        return self.official.apply_chat_template(
            self.given(messages),
            tools=tools,
            chat_template=self.template,
            add_generation_prompt=prompt,
            return_dict=False,
            **(further or {}),
        )

    def given(self, messages: list[Message]) -> list[Message]:
        """The messages as this template takes them: contents as lists of parts where it shows no others."""
        assert self.engine.renderer is not None
        return in_parts(messages) if self.engine.renderer.takes_parts else messages

    def decode(self, ids: list[int]) -> str:
        """The text of ids, special tokens too."""
        return self.official.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def load_subject(source: str, tokenizer: str | None, scratch: Path) -> Subject:
    """Load a model, or a template file with `tokenizer`'s tokens. Raises ModelError and InputError."""
    path = Path(source).expanduser()
    is_template = path.is_file() and path.suffix in (".jinja", ".jinja2")
    if tokenizer is not None and not is_template:
        raise InputError(f"--tokenizer {tokenizer}: {source} has a tokenizer of its own; give a .jinja file with it")
    if not is_template:
        place = locate(source)
        return _subject(load_tokenizer(str(place), scratch), place if place.is_dir() else place.parent)
    template = read_template(path)
    if tokenizer is None:
        made = made_tokenizer(template, None, {}, scratch / "made")
        return _subject(load_tokenizer(str(made), scratch), None)
    place = locate(tokenizer)
    official = _official(Path(load_tokenizer(str(place), scratch).folder))
    official.chat_template = template
    official.save_pretrained(scratch / "given")
    return _subject(load_tokenizer(str(scratch / "given"), scratch), place if place.is_dir() else place.parent)


def load_template(template: str, base: Path | None, named: dict[str, str], scratch: Path) -> Subject:
    """A template with a tokenizer made for it. Raises ModelError."""
    return _subject(load_tokenizer(str(made_tokenizer(template, base, named, scratch / "made")), scratch), None)


def read_template(path: Path) -> str:
    """The text of a .jinja file. Raises InputError."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8; give a chat template") from error


def made_tokenizer(template: str, base: Path | None, named: dict[str, str], folder: Path) -> Path:
    """Save a tokenizer made for a template; markers that the template joins from parts are found by rendering."""
    tokenizer = tokenizer_for(template, base, named)
    tokenizer_for(template, base, named, _renderings(tokenizer)).save_pretrained(folder)
    return folder


def config_template(folder: Path) -> tuple[str, dict[str, str]] | None:
    """The template and the named tokens in a folder's tokenizer_config.json; None where it has no template."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {each.get("name"): each.get("template") for each in template}.get("default")
    named = {name: config.get(name) for name in _NAMES}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in named.items()}
    known = {name: token for name, token in texts.items() if isinstance(token, str) and token}
    return (template, known) if isinstance(template, str) else None


def _renderings(tokenizer: Any) -> list[str]:
    rendered = []
    for probe in PROBES:
        for messages in (probe.messages(), in_parts(probe.messages())):
            try:
                rendered.append(
                    tokenizer.apply_chat_template(
                        messages, tools=probe.tools(), add_generation_prompt=True, tokenize=False
                    )
                )
            except OFFICIAL_ERRORS:
                continue
    return rendered


def _subject(bundle: ModelTokenizer, place: Path | None) -> Subject:
    if not bundle.template:
        raise ModelError(f"{place or bundle.folder}: has no chat template; give one as a .jinja file")
    return Subject(
        bundle=bundle,
        template=bundle.template,
        engine=TokenizeEngine.load(bundle),
        official=_official(Path(bundle.folder)),
        place=place,
    )


def _official(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
