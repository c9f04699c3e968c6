"""The arguments of the `dataprep` command: every subcommand with its options and an example, nothing loaded for it."""

import argparse
from pathlib import Path

_Raw = type[argparse.RawDescriptionHelpFormatter]

_EPILOG = """\
  dataprep normalize raw.jsonl              # any chat format -> cache/conversations
  dataprep tokenize --model Qwen/Qwen3-4B   # ids, masks and packed shards in cache/shards
  dataprep inspect cache/                   # see the tokens that are trained on
  dataprep verify cache/                    # prove ids and masks anew
  dataprep report cache/                    # one page that shows what is in it
"""
_INPUTS = (
    "files, folders, globs, archives or hf://owner/name; NAME=PATH names a source; - is standard input. Known endings: "
    ".jsonl .json .csv .tsv .txt (also .gz .bz2 .xz .zst), .parquet .arrow .zip .tar; in folders .txt is passed over"
)


def parser() -> argparse.ArgumentParser:
    """Build the parser; which command was given stands under `command`."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="dataprep", description="Turn chat datasets into packed token shards.", epilog=_EPILOG, formatter_class=raw
    )
    commands = top.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_normalize(commands, raw)
    _add_formats(commands, raw)
    _add_steps(commands, raw)
    _add_tokenize(commands, raw)
    _add_inspect(commands, raw)
    _add_verify(commands, raw)
    _add_explain(commands, raw)
    _add_gc(commands, raw)
    _add_report(commands, raw)
    _add_template(commands, raw)
    return top


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("an empty name; is a variable of the shell not set?")
    return Path(text)


def _add_normalize(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "normalize",
        usage="dataprep normalize [options] INPUT ...",
        help="raw files to conversations",
        description="Read chat data in any mix of formats, found out row by row, into CACHE/conversations.",
        epilog="example: dataprep normalize chats.jsonl 'more/*.parquet' --role client=user --role counselor=assistant",
        formatter_class=raw,
    )
    command.add_argument("inputs", nargs="*", metavar="INPUT", help=_INPUTS)
    command.add_argument("--out", type=_path, default=Path("cache"), metavar="CACHE", help="default: cache")
    command.add_argument("--format", metavar="NAME", help="one of `dataprep formats` for every row, not each its own")
    command.add_argument("--role", action="append", default=[], metavar="NAME=ROLE", help="map a further role name")
    command.add_argument(
        "--mapping", type=_path, metavar="FILE", help="a TOML file that teaches further shapes of rows"
    )
    command.add_argument("--encoding", metavar="NAME", help="of text files, such as gb18030, where it isn't found out")
    command.add_argument(
        "--preference",
        default="chosen",
        metavar="chosen|rejected|both",
        help="answers to keep (default: chosen)",
    )
    command.add_argument(
        "--paths", default="best", metavar="best|top|all", help="of trees of replies (default: best, one a tree)"
    )
    command.add_argument(
        "--clean", action="append", default=[], metavar="STEP[=VALUE]", help="set one of `dataprep steps`"
    )
    command.add_argument(
        "--pii", default="off", metavar="off|count|redact|drop", help="personal data: e-mail, phone, IDs, cards, keys"
    )
    command.add_argument(
        "--held-out", action="append", default=[], metavar="INPUT", help="turn away what repeats text of this input"
    )
    command.add_argument("--retry", type=_path, metavar="FILE", help="no INPUT: the rows of CACHE's quarantine FILE")
    command.add_argument("--recipe", type=_path, metavar="FILE.toml", help="take these options from its [normalize]")
    command.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core where it pays)")


def _add_formats(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    commands.add_parser(
        "formats",
        help="list the formats that normalize reads",
        description="Show each format's name, as --format takes it, with one short row of it.",
        epilog="example: dataprep formats",
        formatter_class=raw,
    )


def _add_steps(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    commands.add_parser(
        "steps",
        help="list the cleaning steps of normalize",
        description="Show each step's name, as --clean takes it, its values with the default, and what it does.",
        epilog="example: dataprep normalize raw.jsonl --clean html --clean languages=zh,en --clean min-turns=2",
        formatter_class=raw,
    )


def _add_tokenize(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "tokenize",
        usage="dataprep tokenize [options] [CACHE] --model M",
        help="conversations to packed shards",
        description="Render with the model's chat template, encode, mark targets, pack; does only what is new.",
        epilog="example: dataprep tokenize --model Qwen/Qwen3-4B --seq-len 4096 --val-fraction 0.05",
        formatter_class=raw,
    )
    _add_cache(command)
    command.add_argument("--model", required=True, metavar="M", help="hub name, model folder, or .gguf file")
    _add_targets(command)
    command.add_argument("--seq-len", type=int, default=4096, metavar="N", help="tokens a pack (default: 4096)")
    command.add_argument(
        "--overflow",
        choices=("cut", "drop", "split"),
        default="cut",
        metavar="HOW",
        help="longer conversations: cut behind the last turn that fits (default), drop, or split at turns",
    )
    command.add_argument(
        "--pack",
        choices=("best-fit", "sequential", "none"),
        default="best-fit",
        metavar="HOW",
        help="best-fit: fewest packs, mixed, even in cost (default); sequential: in order; none: one example each",
    )
    command.add_argument(
        "--val-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="part held out for evaluation, by a hash of content, some of every source (default: 0)",
    )
    command.add_argument(
        "--val-source", action="append", default=[], metavar="NAME", help="hold out this source: eval, for eval.jsonl"
    )
    command.add_argument(
        "--recipe", type=_path, metavar="FILE.toml", help="these options, and by source weights, caps, what to train on"
    )
    command.add_argument(
        "--seed", type=int, metavar="N", help="of the order and the recipe's selection (default: the recipe's, or 0)"
    )
    command.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    command.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: on the cluster of RAY_ADDRESS"
    )
    command.add_argument(
        "--shard", metavar="I/N", help="tokenise one of N parts, as a job of its own; packing is left to a later run"
    )
    command.add_argument("--chunks", metavar="URL", help="tokens to share: s3://bucket/tokens, or a folder")


def _add_targets(command: argparse.ArgumentParser) -> None:
    """Add what decides which tokens are trained on, and behind which."""
    command.add_argument(
        "--turns",
        choices=("whole", "last", "exact"),
        default="whole",
        metavar="HOW",
        help="whole: all answers at once (default); last: only its last; exact: each behind what inference would show",
    )
    command.add_argument(
        "--train-on",
        choices=("assistant", "last", "tool-calls", "all"),
        default="assistant",
        metavar="WHAT",
        help="assistant: every answer (default); last: the last; tool-calls: those with calls; all: any text",
    )
    command.add_argument(
        "--thinking",
        choices=("keep", "drop", "only"),
        default="keep",
        metavar="HOW",
        help="reasoning: keep (default), drop, or only answers with it",
    )
    command.add_argument(
        "--template-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="such as enable_thinking=false, or the day it is told: strftime_now=2026-01-31",
    )
    command.add_argument(
        "--control-tokens",
        choices=("text", "turn-away", "allow"),
        default="text",
        metavar="HOW",
        help="<|im_end|> and such in messages: encode as text (default), turn-away the row, or allow",
    )


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "inspect",
        help="show a pack or a conversation, targets coloured",
        description="Show what a model is trained on: targets green, context grey, examples separated.",
        epilog="example: dataprep inspect cache/ --pack 3 --ids",
        formatter_class=raw,
    )
    _add_cache(command)
    what = command.add_mutually_exclusive_group()
    what.add_argument("--pack", type=int, metavar="N", help="this pack, from 0 (default: 0)")
    what.add_argument("--conversation", metavar="ROW|ID", help="this conversation: its row, or the start of its id")
    command.add_argument("--split", default="train", help="train or val (default: train)")
    command.add_argument("--ids", action="store_true", help="show each token's id")


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "verify",
        help="prove a cache: checksums, counts, ids and masks",
        description="Re-check checksums, schema and counts, and derive ids and masks anew the slow, official way.",
        epilog="example: dataprep verify cache/ --sample 1000",
        formatter_class=raw,
    )
    _add_cache(command)
    command.add_argument("--sample", type=int, metavar="N", help="derive only about N examples anew (default: all)")
    command.add_argument(
        "--dataset",
        type=Path,
        metavar="F",
        help="instead of a cache: what another tool tokenised, input_ids with labels or assistant_masks "
        "(datasets folder, .arrow, .parquet, .jsonl); say what its masks do to training",
    )
    command.add_argument("--tokenizer", metavar="M", help="the model that --dataset was tokenised for")


def _add_explain(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "explain",
        help="what each artefact was made from, and what a run would use again",
        description="Say of conversations, tokens, shards and tokenizer what files and options they were made from,\n"
        "and why the next run would or wouldn't use them again.",
        epilog="example: dataprep explain cache/",
        formatter_class=raw,
    )
    _add_cache(command)


def _add_gc(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "gc",
        help="remove what nothing in a cache refers to",
        description="Name tokens, shards and tokenizers that neither the conversations nor the shards of CACHE use,\n"
        "and what stopped runs left; remove them if --yes is given, or you say so. Other files stay.",
        epilog="example: dataprep gc cache/ --yes",
        formatter_class=raw,
    )
    _add_cache(command)
    command.add_argument("--yes", action="store_true", help="remove without asking")


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "report",
        help="one page that shows what is in a cache",
        description="Write one HTML page, to be opened in any browser without a network: where rows and tokens went, "
        "lengths, what truncation would cost, packing, sources, and samples to look through, token by token.",
        epilog="example: dataprep report cache/ --out report.html",
        formatter_class=raw,
    )
    _add_cache(command)
    command.add_argument("--out", type=_path, metavar="FILE", help="default: CACHE/report.html")
    command.add_argument(
        "--samples",
        type=int,
        default=200,
        metavar="N",
        help="conversations, and rows turned away, to show; 0: no text of the data is on the page (default: 200)",
    )


def _add_template(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "template",
        usage="dataprep template M [--tokenizer T] | --table PLACE ... [--tokenizer T] [--out FILE]",
        help="show what a model's chat template does",
        description="Show a sample with its targets, what the template asks and adds, and six checks, each ok or look "
        "out. With --table: prove many templates on probes, against transformers, as one Markdown page.",
        epilog="example: dataprep template Qwen/Qwen3-4B",
        formatter_class=raw,
    )
    command.add_argument("model", nargs="?", metavar="M", help="hub name, model folder, .gguf or .jinja file")
    command.add_argument("--tokenizer", metavar="T", help="a model whose tokens a .jinja file is tried with")
    command.add_argument(
        "--table", nargs="+", type=Path, default=[], metavar="PLACE", help=".jinja files, folders of them or of models"
    )
    command.add_argument("--out", type=Path, metavar="FILE.md", help="where the table goes (default: the screen)")


def _add_cache(command: argparse.ArgumentParser) -> None:
    command.add_argument("cache", nargs="?", type=_path, default=Path("cache"), metavar="CACHE", help="default: cache")
