"""A tokenizer for a chat template that came without one: a byte-level one with the template's own markers added.

Markers are found by the shapes that control tokens have, in the template's literal texts and in what it writes for a
probe (some join them from parts). Tags in pairs such as <think> or <tool_call> are no control tokens: most models
spell them, or have them as ordinary tokens.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

PATTERNS = (
    r"<\|[^<>|\s]{1,60}\|>",  # <|im_end|>
    r"<｜[^<>｜\s]{1,60}｜>",  # <｜Assistant｜>
    r"<\|[a-z_]{1,30}>|<[a-z_]{1,30}\|>",  # <|turn> <turn|>
    r"\[\|[^\[\]|\s]{1,30}\|\]",  # [|endofturn|]
    r"</?s>|<(?:bos|eos|pad|unk|sep|cls|sop|eop|EOD)>|<(?:BOS|EOS|PAD|UNK)[A-Z_]*>",
    r"<\w+_of_\w+>|<(?:im|turn)_\w+>",  # <end_of_turn> <im_end>
    r"<[A-Za-z]+_(?:[A-Za-z]+_)?\d+>",  # <extra_id_1> <SPECIAL_12>
    r"<\w+:(?:bos|eos|pad)>",  # <seed:eos>
    r"\[/?(?:g?[A-Z][A-Z_]{2,30})\]",  # [INST] [/TOOL_CALLS] [gMASK]
    r"\]~!?b\[|\]~b\]|\[e~\[",  # brackets turned inside out
)
_MARKER = re.compile("|".join(PATTERNS))

# Names a template may use; where the given tokenizer lacks one, it gets this text.
NAMED = {
    "bos_token": "<|beginning|>",
    "eos_token": "<|ending|>",
    "pad_token": "<|padding|>",
    "unk_token": "<|unknown|>",
}

_LINES = (
    "How do I cook rice? Rinse it, add water, and simmer for twelve minutes with the lid on.\n\n",
    "请问怎样才能睡得更好？晚上少看手机，房间保持安静，每天在同一时间起床。\n",
    'The capital of France is Paris.  法国的首都是巴黎。\n\n{"name": "look", "arguments": {"n": 1}}\n',
    "    if what is None:\n        return [each for each in it]\n\n\n",
)
_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def template_markers(template: str, renderings: Iterable[str] = ()) -> list[str]:
    """The texts in a template, and in renderings of it, that look like control tokens, in order."""
    texts = [*_literals(template), *renderings]
    return list(dict.fromkeys(found for text in texts for found in _MARKER.findall(text)))


class _Generation(Extension):
    """Reads `{% generation %}` blocks."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _literals(template: str) -> list[str]:
    """Texts that a template writes or compares with; the whole of one that can't be parsed."""
    try:
        tree = Environment(extensions=[_Generation, "jinja2.ext.loopcontrols"]).parse(template)
    except (TemplateError, RecursionError):
        return [template]
    data = [node.data for node in tree.find_all(nodes.TemplateData)]
    return data + [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]


def tokenizer_for(template: str, base: Path | None, named: dict[str, str], renderings: Iterable[str] = ()) -> Any:
    """A transformers tokenizer with this template, its markers as special tokens added to `base`, or to a tiny one.

    `named` gives special tokens by name (eos_token …) where they are known.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer: Any
    if base is None:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tiny())
    else:
        tokenizer = AutoTokenizer.from_pretrained(base)
    missing = {name: text for name, text in NAMED.items() if getattr(tokenizer, name) is None}
    tokenizer.add_special_tokens({**missing, **named})
    from tokenizers import AddedToken

    known = set(tokenizer.all_special_tokens)
    markers = [marker for marker in template_markers(template, renderings) if marker not in known]
    added = [AddedToken(marker, special=True, normalized=False) for marker in markers]
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def _tiny() -> Any:
    """A byte-level BPE with a few hundred merges, those of blanks among them."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_LINES * 8, trainer)
    return tokenizer
