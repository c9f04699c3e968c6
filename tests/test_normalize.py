"""Raw files to conversations/: the ledger, the folder, the processes, and what the user is told."""

import json
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.normalize import share
from dataprep.normalize.choices import Choices
from dataprep.normalize.run import normalize_corpus
from dataprep.normalize.summary import summary_text
from dataprep.stages.normalize.convert import FORMATS
from schemas.conversation import CONVERSATION
from schemas.errors import CacheError, InputError, SftpackError
from schemas.files import sha256_file
from schemas.manifest import ConversationsManifest, read_conversations_manifest

HELLO = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}
BYE = {"messages": [{"role": "user", "content": "Bye"}, {"role": "assistant", "content": "See you"}]}


def run(*inputs: Path, out: Path, workers: int | None = None, **more: object) -> ConversationsManifest:
    choices = Choices(**more)
    return normalize_corpus([str(path) for path in inputs], out, workers=workers, choices=choices)


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def stored(manifest: ConversationsManifest, out: Path) -> list[dict]:
    tables = [pq.read_table(out / "conversations" / part.file) for part in manifest.parts]
    return pa.concat_tables(tables).to_pylist() if tables else []


def rejected(manifest: ConversationsManifest, out: Path) -> list[dict]:
    text = (out / "conversations" / manifest.quarantine.file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def files_in(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "conversations").iterdir()}


def test_a_mixed_file_becomes_conversations_and_the_ledger_closes(tmp_path: Path) -> None:
    tool = {
        "conversations": [{"from": "function_call", "value": '{"name": "now", "arguments": {}}'}],
        "tools": '[{"name": "now"}]',
    }
    path = lines(tmp_path / "mixed.jsonl", HELLO, {"text": "A page."}, tool, {"odd": 1}, {"odd": 2})
    manifest = run(path, out=tmp_path)
    assert (manifest.rows, manifest.kept, manifest.turned_away) == (5, 3, {"unknown-format": 2})
    assert manifest.formats == {"openai": 1, "sharegpt": 1, "text": 1}
    assert manifest.sources == {"mixed": 3}
    assert manifest.inputs[0].sha256 == sha256_file(path)
    plain = {"reasoning": None, "tool_calls": None, "name": None, "tool_call_id": None, "train": None}
    hello, page, call = stored(manifest, tmp_path)
    assert hello == {
        "id": "e6bd7d15fb909b4af175a52a88b0f0e8",
        "source": "mixed",
        "origin": {"file": path.as_posix(), "row": 1},
        "messages": [
            {"role": "user", "content": "Hello", **plain},
            {"role": "assistant", "content": "Hi", **plain},
        ],
        "tools": None,
    }
    assert page["messages"] == [{"role": "text", "content": "A page.", **plain}]
    calls = [{"id": None, "name": "now", "arguments": "{}"}]
    assert call["messages"] == [{"role": "assistant", "content": "", **plain, "tool_calls": calls}]
    assert call["tools"] == '[{"name": "now"}]'


def test_the_folder_is_as_its_manifest_says(tmp_path: Path) -> None:
    manifest = run(lines(tmp_path / "a.jsonl", HELLO, 5), out=tmp_path)
    assert read_conversations_manifest(tmp_path / "conversations") == manifest
    for artefact in (*manifest.parts, manifest.quarantine):
        path = tmp_path / "conversations" / artefact.file
        assert (artefact.bytes, artefact.sha256) == (path.stat().st_size, sha256_file(path))
        assert artefact.sha256[:8] in artefact.file
    assert pq.read_schema(tmp_path / "conversations" / manifest.parts[0].file).equals(CONVERSATION)
    assert sorted(files_in(tmp_path)) == sorted(["manifest.json", manifest.parts[0].file, manifest.quarantine.file])


def test_a_row_turned_away_is_listed_with_its_place_its_reason_and_its_text(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", HELLO, {"dialogue": "长" * 5000})
    manifest = run(path, out=tmp_path)
    assert rejected(manifest, tmp_path) == [
        {
            "file": path.as_posix(),
            "row": 2,
            "source": "a",
            "reason": "no-messages",
            "detail": "dialogue is a string, expected a list",
            "fix": "write the dialogue as a list of messages, or as one text of turns with User: or Assistant:",
            "raw": '{"dialogue": "' + "长" * 5000 + '"}',
        }
    ]


def test_rows_of_arrays_and_parquet_are_listed_as_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"odd": [1, "中"]}, {"lone": "x"}]', encoding="utf-8")
    pq.write_table(pa.table({"odd": [b"\x00"]}), tmp_path / "b.parquet")
    manifest = run(tmp_path / "a.json", tmp_path / "b.parquet", out=tmp_path)
    assert [row["raw"] for row in rejected(manifest, tmp_path)] == [
        '{"odd": [1, "中"]}',
        '{"lone": "x"}',
        '{"odd": "b\'\\\\x00\'"}',
    ]
    assert manifest.kept == 0
    assert manifest.parts == []


def test_an_empty_file_among_others_counts_no_rows(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.json").write_text("\n")
    manifest = run(tmp_path / "empty.jsonl", tmp_path / "blank.json", lines(tmp_path / "a.jsonl", HELLO), out=tmp_path)
    assert (manifest.rows, manifest.sources) == (1, {"empty": 0, "blank": 0, "a": 1})


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_no_row_at_all_is_an_error_and_the_old_state_stays(tmp_path: Path, name: str) -> None:
    run(lines(tmp_path / "good.jsonl", HELLO), out=tmp_path)
    before = files_in(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"{name}: holds no rows; name a file with at least one"):
        run(tmp_path / name, out=tmp_path)
    assert files_in(tmp_path) == before


def test_a_new_state_replaces_the_old_one_and_leaves_strangers_alone(tmp_path: Path) -> None:
    run(lines(tmp_path / "a.jsonl", HELLO, 5), out=tmp_path)
    for name in ("mine.parquet", ".unit-1-00000.parquet", "..unit-1-00000.parquet.1.tmp", ".manifest.json.1.tmp"):
        (tmp_path / "conversations" / name).touch()
    manifest = run(lines(tmp_path / "b.jsonl", {"text": "A page."}), out=tmp_path)
    expected = {"manifest.json", "mine.parquet", manifest.parts[0].file, manifest.quarantine.file}
    assert set(files_in(tmp_path)) == expected


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "UNIT_BYTES", 20_000)
    rows = [HELLO | {"id": number} if number % 7 else {"odd": number} for number in range(1000)]
    path = lines(tmp_path / "a.jsonl", *rows)
    (tmp_path / "b.json").write_text(json.dumps(rows[:300]))
    both = (path, tmp_path / "b.json")
    manifests = [run(*both, out=tmp_path / str(n), workers=n, clean=["duplicates=off"]) for n in (1, 2)]
    assert manifests[0] == manifests[1]
    assert len(manifests[0].parts) == 2
    assert files_in(tmp_path / "1") == files_in(tmp_path / "2")
    origins = [(row["origin"]["file"], row["origin"]["row"]) for row in stored(manifests[0], tmp_path / "1")]
    assert origins == [(path.as_posix(), n + 1) for n in range(1000) if n % 7] + [
        ((tmp_path / "b.json").as_posix(), n + 1) for n in range(300) if n % 7
    ]


def test_conversations_can_be_normalized_again_and_stay_the_same(tmp_path: Path) -> None:
    call = {"id": "c", "function": {"name": "now", "arguments": '{"a": 1.0}'}}
    rich = {"role": "assistant", "content": None, "reasoning_content": "Hm", "tool_calls": [call], "weight": 0}
    row = {"messages": [*HELLO["messages"], rich], "tools": [{"name": "now"}], "system": "Be brief."}
    once = run(lines(tmp_path / "a.jsonl", HELLO, row), out=tmp_path / "1")
    twice = run(tmp_path / "1" / "conversations" / once.parts[0].file, out=tmp_path / "2")

    def content(manifest: ConversationsManifest, out: Path) -> list[tuple]:
        return [(row["id"], row["messages"], row["tools"]) for row in stored(manifest, out)]

    assert content(once, tmp_path / "1") == content(twice, tmp_path / "2")


def test_one_row_of_many_megabytes_is_a_row(tmp_path: Path) -> None:
    long = {"messages": [{"role": "user", "content": "长" * 7_000_000}, {"role": "assistant", "content": "Hi"}]}
    manifest = run(lines(tmp_path / "a.jsonl", HELLO, long, {"text": "A page."}), out=tmp_path)
    assert (manifest.kept, manifest.rows) == (3, 3)
    assert [row["origin"]["row"] for row in stored(manifest, tmp_path)] == [1, 2, 3]


def test_a_file_in_another_encoding_is_read_and_the_summary_names_it(tmp_path: Path) -> None:
    text = "".join(json.dumps({"text": f"第{n}页，你好"}, ensure_ascii=False) + "\n" for n in range(5))
    path = tmp_path / "a.jsonl"
    path.write_bytes(text.encode("gbk") + b'{"text": "\xff"}\n')
    manifest = run(path, out=tmp_path)
    assert (manifest.rows, manifest.kept, manifest.turned_away) == (6, 5, {"bad-encoding": 1})
    assert stored(manifest, tmp_path)[4]["messages"][0]["content"] == "第4页，你好"
    assert manifest.inputs[0].encoding == "gb18030"
    assert f"{path.as_posix()}: not UTF-8; read as gb18030" in summary_text(manifest, tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"format": "chatml"}, "--format chatml: no such format; use one of openai, sharegpt, turns, turn-pairs,"),
        ({"workers": 0}, "--workers 0: must be 1 or more"),
    ],
)
def test_options_that_cannot_be_name_themselves(tmp_path: Path, more: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(lines(tmp_path / "a.jsonl", HELLO), out=tmp_path, **more)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(CacheError, match=r"out/conversations: cannot be written: Not a directory; .* another --out"):
        run(lines(tmp_path / "a.jsonl", HELLO), out=tmp_path / "out")


def test_killed_at_any_moment_the_old_state_or_the_new_one_stands(tmp_path: Path) -> None:
    rows = [HELLO | {"id": number} for number in range(200_000)]
    old = run(lines(tmp_path / "old.jsonl", HELLO), out=tmp_path)
    path = lines(tmp_path / "new.jsonl", *rows)
    code = (
        "from dataprep.normalize.run import normalize_corpus; from pathlib import Path; print('go', flush=True);"
        f"normalize_corpus([{str(path)!r}], Path({str(tmp_path)!r}), workers=1)"
    )
    for delay_s in (0.0, 0.2, 0.5):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        manifest = read_conversations_manifest(tmp_path / "conversations")
        assert manifest.rows in (1, len(rows))
        for artefact in (*manifest.parts, manifest.quarantine):
            assert sha256_file(tmp_path / "conversations" / artefact.file) == artefact.sha256
    again = run(tmp_path / "old.jsonl", out=tmp_path)
    assert again == old
    assert set(files_in(tmp_path)) == {"manifest.json", again.parts[0].file, again.quarantine.file}


def test_the_summary_tells_the_ledger_with_an_example_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bot = {"messages": [{"role": "bot", "content": "Hi"}]}
    manifest = run(lines(Path("a.jsonl"), HELLO, 5, bot, 6, BYE), out=Path("cache"))
    assert summary_text(manifest, Path("cache")) == (
        "rows             5\n"
        "kept             2\n"
        "turned away      3\n"
        "  not-an-object  2\n"
        "      a.jsonl:2: the row is a number, expected an object\n"
        "      to mend: make each row a JSON object or a list of messages\n"
        "  unknown-role   1\n"
        "      a.jsonl:3: message 1 has role 'bot'; expected one of user, human, assistant, gpt, chatgpt, model, "
        "system, developer, tool, function, observation, tool_response, function_call, tool_call\n"
        "      to mend: map it with --role bot=assistant, or =user, =system, =tool\n"
        "\n"
        "kept, by format\n"
        "  openai         2\n"
        "\n"
        "kept, by source\n"
        "  a              2\n"
        "\n"
        "written to cache/conversations (1 part)\n"
        f"the rows turned away are listed in cache/conversations/{manifest.quarantine.file}"
    )


def test_the_summary_says_when_nothing_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = run(lines(Path("a.jsonl"), 5), out=Path("cache"))
    assert summary_text(manifest, Path("cache")).splitlines()[-2:] == [
        "no row was kept, so there is nothing to tokenize",
        f"the rows turned away are listed in cache/conversations/{manifest.quarantine.file}",
    ]


def test_a_killed_worker_is_an_error_that_says_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "UNIT_BYTES", 20_000)
    path = lines(tmp_path / "a.jsonl", *[HELLO] * 40_000)
    ready = threading.Event()

    def kill_a_worker() -> None:
        while not ready.is_set():
            for worker in multiprocessing.active_children():
                worker.kill()
            time.sleep(0.05)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    try:
        with pytest.raises(SftpackError, match="a worker process was killed"):
            run(path, out=tmp_path, workers=2)
    finally:
        ready.set()
        killer.join()
    assert not (tmp_path / "conversations" / "manifest.json").exists()


def test_real_data_of_every_format_closes_the_ledger(shared: Path, tmp_path: Path) -> None:
    manifest = run(shared / "data", out=tmp_path)
    assert manifest.rows == manifest.kept + sum(manifest.turned_away.values())
    assert set(FORMATS) - set(manifest.formats) == {"turns", "alternating", "chatgpt", "xlam"}


def test_real_dialogues_are_all_kept(shared: Path, tmp_path: Path) -> None:
    names = {
        "smilechat/smilechat_firefly_200.jsonl": 200,
        "emollm/emollm_data_300.json": 300,
        "llamafactory/alpaca_zh_demo.json": 1000,
        "medicalgpt/medical_sft_1K_format.jsonl": 1000,
        "llamafactory/glaive_toolcall_en_demo.json": 300,
        "fastchat/dummy_conversation.json": 500,
        "hh/rm_static_style_200.parquet": 200,
    }
    manifest = run(*(shared / "data" / name for name in names), out=tmp_path)
    assert set(manifest.turned_away) == {"duplicate"}
    manifest = run(*(shared / "data" / name for name in names), out=tmp_path, clean=["duplicates=off"])
    assert manifest.turned_away == {}
    assert list(manifest.sources.values()) == list(names.values())
    assert manifest.formats == {"sharegpt": 1800, "alpaca": 1000, "turn-pairs": 500, "hh": 200}
