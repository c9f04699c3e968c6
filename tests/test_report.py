import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpus import many_dialogues, write_jsonl
from tokenizers import Tokenizer

from dataprep.cli import main
from dataprep.report.collect import collect_report
from dataprep.report.figures import BETWEEN, Figures
from dataprep.report.samples import token_texts
from dataprep.report.scripts import SCRIPTS, scripts_of
from schemas.manifest import read_conversations_manifest, read_shards_manifest

ROWS = [
    {"messages": [{"role": "user", "content": "Why?"}]},
    {"colour": "blue"},
    {"colour": "red"},
    "text",
    {
        "messages": [
            {"role": "user", "content": "What is 2 + 2?"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": 2, "b": 2}}]},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "It is 4.", "reasoning_content": "Let me add."},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}],
    },
    {"messages": [{"role": "user", "content": "Tell me all."}, {"role": "assistant", "content": "water it " * 400}]},
]


def write_raw(folder: Path) -> list[str]:
    """Three sources: dialogues, the rows above, and one of which nothing is kept."""
    dialogues = write_jsonl(folder / "dialogues.jsonl", many_dialogues(120))
    odd = folder / "odd.jsonl"
    odd.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    none = folder / "none.jsonl"
    none.write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    return [str(dialogues), str(odd), str(none)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_tokenizer_dir) -> Path:
    folder = tmp_path_factory.mktemp("report")
    assert main(["normalize", *write_raw(folder), "--out", str(folder / "cache")]) == 0
    tokenize = ["tokenize", str(folder / "cache"), "--model", str(tiny_tokenizer_dir), "--seq-len", "1024"]
    assert main([*tokenize, "--val-fraction", "0.2"]) == 0
    return folder / "cache"


@pytest.fixture(scope="module")
def figures(cache) -> Figures:
    return collect_report(cache, 50)[0]


def examples_in_cache(cache: Path) -> list[dict[str, Any]]:
    records = []
    for path in (cache / "tokens").rglob("*.arrow"):
        with pa.memory_map(str(path)) as source:
            records += pa.ipc.open_file(source).read_all().to_pylist()
    return records


def test_the_ledgers_are_the_manifests_and_close(cache, figures):
    source, shards = read_conversations_manifest(cache / "conversations"), read_shards_manifest(cache / "shards")
    rows, tokens = figures.rows, figures.tokens
    assert (rows.rows, rows.kept, rows.ready) == (source.rows, source.kept, shards.ledger.kept)
    assert rows.reasons() == shards.ledger.turned_away
    assert rows.rows + rows.branched == rows.ready + rows.joined + sum(rows.reasons().values()) == 128
    assert tokens == shards.ledger.tokens
    assert tokens.tokens + tokens.repeated == tokens.targets + tokens.context + sum(tokens.cut.values())


def test_each_source_is_told_with_what_became_of_it(figures):
    sources = {source.name: source for source in figures.sources}
    assert sources["dialogues"].kept == sources["dialogues"].ready == 120
    assert sources["none"].turned_away == {"unknown-format": 2}
    assert sources["odd"].turned_away["unknown-format"] == 2
    assert sources["odd"].turned_away["too-long"] == 1
    assert sum(source.ready for source in figures.sources) == figures.rows.ready
    assert sum(source.tokens for source in figures.sources) == figures.tokens.targets + figures.tokens.context
    assert sum(source.targets for source in figures.sources) == figures.tokens.targets
    assert sum(source.held_out for source in figures.sources) == figures.splits[1].examples
    away = [count for source in figures.sources for count in source.turned_away.values()]
    assert sum(away) == sum(figures.rows.reasons().values())


def test_texts_are_counted_as_a_plain_loop_counts_them(cache, figures):
    import pyarrow.parquet as pq

    manifest = read_conversations_manifest(cache / "conversations")
    records = [
        record for part in manifest.parts for record in pq.read_table(cache / "conversations" / part.file).to_pylist()
    ]
    messages = [message for record in records for message in record["messages"]]
    text = figures.text
    assert text.characters.total == sum(len(message["content"]) for message in messages)
    assert text.turns.total == sum(message["role"] != "system" for message in messages)
    assert text.turns.max == max(sum(m["role"] != "system" for m in record["messages"]) for record in records)
    assert text.messages == len(messages) == sum(text.roles.values())
    assert (text.with_tools, text.with_calls, text.calls, text.tool_messages) == (1, 1, 1, 1)
    assert (text.with_reasoning, text.reasoning_characters) == (1, len("Let me add."))
    assert sum(text.turns.counts) == sum(text.characters.counts) == sum(text.scripts.values()) == manifest.kept


def test_truncation_costs_what_cutting_each_example_costs(cache, figures):
    examples = examples_in_cache(cache)
    by_limit = {row.limit: row for row in figures.lengths.truncation}
    assert [len(example["input_ids"]) for example in examples if len(example["input_ids"]) > 1_024]
    for limit, row in by_limit.items():
        longer = [example for example in examples if len(example["input_ids"]) > limit]
        assert row.conversations == len(longer)
        assert row.tokens == sum(len(example["input_ids"]) - limit for example in longer)
        assert row.targets == sum(sum(example["assistant_masks"][limit:]) for example in longer)
    assert figures.lengths.lengths.total == sum(len(example["input_ids"]) for example in examples)
    assert figures.lengths.targets == sum(sum(example["assistant_masks"]) for example in examples)


def test_packs_are_described_as_the_shards_hold_them(cache, figures):
    shards = read_shards_manifest(cache / "shards")
    for split in figures.splits:
        records = shards.splits[split.name]
        assert split.packs == sum(split.fill.counts) == sum(record.packs for record in records)
        assert split.examples == split.examples_per_pack.total == sum(record.examples for record in records)
        assert split.tokens == sum(record.tokens for record in records)
        assert split.targets == sum(record.targets for record in records)
    assert [split.name for split in figures.splits] == ["train", "val"]


def test_without_the_cache_of_examples_only_their_lengths_are_missing(cache, figures, tmp_path):
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy, ignore=shutil.ignore_patterns("tokens"))
    again, _ = collect_report(copy, 50)
    assert again.lengths is None
    assert (again.rows, again.tokens, again.splits) == (figures.rows, figures.tokens, figures.splits)
    assert main(["report", str(copy)]) == 0
    assert "the cache of examples is gone" in (copy / "report.html").read_text(encoding="utf-8")


def test_examples_of_another_tokenizer_are_not_taken_for_those_of_the_shards(cache, tmp_path):
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    (folder,) = (copy / "tokens").iterdir()
    for path in folder.glob("*.arrow"):
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        ids = [example[:-1] for example in table.column("input_ids").to_pylist()]
        shorter = table.set_column(0, table.schema.field(0), pa.array(ids, pa.list_(pa.int32())))
        path.unlink()
        with pa.ipc.new_file(str(path), table.schema) as out:
            out.write_table(shorter)
    assert collect_report(copy, 5)[0].lengths is None


def test_a_recipe_leaves_rows_out_and_repeats_others_and_both_are_told(cache, tiny_tokenizer_dir, tmp_path):
    copy, recipe = tmp_path / "cache", tmp_path / "recipe.toml"
    shutil.copytree(cache, copy)
    recipe.write_text("[sources.dialogues]\nweight = 2.0\nmax_conversations = 30\n", encoding="utf-8")
    arguments = ["tokenize", str(copy), "--model", str(tiny_tokenizer_dir), "--seq-len", "1024"]
    assert main([*arguments, "--recipe", str(recipe)]) == 0
    figures, _ = collect_report(copy, 10)
    source = next(source for source in figures.sources if source.name == "dialogues")
    assert (source.ready, source.turned_away) == (30, {"left-out-by-recipe": 90})
    assert figures.tokens.repeated > 0
    assert figures.mixture == {"dialogues": "weight 2, at most 30 conversations"}
    assert figures.lengths is not None
    assert main(["report", str(copy)]) == 0


def test_conversations_that_are_not_tokenised_yet_are_told_without_tokens(tmp_path, capsys):
    raw = write_jsonl(tmp_path / "raw.jsonl", many_dialogues(30))
    assert main(["normalize", str(raw), "--out", str(tmp_path / "cache")]) == 0
    assert main(["report", str(tmp_path / "cache")]) == 0
    shown = capsys.readouterr().out
    assert "30 of 30 rows became conversations; they are not tokenised yet." in shown
    figures, samples = collect_report(tmp_path / "cache", 10)
    assert (figures.tokens, figures.lengths, figures.splits, samples.packs) == (None, None, [], [])
    assert len(samples.conversations) >= 10


def test_shards_of_other_conversations_are_left_out_and_that_is_told(cache, tmp_path, capsys):
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    raw = write_jsonl(tmp_path / "raw.jsonl", many_dialogues(7))
    assert main(["normalize", str(raw), "--out", str(copy)]) == 0
    capsys.readouterr()
    assert main(["report", str(copy)]) == 0
    assert "the shards there were made of other conversations" in capsys.readouterr().out
    assert collect_report(copy, 5)[0].tokens is None


def test_where_nothing_was_kept_the_reasons_are_told(tmp_path, capsys):
    (tmp_path / "raw.jsonl").write_text('{"a": 1}\n{"b": 2}\n', encoding="utf-8")
    assert main(["normalize", str(tmp_path / "raw.jsonl"), "--out", str(tmp_path / "cache")]) == 1
    capsys.readouterr()
    assert main(["report", str(tmp_path / "cache")]) == 0
    assert capsys.readouterr().out.startswith("Nothing was kept of 2 rows")
    figures, samples = collect_report(tmp_path / "cache", 10)
    assert figures.text is None
    assert [row.reason for row in samples.turned_away] == ["unknown-format"] * 2


def test_every_source_split_and_reason_shows_among_the_samples(cache):
    _, samples = collect_report(cache, 20)
    assert {sample.source for sample in samples.conversations} == {"dialogues", "odd"}
    splits = {example.split for sample in samples.conversations for example in sample.examples}
    assert splits == {pack.split for pack in samples.packs} == {"train", "val"}
    reasons = {row.reason for row in samples.turned_away}
    assert {"unknown-format", "too-long"} <= reasons
    too_long = next(row for row in samples.turned_away if row.reason == "too-long")
    assert too_long.messages[0].text == "Tell me all."
    assert too_long.stage == "tokenize"


def test_samples_hold_the_tokens_that_are_trained_on(cache):
    _, samples = collect_report(cache, 20)
    sample = next(sample for sample in samples.conversations if sample.source == "odd")
    spans = [span for example in sample.examples for span in example.spans]
    targets = "".join(span.text.replace(BETWEEN, "") for span in spans if span.target)
    assert targets.endswith("It is 4.<|im_end|>")
    assert "What is 2 + 2?" not in targets
    shown = sum(len(span.text.split(BETWEEN)) for span in spans)
    assert shown == sum(example.tokens for example in sample.examples)
    for pack in samples.packs:
        assert pack.tokens == sum(example.tokens for example in pack.examples)
        assert pack.targets == sum(example.targets for example in pack.examples)


def test_a_report_of_the_same_cache_is_the_same(cache, tmp_path):
    for name in ("one.html", "two.html"):
        assert main(["report", str(cache), "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_tokens_that_share_a_character_stay_together(tiny_tokenizer_dir):
    tokenizer = Tokenizer.from_file(str(tiny_tokenizer_dir / "tokenizer.json"))
    ids = tokenizer.encode("a龘b").ids
    assert len(ids) == 5
    assert token_texts(tokenizer, ids).split(BETWEEN) == ["a", "龘", "b"]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("", "no letters"),
        ("1234 – 56", "no letters"),
        ("Grüße aus Köln", "Latin"),
        ("Xin chào các bạn", "Latin"),
        ("晚上少看手机。", "Chinese"),
        ("请用 Python 写一个函数", "Chinese"),
        ("A long English text that cites 一 word of Chinese", "Latin"),
        ("夜はスマホを見ないでください", "Japanese"),
        ("잘 자요, 내일 봐요", "Korean"),
        ("Доброе утро", "Cyrillic"),
        ("Καλημέρα", "Greek"),
        ("בוקר טוב", "Hebrew"),
        ("صباح الخير", "Arabic"),
        ("सुप्रभात", "Indic"),
        ("สวัสดี", "Thai"),
        ("გამარჯობა", "other script"),
        ("𠀀𠀁", "Chinese"),
    ],
)
def test_the_script_of_a_text_is_that_of_most_of_its_bytes(text, script):
    filler = "请问"  # a neighbour on each side that must not be read
    data = np.frombuffer((filler + text + filler).encode(), dtype=np.uint8)
    start, length = len(filler.encode()), len(text.encode())
    bounds = np.array([0, start, start + length, len(data)], dtype=np.int64)
    assert [SCRIPTS[number] for number in scripts_of(data, bounds)] == ["Chinese", script, "Chinese"]


def test_a_missing_quarantine_file_or_part_is_told(cache, tmp_path, capsys):
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    manifest = read_conversations_manifest(copy / "conversations")
    (copy / "conversations" / manifest.quarantine.file).unlink()
    assert main(["report", str(copy)]) == 1
    told = "missing or damaged; run `dataprep normalize` again"
    assert f"{manifest.quarantine.file}: {told}" in capsys.readouterr().err
    (copy / "conversations" / manifest.parts[0].file).unlink()
    assert main(["report", str(copy)]) == 1
    assert f"{manifest.parts[0].file}: missing; run `dataprep normalize` again" in capsys.readouterr().err
    assert not (copy / "report.html").exists()


def test_cleaning_readings_and_branches_are_told_as_the_manifest_counts_them(tmp_path, capsys):
    rows = [
        {"prompt": "What now?", "chosen": "Rest.", "rejected": "Run!"},
        {"messages": [{"role": "user", "content": "Hi\u200b  "}, {"role": "assistant", "content": "Hello   "}]},
        {"query": "And now?", "response": "Go on.", "history": [["What then?", "This."]]},
    ]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    normalize = ["normalize", str(tmp_path / "raw.jsonl"), "--out", str(tmp_path / "cache"), "--preference", "both"]
    assert main([*normalize, "--clean", "spaces"]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "cache")]) == 0
    assert capsys.readouterr().out.startswith("4 conversations from 3 rows; they are not tokenised yet.")
    figures, _ = collect_report(tmp_path / "cache", 10)
    manifest = read_conversations_manifest(tmp_path / "cache" / "conversations")
    assert (figures.rows.branched, figures.rows.kept) == (1, 4)
    assert figures.cleaned == manifest.cleaned == {"spaces": 1}
    assert figures.readings == manifest.readings
    assert "spaces=fix" in figures.settings["cleaning"].split(", ")
    page = (tmp_path / "cache" / "report.html").read_text(encoding="utf-8")
    for reading in manifest.readings:
        assert reading.example.split("/")[-1] in page


@pytest.mark.parametrize(("kind", "content"), [("part", b"PAR1, and no more"), ("quarantine", b"[]\n")])
def test_a_damaged_part_or_quarantine_is_told_on_one_line(tmp_path, capsys, kind, content):
    (tmp_path / "raw.jsonl").write_text('{"text": "A page."}\noops\n', encoding="utf-8")
    assert main(["normalize", str(tmp_path / "raw.jsonl"), "--out", str(tmp_path)]) == 0
    [path] = (tmp_path / "conversations").glob(f"{kind}-*")
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["report", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"dataprep: {path}: ")
    assert told.endswith("; run `dataprep normalize` again\n")
    assert told.count("\n") == 1


def test_a_report_may_be_asked_of_the_conversations_folder(tmp_path):
    (tmp_path / "raw.jsonl").write_text('{"text": "A page."}\n', encoding="utf-8")
    assert main(["normalize", str(tmp_path / "raw.jsonl"), "--out", str(tmp_path)]) == 0
    assert main(["report", str(tmp_path / "conversations")]) == 0
    assert (tmp_path / "report.html").is_file()
