"""Preparation, ours against TRL's own: the same corpus, tokenizer and cores, in turns, in one run.

    python benchmarks/prep.py --data FOLDER_OF_RAW_FILES --tokenizer QWEN3_FOLDER [--count 20000] [--rounds 2]

Ours is `dataprep normalize` and `dataprep tokenize`, start-up, hashing, verification of each mask and all, from raw
rows to packed shards, cache emptied before each round. TRL's is what SFTTrainer's constructor does to a dataset
(chat template with assistant mask, truncation, best-fit packing), without imports and model loading: it is timed from
the loaded dataset on. CPU seconds are of the process and all its children.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

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


def measured(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command; CPU and wall seconds and the peak memory of its process tree in bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            try:
                tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                peak[0] = max(peak[0], sum(p.memory_full_info().uss for p in tree))
            except psutil.Error:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode:
        sys.exit(f"{command}: exit code {process.returncode}\n{output}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = {"cpu_s": cpu, "wall_s": time.monotonic() - started, "peak_bytes": float(peak[0])}
    last = output.strip().splitlines()[-1] if output.strip() else ""
    return {**result, **json.loads(last)} if last.startswith("{") else result


def ours(corpus: Path, tokenizer: str, work: Path, keep_tokenizer: bool) -> dict[str, float]:
    """Both commands on an empty cache."""
    cache = work / "cache"
    for part in ("conversations", "tokens", "shards", *(() if keep_tokenizer else ("tokenizers",))):
        shutil.rmtree(cache / part, ignore_errors=True)
    normalize = measured([_tool("dataprep"), "normalize", str(corpus), "--out", str(cache)], {})
    tokenize = measured([_tool("dataprep"), "tokenize", str(cache), "--model", tokenizer], {})
    manifest = json.loads((cache / "shards" / "manifest.json").read_text())
    records = [record for records in manifest["splits"].values() for record in records]
    tokens = sum(record["tokens"] for record in records)
    return {
        "cpu_s": normalize["cpu_s"] + tokenize["cpu_s"],
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
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("/tmp/sftpack-prep"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(HERE))
    from corpus import make_corpus

    corpus = arguments.work / "corpus.jsonl"
    print(make_corpus([str(arguments.data / name) for name in SOURCES], corpus, arguments.count))
    size = corpus.stat().st_size
    trl_command = [sys.executable, str(HERE / "prep_trl.py"), str(corpus), arguments.tokenizer, str(arguments.work)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DS_ACCELERATOR": "cpu"}
    arms: dict[str, list[dict[str, float]]] = {"sftpack, first time": [], "sftpack": [], "TRL": []}
    for round_number in range(arguments.rounds):
        if round_number == 0:
            arms["sftpack, first time"].append(ours(corpus, arguments.tokenizer, arguments.work, False))
        arms["sftpack"].append(ours(corpus, arguments.tokenizer, arguments.work, True))
        whole = measured(trl_command, offline)
        arms["TRL"].append({**whole, "cpu_s": whole["prep_cpu_s"], "wall_s": whole["prep_wall_s"]})
    print(f"{arguments.count:,} conversations, {size / 1e6:.1f} MB of JSONL, {os.cpu_count()} cores")
    head = ("", "MB/CPU s", "conv/s", "wall s", "CPU s", "peak MB", "bytes/token", "fill")
    print("{:<22}{:>10}{:>10}{:>9}{:>9}{:>9}{:>13}{:>9}".format(*head))
    for name, runs in arms.items():
        best = {key: sorted(run[key] for run in runs)[len(runs) // 2] for key in runs[0]}
        print(
            f"{name:<22}{size / 1e6 / best['cpu_s']:>10.2f}{arguments.count / best['wall_s']:>10.0f}{best['wall_s']:>9.1f}"
            f"{best['cpu_s']:>9.1f}{best['peak_bytes'] / 1e6:>9.0f}{best['bytes_a_token']:>13.2f}{best['fill']:>9.2%}"
        )
    ratios = [theirs["cpu_s"] / mine["cpu_s"] for mine, theirs in zip(arms["sftpack"], arms["TRL"], strict=True)]
    walls = [theirs["wall_s"] / mine["wall_s"] for mine, theirs in zip(arms["sftpack"], arms["TRL"], strict=True)]
    print("sftpack / TRL, per CPU second: " + ", ".join(f"{ratio:.1f}x" for ratio in ratios))
    print("sftpack / TRL, wall time:      " + ", ".join(f"{ratio:.1f}x" for ratio in walls))
    print(json.dumps(arms))


if __name__ == "__main__":
    main()
