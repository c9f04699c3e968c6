import json
import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from corpus import write_jsonl

from dataprep.cli import main
from dataprep.report.charts import percent, short
from dataprep.report.flow import clipped
from schemas.manifest import read_conversations_manifest, read_shards_manifest

HOSTILE = "</script><script>document.title='broken'</script><!-- <img src=x onerror=alert(1)> & \u2028 \x7f end"


class Page(HTMLParser):
    """What a browser would find: elements, the text of the data block, and the text of the rest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.data = json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def dialogues() -> list[list[tuple[str, str]]]:
    made = [
        [("user", f"Question {number}: 怎么种番茄？"), ("assistant", "多浇水。" * (number + 1))] for number in range(60)
    ]
    return [*made, [("user", HOSTILE), ("assistant", f"I see {HOSTILE}")]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_tokenizer_dir) -> Path:
    folder = tmp_path_factory.mktemp("page")
    raw = write_jsonl(folder / "<b>bold.jsonl", dialogues())
    with raw.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text and more": HOSTILE, "</script>": 1}) + "\n")
        file.write('{"messages": "half of a pair: \\ud83d"}\n')
    assert main(["normalize", str(raw), "--out", str(folder / "cache")]) == 0
    tokenize = ["tokenize", str(folder / "cache"), "--model", str(tiny_tokenizer_dir), "--seq-len", "1024"]
    assert main(tokenize) == 0
    assert main(["report", str(folder / "cache")]) == 0
    return folder / "cache"


@pytest.fixture(scope="module")
def page(cache) -> Page:
    return read_page(cache / "report.html")


def test_the_ledger_on_the_page_is_the_manifests_and_closes(cache, page):
    figures: dict[str, Any] = page.data["figures"]
    source, shards = read_conversations_manifest(cache / "conversations"), read_shards_manifest(cache / "shards")
    rows, tokens = figures["rows"], figures["tokens"]
    assert (rows["rows"], rows["kept"], rows["ready"]) == (source.rows, source.kept, shards.ledger.kept)
    away = sum(rows["turned_away"].values()) + sum(rows["refused"].values())
    assert rows["rows"] + rows["branched"] == rows["ready"] + rows["joined"] + away
    ledger = shards.ledger.tokens
    assert (tokens["tokens"], tokens["targets"], tokens["context"]) == (ledger.tokens, ledger.targets, ledger.context)
    assert tokens["tokens"] + tokens["repeated"] == tokens["targets"] + tokens["context"] + sum(tokens["cut"].values())
    assert figures["sources"][0]["tokens"] == ledger.targets + ledger.context
    for count in (source.rows, shards.ledger.kept, ledger.tokens, ledger.targets, ledger.context):
        assert f"{count:,}" in page.text


def test_text_out_of_the_data_never_becomes_markup(page):
    assert len(page.scripts) == 2
    assert not [tag for tag, _ in page.tags if tag in ("b", "img")]
    shown = [m["text"] for sample in page.data["samples"]["conversations"] for m in sample["messages"]]
    assert HOSTILE in shown
    assert f"I see {HOSTILE}" in shown
    assert any(HOSTILE[:9] in row["raw"] for row in page.data["samples"]["turned_away"])
    assert "<b>bold" in page.text


def test_the_page_asks_for_nothing_beside_itself(page):
    policy = next(each["content"] for tag, each in page.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object")
        assert "src" not in attributes and "style" not in attributes
        assert (attributes.get("href") or "#").startswith("#")


def test_headings_charts_and_controls_have_names(page):
    assert [tag for tag, _ in page.tags].count("h1") == 1
    for tag, attributes in page.tags:
        if tag == "svg" and not attributes.get("aria-hidden"):
            assert attributes["role"] == "img" and attributes["aria-label"]
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] or "" for tag, attributes in page.tags if tag == "a"]
    assert {link[1:] for link in links if "=" not in link} <= ids
    assert "#show=turned_away&reason=unknown-format" in links
    assert "#show=conversations&source=%3Cb%3Ebold" in links


def test_labels_of_the_flow_do_not_overlap(tmp_path):
    for number in range(30):
        rows = [{"text": f"document {number} {row}"} for row in range(1 + 40 * (number % 3))]
        rows += [{"odd": 1}] * (number % 4)
        path = tmp_path / f"a rather long name of a source {number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["normalize", str(tmp_path), "--out", str(tmp_path / "cache")]) == 0
    assert main(["report", str(tmp_path / "cache")]) == 0
    text = (tmp_path / "cache" / "report.html").read_text(encoding="utf-8")
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)">([^<]*)<tspan class="count">([\d,]+)</tspan>', text)
    assert len(labels) >= 12
    columns = sorted({float(x) for x, _, _, _ in labels})
    for x in columns:
        places = sorted(float(y) for left, y, _, _ in labels if float(left) == x)
        assert all(below - above >= 18 for above, below in pairwise(places))
    assert all(len(name) + len(count) <= 29 for _, _, name, count in labels)


def test_five_hundred_sources_are_all_told_and_all_sampled(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(500):
        (raw / f"source{number:03}.jsonl").write_text(
            json.dumps({"prompt": f"Say {number}", "response": f"{number}"}) + "\n", encoding="utf-8"
        )
    assert main(["normalize", str(raw), "--out", str(tmp_path / "cache")]) == 0
    assert main(["report", str(tmp_path / "cache")]) == 0
    page = read_page(tmp_path / "cache" / "report.html")
    assert len(page.data["figures"]["sources"]) == len(page.data["samples"]["conversations"]) == 500
    assert "491 more sources" in page.text
    assert "source499" in page.text


def test_out_names_the_file(cache, tmp_path, capsys):
    assert main(["report", str(cache), "--out", str(tmp_path / "page.html")]) == 0
    assert f"written to {tmp_path / 'page.html'}" in capsys.readouterr().out


def test_without_samples_the_page_holds_no_text_of_the_data(cache, tmp_path):
    assert main(["report", str(cache), "--out", str(tmp_path / "page.html"), "--samples", "0"]) == 0
    page = read_page(tmp_path / "page.html")
    assert page.data["samples"] == {"conversations": [], "packs": [], "turned_away": [], "note": None}
    assert "怎么种番茄" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_mistakes_are_told_in_one_line(cache, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "no conversations here yet; run: dataprep normalize INPUT…" in capsys.readouterr().err
    assert main(["report", str(cache), "--out", str(tmp_path)]) == 1
    assert f"--out {tmp_path}: is a folder; name a file in it" in capsys.readouterr().err
    assert main(["report", str(cache), "--samples", "-1"]) == 1
    assert "--samples -1: must be 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 5, "0%"), (5, 5, "100%"), (1, 8, "12.5%"), (1, 10_000, "<0.1%"), (9_999, 10_000, ">99.9%"), (1, 0, "–")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(part, whole, shown):
    assert percent(part, whole) == shown


def test_large_numbers_are_shortened():
    assert [short(n) for n in (12, 4_096, 999_999, 1_234_567, 53_941_722, 123_456_789, 7e9)] == [
        "12",
        "4,096",
        "999,999",
        "1.23 M",
        "53.9 M",
        "123 M",
        "7 G",
    ]


def test_wide_characters_count_twice_when_a_name_is_cut():
    assert clipped("心理咨询对话", 12) == "心理咨询对话"
    assert clipped("心理咨询对话", 7) == "心理…"


def chromium(page: str, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs Chromium on PATH")
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
    command += [
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=20000",
        *options,
        "--dump-dom",
    ]
    return subprocess.run([*command, page], capture_output=True, text=True, timeout=120, check=True)


def test_a_browser_shows_it_without_an_error(cache, tmp_path):
    done = chromium(f"{(cache / 'report.html').as_uri()}#show=packs&item=0", tmp_path / "profile")
    assert "CONSOLE" not in done.stderr
    shards = read_shards_manifest(cache / "shards")
    assert "broken" not in done.stdout.split("<title>")[1].split("</title>")[0]
    assert f"{shards.ledger.tokens.targets:,}" in done.stdout
    detail = done.stdout.split('id="detail"')[1].split("</article>")[0]
    number = read_page(cache / "report.html").data["samples"]["packs"][0]["number"]
    assert f"<h3>train pack {number}</h3>" in detail
    assert '<span class="target">' in detail
    assert "sampled out of" in done.stdout.split('id="count"')[1]


def test_a_phone_does_not_scroll_sideways(cache, tmp_path):
    inner = escape((cache / "report.html").read_text(encoding="utf-8"))
    measure = "const root = frame.contentDocument.documentElement; document.title = root.scrollWidth"
    frame = f'<iframe id="frame" width="390" height="800" frameborder="0" onload="{measure}" srcdoc="{inner}"></iframe>'
    outer = tmp_path / "phone.html"
    outer.write_text(f"<!doctype html><meta charset=utf-8><title>not loaded</title>{frame}", encoding="utf-8")
    done = chromium(outer.as_uri(), tmp_path / "profile", "--hide-scrollbars")
    assert done.stdout.split("<title>")[1].split("</title>")[0] == "390"


PROBE = """
const $ = (query) => document.querySelector(query), all = (query) => [...document.querySelectorAll(query)];
const rows = () => all("#sources tbody tr").map((row) => row.cells[0].textContent);
const items = () => all("#list button").length;
const choose = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("input")); };
const seen = { loaded: [items(), rows()] };
all("#sources thead button")[0].click();
seen.byName = rows();
all("#sources thead button")[1].click();
seen.byReady = rows();
all("#sources thead button")[1].click();
seen.byReadyUp = rows();
choose("#by-source", "b");
seen.ofB = items();
choose("#search", "number three");
seen.found = [items(), $("#list .excerpt").textContent];
choose("#search", "");
choose("#by-source", "");
$('[data-show="turned_away"]').click();
choose("#by-reason", "unknown-format");
seen.away = [items(), $("#detail .reason").textContent, $("#detail pre").textContent];
follow("a[href*='source=c']", () => { seen.ofC = [items(), $("#by-source").value]; finish(); });
function follow(link, then) { addEventListener("hashchange", then, { once: true }); $(link).click(); }
function finish() {
$('[data-show="packs"]').click();
$("#detail .switch input").click();
seen.bounds = all("#detail .target i").map((piece) => piece.textContent).includes("<|im_end|>");
$("#theme").click();
seen.theme = document.documentElement.dataset.theme;
document.title = JSON.stringify(seen);
}
"""


def test_tables_sort_and_samples_are_filtered_and_searched(tmp_path, tiny_tokenizer_dir):
    for name, words in (("b", ["one", "two", "three"]), ("a", ["four"]), ("c", ["five", "six"])):
        talks = [[("user", f"Say number {word}."), ("assistant", f"{word}!")] for word in words]
        write_jsonl(tmp_path / f"{name}.jsonl", talks)
    (tmp_path / "d.jsonl").write_text('{"odd": "row"}\n', encoding="utf-8")
    assert main(["normalize", str(tmp_path), "--out", str(tmp_path / "cache")]) == 0
    assert main(["tokenize", str(tmp_path / "cache"), "--model", str(tiny_tokenizer_dir), "--seq-len", "128"]) == 0
    assert main(["report", str(tmp_path / "cache")]) == 0
    text = (tmp_path / "cache" / "report.html").read_text(encoding="utf-8")
    probed = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", f"<script>{PROBE}</script></body>")
    (tmp_path / "probed.html").write_text(probed, encoding="utf-8")
    done = chromium((tmp_path / "probed.html").as_uri(), tmp_path / "profile")
    assert json.loads(unescape(done.stdout.split("<title>")[1].split("</title>")[0])) == {
        "loaded": [6, ["b", "c", "a", "d"]],
        "byName": ["a", "b", "c", "d"],
        "byReady": ["b", "c", "a", "d"],
        "byReadyUp": ["d", "a", "c", "b"],
        "ofB": 3,
        "found": [1, "Say number three."],
        "away": [1, "unknown-format", '{"odd": "row"}'],
        "ofC": [2, "c"],
        "bounds": True,
        "theme": "dark",
    }
