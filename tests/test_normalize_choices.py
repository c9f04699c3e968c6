"""What is chosen for `dataprep normalize`, from the choice to the manifest, over real files."""

import json
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from dataprep.normalize.choices import Choices
from dataprep.normalize.run import normalize_corpus
from dataprep.normalize.summary import summary_text
from schemas.errors import InputError
from schemas.manifest import ConversationsManifest

LONG = "The ferry leaves the old harbour at nine in the morning and comes back when the lamps are lit"


def dialogue(question: str, answer: str = "Yes") -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def written(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(manifest: ConversationsManifest, out: Path) -> list[list[str]]:
    rows = [row for part in manifest.parts for row in pq.read_table(out / "conversations" / part.file).to_pylist()]
    return [[message["content"] for message in row["messages"]] for row in rows]


def quarantined(manifest: ConversationsManifest, out: Path) -> list[dict]:
    return [orjson.loads(line) for line in (out / "conversations" / manifest.quarantine.file).read_bytes().splitlines()]


def test_an_unanswered_last_question_is_cut_and_the_row_stays(tmp_path: Path) -> None:
    row = dialogue("One?")
    row["messages"].append({"role": "user", "content": "Two?"})
    manifest = normalize_corpus([written(tmp_path / "a.jsonl", row)], tmp_path)
    assert texts(manifest, tmp_path) == [["One?", "Yes"]]
    assert manifest.cleaned == {"last-role": 1}


def test_what_a_step_finds_and_leaves_is_told_with_the_option_that_acts_on_it(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", dialogue("My name is {{name}}."))
    manifest = normalize_corpus([path], tmp_path)
    assert manifest.seen == {"placeholders": 1}
    assert "placeholders  1  --clean placeholders=drop acts on it" in summary_text(manifest, tmp_path)
    dropped = normalize_corpus([path], tmp_path, choices=Choices(clean=["placeholders"]))
    assert dropped.turned_away == {"placeholders": 1}


def test_a_nul_character_is_taken_out_where_that_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", dialogue("One\0?"))
    assert normalize_corpus([path], tmp_path).turned_away == {"nul-character": 1}
    manifest = normalize_corpus([path], tmp_path, choices=Choices(clean=["control-chars"]))
    assert texts(manifest, tmp_path) == [["One?", "Yes"]]


def test_near_duplicates_are_turned_away_where_a_threshold_is_given(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dataprep.normalize.share.UNIT_ROWS", 1)
    rows = [dialogue(LONG, LONG + ending) for ending in ("", " again", " and again")]
    path = written(tmp_path / "a.jsonl", *rows, dialogue("Something else altogether?", "No, not at all."))
    assert normalize_corpus([path], tmp_path).kept == 4
    manifest = normalize_corpus([path], tmp_path, choices=Choices(clean=["near-duplicates=0.5"]))
    assert (manifest.kept, manifest.turned_away) == (2, {"near-duplicate": 2})
    details = [line["detail"] for line in quarantined(manifest, tmp_path)]
    assert details == [f"nearly the same conversation as {path}:1"] * 2


def test_personal_data_is_redacted_and_counted_by_kind(tmp_path: Path) -> None:
    pytest.importorskip("phonenumbers")
    path = written(tmp_path / "a.jsonl", dialogue("Write to pip@willow-yard.org, please."))
    manifest = normalize_corpus([path], tmp_path, choices=Choices(pii="redact"))
    assert texts(manifest, tmp_path) == [["Write to [EMAIL], please.", "Yes"]]
    assert manifest.cleaned == {"pii-email": 1}


def test_text_of_a_held_out_file_is_turned_away(tmp_path: Path) -> None:
    held_out = written(tmp_path / "exam.jsonl", dialogue("When does it leave?", LONG))
    path = written(tmp_path / "a.jsonl", dialogue("Tell me about the ferry.", LONG), dialogue("One?"))
    manifest = normalize_corpus([path], tmp_path, choices=Choices(held_out=[held_out]))
    assert (manifest.kept, manifest.turned_away) == (1, {"contaminated": 1})
    assert manifest.options.held_out == [held_out]


def test_a_held_out_file_without_text_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", dialogue("One?"))
    with pytest.raises(InputError, match=r"--held-out .*: no conversation or document in it is long enough to compare"):
        normalize_corpus([path], tmp_path, choices=Choices(held_out=[written(tmp_path / "exam.jsonl", {"odd": 1})]))


def test_a_mapping_file_teaches_a_shape_and_its_columns_are_read(tmp_path: Path) -> None:
    mapping = tmp_path / "shapes.toml"
    mapping.write_text('[[shape]]\nname = "visits"\nuser = "who_asks"\nassistant = "who_knows"\n', encoding="utf-8")
    import pyarrow as pa

    pq.write_table(pa.table({"who_asks": ["One?"], "who_knows": ["Yes"], "text": ["odd"]}), tmp_path / "a.parquet")
    manifest = normalize_corpus([str(tmp_path / "a.parquet")], tmp_path, choices=Choices(mapping=mapping))
    assert (texts(manifest, tmp_path), manifest.formats) == ([["One?", "Yes"]], {"visits": 1})
    assert manifest.options.mapping == mapping.read_text(encoding="utf-8")


def test_messages_that_name_their_parents_become_trees_whatever_the_segments(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dataprep.stages.read.cut.SEGMENT_BYTES", 50)
    monkeypatch.setattr("dataprep.stages.read.cut.READ_BYTES", 50)
    rows = [
        {"message_id": "q", "parent_id": None, "role": "prompter", "text": "One?"},
        {"message_id": "b", "parent_id": "q", "role": "assistant", "text": "Good", "rank": 1},
        {"message_id": "a", "parent_id": "q", "role": "assistant", "text": "Better", "rank": 0},
        {"message_id": "lost", "parent_id": "gone", "role": "assistant", "text": "Hm"},
    ]
    flat = written(tmp_path / "flat.jsonl", *rows)
    plain = written(tmp_path / "plain.jsonl", dialogue("Two?"))
    manifest = normalize_corpus([plain, flat], tmp_path)
    assert texts(manifest, tmp_path) == [["Two?", "Yes"], ["One?", "Better"]]
    assert (manifest.rows, manifest.joined, manifest.kept) == (5, 2, 2)
    assert manifest.turned_away == {"missing-parent": 1}
    every = normalize_corpus([flat], tmp_path, choices=Choices(paths="all"))
    assert (every.rows, every.branched, every.joined, every.kept) == (4, 1, 2, 2)


def test_both_sides_of_a_pair_are_two_conversations(tmp_path: Path) -> None:
    row = {"prompt": "One?", "chosen": "Yes", "rejected": "No"}
    path = written(tmp_path / "a.jsonl", row)
    for preference, expected in (("chosen", ["Yes"]), ("rejected", ["No"]), ("both", ["Yes", "No"])):
        manifest = normalize_corpus([path], tmp_path, choices=Choices(preference=preference))
        assert [messages[-1] for messages in texts(manifest, tmp_path)] == expected
    assert (manifest.rows, manifest.branched, manifest.kept) == (1, 1, 2)


def test_a_choice_between_two_readings_is_told_with_its_first_row(tmp_path: Path) -> None:
    row = {"question": "Where?", "context": "The ferry is at the quay.", "answer": "At the quay."}
    path = written(tmp_path / "a.jsonl", dialogue("One?"), row)
    manifest = normalize_corpus([path], tmp_path)
    assert [(r.reading, r.rows, r.example) for r in manifest.readings] == [
        ("`context` read as part of the question", 1, f"{path}:2")
    ]
    assert f"read as one of two: `context` read as part of the question\n  1 row, first {path}:2" in summary_text(
        manifest, tmp_path
    )
