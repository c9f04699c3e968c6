"""Reading text that is not UTF-8."""

from hashlib import sha256
from pathlib import Path

import pytest

from dataprep.stages import cut as cutting
from dataprep.stages.cut import cut
from dataprep.stages.encodings import encoding_of
from dataprep.stages.inputs import find_files
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read import read_rows

SAID = {
    "gb18030": "我感觉压力很大，晚上睡不着觉，考试快到了，怎么办？",
    "cp950": "我感覺壓力很大，晚上睡不著覺，考試快到了，怎麼辦？",
    "euc_jp": "試験のことが心配で、最近あまり眠れません。どうすればいいですか？",
    "euc_kr": "안녕하세요. 시험 때문에 스트레스를 많이 받아서 잠을 잘 수가 없습니다. 어떻게 하면 좋을까요?",
    "cp932": "試験のことが心配で、最近あまり眠れません。どうすればいいですか？",
}


def rows_of(path: Path) -> list[tuple]:
    """Read all rows; one that was turned away shows as (number, reason)."""
    [file] = find_files([str(path)], leave_out=Path("cache"))
    rows = [row for segment in cut(file, sha256()) for row in read_rows(segment)]
    return [(number, value.reason if isinstance(value, TurnedAway) else value) for number, value, _ in rows]


@pytest.mark.parametrize("encoding", SAID)
@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("a.jsonl", '{"text": "SAID"}\n{"text": "SAID"}\n', 1),
        ("a.json", '[\n{"text": "SAID"},\n{"text": "SAID"}\n]', 1),
        ("a.csv", "text\nSAID\nSAID\n", 2),
    ],
)
def test_chinese_japanese_and_korean_encodings_are_found_out(
    tmp_path: Path, encoding: str, name: str, content: str, first: int
) -> None:
    path = tmp_path / name
    path.write_bytes(content.replace("SAID", SAID[encoding]).encode(encoding))
    assert encoding_of(path.read_bytes()) == encoding
    assert rows_of(path) == [(first, {"text": SAID[encoding]}), (first + 1, {"text": SAID[encoding]})]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("read_bytes", [2, 5, 1000])
def test_utf_16_with_a_byte_order_mark_is_read_and_a_broken_pair_costs_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, read_bytes: int
) -> None:
    monkeypatch.setattr(cutting, "READ_BYTES", read_bytes)
    text = '\ufeff{"a": "中😀"}\r\n{"a": "\ud83d"}\n{"a": "😀"}\n'
    (tmp_path / "a.jsonl").write_bytes(text.encode(encoding, "surrogatepass"))
    assert rows_of(tmp_path / "a.jsonl") == [(1, {"a": "中😀"}), (2, "bad-encoding"), (3, {"a": "😀"})]


def test_utf_16_that_ends_within_a_character_costs_the_last_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"a": 1}\n{"a": 2}'.encode("utf-16-le") + b" ")
    assert rows_of(tmp_path / "a.jsonl") == [(1, {"a": 1}), (2, "bad-encoding")]


def test_a_byte_that_the_encoding_does_not_know_costs_its_row(tmp_path: Path) -> None:
    line = ('{"text": "' + SAID["gb18030"] + '"}\n').encode("gb18030")
    content = line * 3 + b'{"text": "\xff"}\n' + line
    (tmp_path / "a.jsonl").write_bytes(content)
    good = {"text": SAID["gb18030"]}
    assert rows_of(tmp_path / "a.jsonl") == [(1, good), (2, good), (3, good), (4, "bad-encoding"), (5, good)]


def test_a_file_with_a_line_of_utf_8_or_too_little_to_judge_by_is_utf_8() -> None:
    chinese = (SAID["gb18030"] + "\n").encode("gb18030")
    assert encoding_of(chinese) == "gb18030"
    assert encoding_of(chinese * 5 + "中\n".encode()) is None
    assert encoding_of("你好\n".encode("gb18030")) is None
    assert encoding_of(SAID["cp932"].encode()) is None
    assert encoding_of("é".encode("latin-1") * 40) is None
    assert encoding_of("Я очень плохо сплю из-за экзаменов, что мне делать?".encode("cp1251")) is None
    assert encoding_of(b"") is None
