"""`dataprep normalize --retry`: rows that were turned away are taken up again and join the conversations."""

import json
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from dataprep.normalize.choices import Choices
from dataprep.normalize.run import normalize_corpus, retry_quarantine
from schemas.errors import CacheError, InputError
from schemas.files import sha256_file
from schemas.manifest import ConversationsManifest, read_conversations_manifest


def dialogue(question: str, role: str = "assistant") -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": role, "content": "Yes"}]}


def written(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def stored(manifest: ConversationsManifest, out: Path) -> list[tuple[str, int, str, str]]:
    rows = [row for part in manifest.parts for row in pq.read_table(out / "conversations" / part.file).to_pylist()]
    return [(row["origin"]["file"], row["origin"]["row"], row["source"], row["messages"][0]["content"]) for row in rows]


def turned_away(manifest: ConversationsManifest, out: Path) -> list[tuple[str, int, str]]:
    lines = (out / "conversations" / manifest.quarantine.file).read_bytes().splitlines()
    return [(record["file"], record["row"], record["reason"]) for record in map(orjson.loads, lines)]


def quarantine(manifest: ConversationsManifest, out: Path) -> Path:
    return out / "conversations" / manifest.quarantine.file


def test_rows_join_the_others_under_the_place_and_source_they_had(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", dialogue("One?"), dialogue("Two?", "guide"), 5)
    b = written(tmp_path / "b.jsonl", dialogue("Three?", "guide"), dialogue("One?", "guide"))
    before = normalize_corpus([a, b], tmp_path)
    assert (before.rows, before.kept, before.turned_away) == (5, 1, {"unknown-role": 3, "not-an-object": 1})
    choices = Choices(roles={"guide": "assistant"})
    after = retry_quarantine(quarantine(before, tmp_path), tmp_path, choices=choices)
    assert (after.rows, after.kept) == (5, 3)
    assert after.turned_away == {"duplicate": 1, "not-an-object": 1}
    assert turned_away(after, tmp_path) == [(a, 3, "not-an-object"), (b, 2, "duplicate")]
    assert stored(after, tmp_path) == [(a, 1, "a", "One?"), (a, 2, "a", "Two?"), (b, 1, "b", "Three?")]
    assert after.parts[:1] == before.parts
    assert after.sources == {"a": 2, "b": 1}
    assert after.inputs == before.inputs
    assert read_conversations_manifest(tmp_path / "conversations") == after
    assert not quarantine(before, tmp_path).exists()


def test_rows_of_every_kind_of_file_can_be_taken_up_again(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("who,what\nHello,Hi\n", encoding="utf-8")
    (tmp_path / "b.json").write_text('[{"odd": 1.0}]', encoding="utf-8")
    (tmp_path / "c.jsonl").write_bytes(b'{"odd": "\xff"}\n{"odd"\n')
    names = [str(tmp_path / name) for name in ("a.csv", "b.json", "c.jsonl")]
    before = normalize_corpus(names, tmp_path)
    after = retry_quarantine(quarantine(before, tmp_path), tmp_path)
    assert after.turned_away == before.turned_away == {"unknown-format": 2, "bad-encoding": 1, "broken-json": 1}
    assert turned_away(after, tmp_path) == turned_away(before, tmp_path)
    assert sha256_file(quarantine(after, tmp_path)) == before.quarantine.sha256


def test_only_the_quarantine_of_the_folder_as_it_is_now_is_taken_up(tmp_path: Path) -> None:
    before = normalize_corpus([written(tmp_path / "a.jsonl", dialogue("One?"), 5)], tmp_path)
    other = written(tmp_path / "other.jsonl", {"odd": 1})
    with pytest.raises(InputError, match=r"other.jsonl: not the quarantine of .*; name .*quarantine-"):
        retry_quarantine(Path(other), tmp_path)
    assert read_conversations_manifest(tmp_path / "conversations") == before


def test_a_changed_quarantine_is_refused_with_where_to_mend_the_rows(tmp_path: Path) -> None:
    before = normalize_corpus([written(tmp_path / "a.jsonl", dialogue("One?"), 5)], tmp_path)
    quarantine(before, tmp_path).write_bytes(b"")
    with pytest.raises(InputError, match="missing or changed since it was written; mend the rows in the input"):
        retry_quarantine(quarantine(before, tmp_path), tmp_path)


@pytest.mark.parametrize(("content", "told"), [(None, "missing"), (b"PAR1, and no more", "damaged: ")])
def test_a_part_that_is_not_whole_is_named_before_anything_is_written(tmp_path: Path, content, told) -> None:
    before = normalize_corpus([written(tmp_path / "a.jsonl", dialogue("One?"), 5)], tmp_path)
    part = tmp_path / "conversations" / before.parts[0].file
    part.unlink()
    if content is not None:
        part.write_bytes(content)
    with pytest.raises(CacheError, match=rf"{part.name}: {told}.*; run `dataprep normalize` with the input again"):
        retry_quarantine(quarantine(before, tmp_path), tmp_path)
    assert read_conversations_manifest(tmp_path / "conversations") == before


def test_copies_stay_copies_whatever_a_mapping_makes_of_messages(tmp_path: Path) -> None:
    before = normalize_corpus([written(tmp_path / "a.jsonl", dialogue("One?"), dialogue("One?"))], tmp_path)
    mapping = tmp_path / "shapes.toml"
    mapping.write_text('[[shape]]\nname = "odd"\nturns = "messages"\nrole = "role"\ntext = "none"\n', encoding="utf-8")
    after = retry_quarantine(quarantine(before, tmp_path), tmp_path, choices=Choices(mapping=mapping))
    assert (after.kept, after.turned_away) == (1, {"duplicate": 1})
