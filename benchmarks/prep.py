"""Preparation, ours against TRL's own: the same corpus, tokenizer and cores, in turns, in one run.

    python benchmarks/prep.py --data FOLDER_OF_RAW_FILES --tokenizer QWEN3_FOLDER [--count 20000] [--rounds 3]

Ours is `dataprep normalize` and `dataprep tokenize`, from raw rows to packed shards; the cache is emptied before each
round but for the tokenizer, whose proof is made once. TRL's is what SFTTrainer's constructor does to a loaded dataset
(chat template with assistant mask, labels, best-fit packing). CPU seconds are of a process and all its children,
counted twice: of the whole command, and without start-up (ours: what the same commands take on ten rows; TRL's: what
comes before the constructor: imports, tokenizer, a tiny model, reading the .jsonl).
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from measure import measured

HERE = Path(__file__).resolve().parent
SOURCES = (
    "smilechat/smilechat_200.jsonl",
    "smilechat/smilechat_firefly_200.jsonl",
    "emollm/emollm_data_300.json",
    "medicalgpt/medical_sft_1K_format.jsonl",
    "llamafactory/alpaca_en_demo.json",
    "llamafactory/alpaca_zh_demo.json",
    "fastchat/dummy_conversation.json",
    "oasst/en_100_tree.jsonl",
    "hh/rm_static_style_200.parquet",
)


def ours(corpus: Path, tokenizer: str, cache: Path, startup_cpu_s: float) -> dict[str, float]:
    """Both commands on a cache that holds the tokenizer at most."""
    for part in ("conversations", "tokens", "shards"):
        shutil.rmtree(cache / part, ignore_errors=True)
    normalize = measured([_tool("dataprep"), "normalize", str(corpus), "--out", str(cache)], {})
    tokenize = measured([_tool("dataprep"), "tokenize", str(cache), "--model", tokenizer], {})
    manifest = json.loads((cache / "shards" / "manifest.json").read_text())
    records = [record for records in manifest["splits"].values() for record in records]
    tokens = sum(record["tokens"] for record in records)
    return {
        "cpu_s": normalize["cpu_s"] + tokenize["cpu_s"],
        "steady_cpu_s": normalize["cpu_s"] + tokenize["cpu_s"] - startup_cpu_s,
        "normalize_cpu_s": normalize["cpu_s"],
        "tokenize_cpu_s": tokenize["cpu_s"],
        "wall_s": normalize["wall_s"] + tokenize["wall_s"],
        "peak_bytes": max(normalize["peak_bytes"], tokenize["peak_bytes"]),
        "tokens": tokens,
        "fill": tokens / (sum(record["packs"] for record in records) * manifest["options"]["seq_len"]),
        "bytes_a_token": sum(record["bytes"] for record in records) / tokens,
    }


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the raw files named in SOURCES")
    parser.add_argument("--tokenizer", required=True, help="folder of Qwen3's tokenizer")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/tmp/sftpack-prep"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(HERE))
    from corpus import make_corpus

    corpus = arguments.work / "corpus.jsonl"
    print(make_corpus([str(arguments.data / name) for name in SOURCES], corpus, arguments.count))
    tiny = arguments.work / "tiny.jsonl"
    tiny.write_text("".join(corpus.read_text(encoding="utf-8").splitlines(keepends=True)[:10]), encoding="utf-8")
    size = corpus.stat().st_size
    trl_command = [sys.executable, str(HERE / "prep_trl.py"), str(corpus), arguments.tokenizer, str(arguments.work)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DS_ACCELERATOR": "cpu"}
    cache = arguments.work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    first = ours(tiny, arguments.tokenizer, cache, 0.0)
    arms: dict[str, list[dict[str, float]]] = {"sftpack": [], "TRL": []}
    for _ in range(arguments.rounds):
        startup = ours(tiny, arguments.tokenizer, cache, 0.0)
        arms["sftpack"].append(ours(corpus, arguments.tokenizer, cache, startup["cpu_s"]))
        trl = measured(trl_command, offline)
        arms["TRL"].append({**trl, "steady_cpu_s": trl["prep_cpu_s"], "wall_s": trl["prep_wall_s"]})
    print(f"{arguments.count:,} conversations, {size / 1e6:.1f} MB of JSONL, {os.cpu_count()} cores")
    print(
        f"proving a new tokenizer, once: {first['cpu_s'] - startup['cpu_s']:.1f} CPU s; "
        f"start-up of both commands: {startup['cpu_s']:.1f} CPU s"
    )
    head = ("median of rounds", "MB/CPU s", "no start-up", "conv/s", "wall s", "peak MB", "bytes/token", "fill")
    print("{:<18}{:>10}{:>13}{:>9}{:>9}{:>9}{:>13}{:>9}".format(*head))
    for name, runs in arms.items():
        middle = {key: sorted(run[key] for run in runs)[len(runs) // 2] for key in runs[0]}
        print(
            f"{name:<18}{size / 1e6 / middle['cpu_s']:>10.2f}{size / 1e6 / middle['steady_cpu_s']:>13.2f}"
            f"{arguments.count / middle['wall_s']:>9.0f}{middle['wall_s']:>9.1f}{middle['peak_bytes'] / 1e6:>9.0f}"
            f"{middle['bytes_a_token']:>13.2f}{middle['fill']:>9.2%}"
        )
    for key, what in (
        ("cpu_s", "CPU, whole"),
        ("steady_cpu_s", "CPU, no start-up"),
        ("wall_s", "wall (TRL without its start-up)"),
    ):
        ratios = [theirs[key] / mine[key] for mine, theirs in zip(arms["sftpack"], arms["TRL"], strict=True)]
        print(f"sftpack over TRL, {what}: " + ", ".join(f"{ratio:.1f}x" for ratio in ratios))
    print(json.dumps(arms))


if __name__ == "__main__":
    main()
