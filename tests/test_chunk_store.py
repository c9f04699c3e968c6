"""Tokenised chunks that machines share through any file system of fsspec's."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.normalize.run import normalize_corpus
from dataprep.tokenize.part import Part, tokenize_part
from dataprep.tokenize.run import Built, tokenize_corpus
from schemas.errors import CacheError
from schemas.manifest import PackOptions

OPTIONS = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, seed=0)


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    normalize_corpus([str(write_jsonl(folder / "raw.jsonl", many_dialogues(1_200)))], folder, workers=1)
    return folder / "conversations"


@pytest.fixture(params=["memory://bucket/tokens", "dir"])
def url(request, tmp_path) -> Iterator[str]:
    yield request.param if request.param != "dir" else (tmp_path / "shared").as_uri()
    if request.param != "dir":
        system = fsspec.filesystem("memory")
        if system.exists("/bucket"):
            system.rm("/bucket", recursive=True)


def machine(name: str, tmp_path: Path, conversations: Path) -> Path:
    """The cache of a machine of its own, with the same conversations."""
    shutil.copytree(conversations, tmp_path / name / "conversations")
    return tmp_path / name


def tokenized(cache: Path, model: Path, url: str | None) -> Built:
    return tokenize_corpus(cache, str(model), OPTIONS, workers=1, chunks_at=url)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.arrow"))}


def test_parts_made_by_machines_that_share_no_folder_are_packed_by_a_third(
    url, tmp_path, conversations, tiny_tokenizer_dir
):
    left = []
    for number in (1, 2):
        cache = machine(f"part{number}", tmp_path, conversations)
        part = Part(number=number, count=2)
        left.append(tokenize_part(cache, str(tiny_tokenizer_dir), part, workers=1, chunks_at=url).left)
    assert left[0] > 0 and left[1] == 0
    last = machine("last", tmp_path, conversations)
    assert tokenized(last, tiny_tokenizer_dir, url).tokenized == 0
    alone = machine("alone", tmp_path, conversations)
    assert tokenized(alone, tiny_tokenizer_dir, None).tokenized == 1_200
    assert files_of(last) == files_of(alone)


def test_a_cache_that_was_made_before_leaves_its_chunks_when_asked(url, tmp_path, conversations, tiny_tokenizer_dir):
    first = machine("first", tmp_path, conversations)
    assert tokenized(first, tiny_tokenizer_dir, None).tokenized == 1_200
    assert tokenized(first, tiny_tokenizer_dir, url).tokenized == 0
    assert tokenized(machine("second", tmp_path, conversations), tiny_tokenizer_dir, url).tokenized == 0


def test_what_is_not_whole_there_is_made_anew_and_put_in_its_place(url, tmp_path, conversations, tiny_tokenizer_dir):
    first = machine("first", tmp_path, conversations)
    tokenized(first, tiny_tokenizer_dir, url)
    system, root = fsspec.url_to_fs(url)
    there = sorted(system.find(root))
    whole = {path: system.cat_file(path) for path in there}
    system.pipe_file(there[0], whole[there[0]][:100])
    flipped = bytearray(whole[there[1]])
    flipped[-1000] ^= 1
    system.pipe_file(there[1], bytes(flipped))
    second = machine("second", tmp_path, conversations)
    assert 0 < tokenized(second, tiny_tokenizer_dir, url).tokenized < 1_200
    assert {path: system.cat_file(path) for path in system.find(root)} == whole
    assert files_of(second) == files_of(first)


def test_storage_that_cannot_be_reached_is_told_in_one_line(tmp_path, conversations, tiny_tokenizer_dir):
    cache = machine("cache", tmp_path, conversations)
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(CacheError, match=r"--chunks .*/file/tokens: cannot be (read|written): .*run the command again"):
        tokenized(cache, tiny_tokenizer_dir, str(tmp_path / "file" / "tokens"))
