"""Shared fixtures. Data that is not in the project is used only where it lies beside it."""

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from dataprep.core.tokenizer import ModelTokenizer, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHARED = Path(__file__).resolve().parents[2] / "shared"

TINY_CORPUS = [
    "How do I cook rice? Rinse it, add water, and simmer for twelve minutes with the lid on.",
    "请问怎样才能睡得更好？晚上少看手机，房间保持安静，每天在同一时间起床。",
    "The capital of France is Paris. 法国的首都是巴黎。\n\nWhat else would you like to know about it?",
] * 4


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with real dialogues and Qwen3's tokenizer")
    return SHARED


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level BPE tokenizer trained here, with Qwen3's own chat template out of the installed trl."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TINY_CORPUS, trainer)
    marks = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in marks])
    template = (files("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )
    folder = tmp_path_factory.mktemp("tiny-tokenizer")
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(tiny_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    """The tiny tokenizer as the stages have it."""
    return load_tokenizer(str(tiny_tokenizer_dir), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def hf(tiny_tokenizer_dir: Path) -> "PreTrainedTokenizerBase":
    """The tiny tokenizer as transformers has it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


@pytest.fixture(autouse=True)
def _no_process_group_is_left() -> Iterator[None]:
    """A test that joins a process group in this process, or sets a launcher's environment, takes it back."""
    before = dict(os.environ)
    yield
    left = [name for name in ("RANK", "MASTER_PORT") if os.environ.get(name) != before.get(name)]
    assert not left, f"the test left {left} in the environment: run what joins a process group in a process of its own"
