"""The `dataprep` command: arguments in, one call into the stages, a summary out; imports wait for their command."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from schemas.errors import InputError, SftpackError

Number = TypeVar("Number", int, float)
_Raw = type[argparse.RawDescriptionHelpFormatter]

_EPILOG = """\
  dataprep normalize raw.jsonl              # any chat format -> cache/conversations
  dataprep tokenize --model Qwen/Qwen3-4B   # ids, masks and packed shards in cache/shards
  dataprep inspect cache/                   # see the tokens that are trained on
  dataprep verify cache/                    # prove ids and masks anew
  dataprep report cache/                    # one page that shows what is in it
"""
_INPUTS = (
    "files, folders or globs: .jsonl, .json, .csv, .tsv, .txt (also as .gz, .bz2, .xz, .zst), .parquet, .arrow; "
    "folders of datasets' save_to_disk; - is standard input (.jsonl). "
    "A .txt file is one document, or one about every 1 MiB, divided at blank lines; name it, or give 'folder/*.txt'"
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0 when done, 1 after what the user can mend, 2 for wrong usage, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except SftpackError as error:
        print(f"dataprep: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place, reason = error.filename or "a file", error.strerror or error
        print(f"dataprep: {place}: {reason}; check free space and permissions, then run it again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dataprep: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="dataprep", description="Turn chat datasets into packed token shards.", epilog=_EPILOG, formatter_class=raw
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_normalize(commands, raw)
    _add_formats(commands, raw)
    _add_tokenize(commands, raw)
    _add_inspect(commands, raw)
    _add_verify(commands, raw)
    _add_report(commands, raw)
    return parser


def _add_normalize(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "normalize",
        help="raw files to conversations",
        description="Read chat data in any mix of formats, found out row by row, into CACHE/conversations.",
        epilog="example: dataprep normalize chats.jsonl 'more/*.parquet' --role client=user --role counselor=assistant",
        formatter_class=raw,
    )
    command.add_argument("inputs", nargs="*", metavar="INPUT", help=_INPUTS)
    command.add_argument("--out", type=Path, default=Path("cache"), metavar="CACHE", help="default: cache")
    command.add_argument(
        "--format", metavar="NAME", help="read every row as this one of `dataprep formats`, not by detection"
    )
    command.add_argument("--role", action="append", default=[], metavar="NAME=ROLE", help="map a further role name")
    command.add_argument(
        "--preference",
        default="chosen",
        choices=("chosen", "rejected", "both"),
        help="answers to keep of preference rows (default: chosen)",
    )
    command.add_argument(
        "--paths",
        default="best",
        choices=("best", "top", "all"),
        help="of trees of replies: the best-ranked path, every path by top-ranked answers, or all (default: best)",
    )
    command.add_argument("--encoding", metavar="NAME", help="of text files, such as gb18030, where it isn't found out")
    command.add_argument(
        "--clean", action="append", default=[], metavar="STEP[=VALUE]", help="set a step of `dataprep steps`"
    )
    command.add_argument(
        "--pii",
        default="off",
        choices=("off", "count", "redact", "drop"),
        help="e-mail, phone, ID, card numbers, addresses and keys (default: off)",
    )
    command.add_argument(
        "--retry", type=Path, metavar="FILE", help="no INPUT: take the rows of this cache's quarantine file up again"
    )
    command.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core where it pays)")
    command.set_defaults(run=_normalize)


def _add_formats(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "formats",
        help="list the formats that normalize reads",
        description="Show each format's name, as --format takes it, with one short row of it.",
        epilog="example: dataprep formats",
        formatter_class=raw,
    )
    command.set_defaults(run=_formats)


def _add_tokenize(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "tokenize",
        help="conversations to packed shards",
        description="Render with the model's chat template, encode, mark targets, pack; does only what is new.",
        epilog="example: dataprep tokenize --model Qwen/Qwen3-4B --seq-len 4096 --val-fraction 0.05",
        formatter_class=raw,
    )
    command.add_argument("cache", nargs="?", type=Path, default=Path("cache"), metavar="CACHE", help="default: cache")
    command.add_argument("--model", required=True, metavar="M", help="hub name, model folder, or .gguf file")
    command.add_argument("--seq-len", type=int, default=4096, metavar="N", help="tokens a pack (default: 4096)")
    command.add_argument(
        "--overflow",
        choices=("cut", "drop", "split"),
        default="cut",
        help="conversations longer than that: keep their first turns, drop them, or split at turns (default: cut)",
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
        "--recipe", type=Path, metavar="FILE.toml", help="weights and caps by source; never tokenises anew"
    )
    command.add_argument(
        "--seed", type=int, metavar="N", help="of the order and the recipe's selection (default: the recipe's, or 0)"
    )
    command.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    command.set_defaults(run=_tokenize)


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "inspect",
        help="show a pack or a conversation, targets coloured",
        description="Show what a model is trained on: targets green, context grey, examples separated.",
        epilog="example: dataprep inspect cache/ --pack 3 --ids",
        formatter_class=raw,
    )
    command.add_argument("cache", nargs="?", type=Path, default=Path("cache"), metavar="CACHE", help="default: cache")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--pack", type=int, metavar="N", help="this pack, from 0 (default: 0)")
    what.add_argument("--conversation", metavar="ROW|ID", help="this conversation: its row, or the start of its id")
    command.add_argument("--split", default="train", help="train or val (default: train)")
    command.add_argument("--ids", action="store_true", help="show each token's id")
    command.set_defaults(run=_inspect)


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "verify",
        help="prove a cache: checksums, counts, ids and masks",
        description="Re-check checksums, schema and counts, and derive ids and masks anew the slow, official way.",
        epilog="example: dataprep verify cache/ --sample 1000",
        formatter_class=raw,
    )
    command.add_argument("cache", nargs="?", type=Path, default=Path("cache"), metavar="CACHE", help="default: cache")
    command.add_argument("--sample", type=int, metavar="N", help="derive only about N examples anew (default: all)")
    command.set_defaults(run=_verify)


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", raw: _Raw) -> None:
    command = commands.add_parser(
        "report",
        help="one page that shows what is in a cache",
        description="Write one HTML page, to be opened in any browser without a network: where rows and tokens went, "
        "lengths, what truncation would cost, packing, sources, and samples to look through, token by token.",
        epilog="example: dataprep report cache/ --out report.html",
        formatter_class=raw,
    )
    command.add_argument("cache", nargs="?", type=Path, default=Path("cache"), metavar="CACHE", help="default: cache")
    command.add_argument("--out", type=Path, metavar="FILE", help="default: CACHE/report.html")
    command.add_argument(
        "--samples",
        type=int,
        default=200,
        metavar="N",
        help="conversations, and rows turned away, to show; 0: no text of the data is on the page (default: 200)",
    )
    command.set_defaults(run=_report)


def _normalize(arguments: argparse.Namespace) -> int:
    from dataprep.choices import Choices
    from dataprep.normalize import normalize_corpus, retry_quarantine
    from dataprep.summary import summary_text

    choices = Choices(
        format=arguments.format,
        roles=dict(_role(text) for text in arguments.role),
        preference=arguments.preference,
        paths=arguments.paths,
        encoding=arguments.encoding,
        clean=arguments.clean,
        pii=arguments.pii,
    )
    if (arguments.retry is None) == (not arguments.inputs):
        raise InputError("give either INPUT, what to read, or --retry with a quarantine file; see --help")
    if arguments.retry is not None:
        manifest = retry_quarantine(arguments.retry, arguments.out, choices=choices, workers=arguments.workers)
    else:
        manifest = normalize_corpus(arguments.inputs, arguments.out, choices=choices, workers=arguments.workers)
    print(summary_text(manifest, arguments.out))
    return 0 if manifest.kept else 1


def _formats(arguments: argparse.Namespace) -> int:
    from dataprep.stages.normalize.examples import EXAMPLES

    width = max(map(len, EXAMPLES))
    for name, example in EXAMPLES.items():
        print(f"{name:<{width}}  {example}")
    return 0


def _role(text: str) -> tuple[str, str]:
    name, equals, role = text.partition("=")
    if not (name and equals and role):
        raise InputError(f"--role {text}: expected NAME=ROLE, such as --role counselor=assistant")
    return name, role


def _tokenize(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # processes are the parallelism here, not the encoder's threads
    from dataprep.build import tokenize_corpus
    from dataprep.recipe import agreed_seed, read_recipe
    from dataprep.tokenize_summary import tokenize_summary
    from schemas.manifest import PackOptions

    started = time.monotonic()
    if arguments.seed is not None:
        _checked(arguments.seed >= 0, arguments.seed, "--seed", "0 or more")
    recipe = read_recipe(arguments.recipe) if arguments.recipe else None
    options = PackOptions(
        seq_len=_checked(arguments.seq_len >= 8, arguments.seq_len, "--seq-len", "8 or more"),
        overflow=arguments.overflow,
        val_fraction=_checked(0 <= arguments.val_fraction < 1, arguments.val_fraction, "--val-fraction", "in [0, 1)"),
        val_sources=sorted(set(arguments.val_source)),
        seed=agreed_seed(recipe, arguments.seed),
    )
    workers = arguments.workers
    if workers is not None:
        _checked(workers >= 1, workers, "--workers", "1 or more")
    built = tokenize_corpus(arguments.cache, arguments.model, options, workers, recipe)
    print(tokenize_summary(built, time.monotonic() - started))
    return 0


def _checked(good: bool, value: Number, flag: str, expected: str) -> Number:
    if not good:
        raise InputError(f"{flag} {value}: must be {expected}")
    return value


def _inspect(arguments: argparse.Namespace) -> int:
    from dataprep.inspect import conversation_text, pack_text

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if arguments.conversation is not None:
        print(conversation_text(arguments.cache, arguments.conversation, arguments.ids, colour))
    else:
        print(pack_text(arguments.cache, arguments.split, arguments.pack or 0, arguments.ids, colour))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from dataprep.verify import verify_cache

    report = verify_cache(arguments.cache, arguments.sample)
    print(report.text())
    return 0 if report.sound else 1


def _report(arguments: argparse.Namespace) -> int:
    from dataprep.report.write import write_report

    samples = _checked(arguments.samples >= 0, arguments.samples, "--samples", "0 or more")
    print(write_report(arguments.cache, arguments.out, samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
