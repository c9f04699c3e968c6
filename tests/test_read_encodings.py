"""Reading text that is not UTF-8."""

from hashlib import sha256
from pathlib import Path

import pytest

from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read import cut as cutting
from dataprep.stages.read.cut import cut
from dataprep.stages.read.encodings import checked_encoding, encoding_of
from dataprep.stages.read.inputs import find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError

SAID = {
    "gb18030": "我感觉压力很大，晚上睡不着觉，考试快到了，怎么办？",
    "cp950": "我感覺壓力很大，晚上睡不著覺，考試快到了，怎麼辦？",
    "euc_jp": "試験のことが心配で、最近あまり眠れません。どうすればいいですか？",
    "euc_kr": "안녕하세요. 시험 때문에 스트레스를 많이 받아서 잠을 잘 수가 없습니다. 어떻게 하면 좋을까요?",
    "cp932": "試験のことが心配で、最近あまり眠れません。どうすればいいですか？",
}


WESTERN = {
    "fr": "Je me sens très fatigué depuis l’été, et mes collègues ne m’aident guère. « Où est-ce que ça va ? »",
    "de": "Ich fühle mich müde, möchte aber über die Prüfung sprechen. Schöne Grüße!",
    "es": "¿Cómo estás? Mañana tengo un examen y estoy muy nervioso, ¡qué difícil!",
    "pt": "Não consigo dormir, a situação está difícil. Você pode ajudar?",
    "sv": "Jag är trött och kan inte sova på nätterna, vad ska jag göra?",
    "fi": "Hyvää päivää, minä en pysty nukkumaan öisin. Mitä teen?",
}
OTHERS = {
    "cp1251": "Я очень плохо сплю из-за экзаменов, что мне делать?",
    "cp1253": "Είμαι πολύ κουρασμένος, τι να κάνω;",
    "iso8859-9": "Çok yorgunum, ne yapmalıyım? Şimdi ağlıyorum, değil mi? Teşekkür ederim.",
    "iso8859-2": "Czuję się bardzo źle, proszę o pomoc, żółć i gęś.",
}


def rows_of(path: Path, encoding: str | None = None) -> list[tuple]:
    """Read all rows; one that was turned away shows as (number, reason)."""
    [file] = find_files([str(path)], leave_out=Path("cache"))
    rows = [row for segment in cut(file, sha256(), encoding=encoding) for row in read_rows(segment)]
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


@pytest.mark.parametrize("language", WESTERN)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_western_letters_with_accents_are_windows_1252(tmp_path: Path, language: str, name: str) -> None:
    said = WESTERN[language]
    form = {"a.jsonl": '{"text": "SAID"}\n', "a.json": '[{"text": "SAID"}]', "a.csv": 'text\n"SAID"\n'}[name]
    (tmp_path / name).write_bytes(form.replace("SAID", said).encode("cp1252"))
    [(_, row)] = rows_of(tmp_path / name)
    assert row == {"text": said}


@pytest.mark.parametrize("encoding", OTHERS)
def test_other_alphabets_are_not_taken_for_windows_1252(encoding: str) -> None:
    assert encoding_of(OTHERS[encoding].encode(encoding) * 5) is None


def test_accents_that_come_late_in_the_file_are_found(tmp_path: Path) -> None:
    plain, accented = '{"text": "plain words, and more of them"}\n' * 5000, '{"text": "' + WESTERN["de"] + '"}\n'
    (tmp_path / "a.jsonl").write_bytes((plain + accented).encode("cp1252"))
    assert rows_of(tmp_path / "a.jsonl")[-1] == (5001, {"text": WESTERN["de"]})


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "content", "first"),
    [
        ("a.jsonl", '{"text": "SAID"}\n{"text": "SAID"}\n', 1),
        ("a.json", '[{"text": "SAID"}, {"text": "SAID"}]', 1),
        ("a.csv", "text\r\nSAID\r\nSAID\r\n", 2),
    ],
)
def test_utf_16_without_a_byte_order_mark_is_known_by_its_zeros(
    tmp_path: Path, encoding: str, name: str, content: str, first: int
) -> None:
    for said in (SAID["gb18030"], "Hello. 😀"):
        (tmp_path / name).write_bytes(content.replace("SAID", said).encode(encoding))
        assert rows_of(tmp_path / name) == [(first, {"text": said}), (first + 1, {"text": said})]


def test_an_encoding_that_is_given_wins_over_the_one_found_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "Я плохо сплю"}\n'.encode("cp1251"))
    assert rows_of(path) == [(1, "bad-encoding")]
    assert rows_of(path, "windows-1251") == [(1, {"text": "Я плохо сплю"})]
    path.write_bytes('{"text": "déjà vu, très bien"}\n{"text": "ok"}\n'.encode("latin-1"))
    assert rows_of(path, "utf8") == [(1, "bad-encoding"), (2, {"text": "ok"})]
    path.write_bytes('{"text": "中"}\n'.encode("utf-16"))
    assert rows_of(path, "utf-16") == [(1, {"text": "中"})]
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n{"text": "b\xff"}\n{"text": "c"}\n')
    assert rows_of(path, "utf-8-sig") == [(1, {"text": "a"}), (2, "bad-encoding"), (3, {"text": "c"})]


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "", "hex", "idna", "punycode"])
def test_an_encoding_that_python_does_not_know_is_an_error(name: str) -> None:
    with pytest.raises(InputError, match=f"--encoding {name}: no such encoding; use one that Python knows"):
        checked_encoding(name)


def test_a_broken_byte_costs_its_row_in_every_encoding(tmp_path: Path) -> None:
    for encoding in ("gb18030", "cp950", "euc_jp", "euc_kr", "utf-8"):
        good = ('{"text": "' + SAID.get(encoding, SAID["gb18030"]) + '"}\n').encode(encoding)
        (tmp_path / "a.jsonl").write_bytes(good + b'{"text": "a\xff\xffb"}\n' + good)
        assert [row[0] for row in rows_of(tmp_path / "a.jsonl", encoding) if row[1] == "bad-encoding"] == [2]


def test_one_line_of_any_length_is_decoded_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "READ_BYTES", 500)
    rows = ", ".join('{"text": "' + SAID["gb18030"] + '"}' for _ in range(50))
    (tmp_path / "a.json").write_bytes(f"[{rows}]".encode("gb18030"))
    assert rows_of(tmp_path / "a.json") == [(number, {"text": SAID["gb18030"]}) for number in range(1, 51)]
