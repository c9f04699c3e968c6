"""The `dataprep` command: arguments in, one call into the stages, a summary out; imports wait for their command."""

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Callable
from typing import TypeVar

from dataprep.arguments import parser
from schemas.errors import InputError, SftpackError

Number = TypeVar("Number", int, float)

_LINE_WIDTH = 120


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0 when done, 1 after what the user can mend, 2 for wrong usage, 130 when interrupted."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # processes are the parallelism here, not the libraries' threads
    try:
        return _COMMANDS[arguments.command](arguments)
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


def _normalize(arguments: argparse.Namespace) -> int:
    from dataprep.choices import Choices
    from dataprep.normalize import normalize_corpus, retry_quarantine
    from dataprep.summary import summary_text

    choices = Choices(
        format=arguments.format,
        roles=dict(_role(text) for text in arguments.role),
        mapping=arguments.mapping,
        preference=arguments.preference,
        paths=arguments.paths,
        encoding=arguments.encoding,
        clean=arguments.clean,
        pii=arguments.pii,
        held_out=arguments.held_out,
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
        lines = textwrap.wrap(example, _LINE_WIDTH - width - 2, break_long_words=False, break_on_hyphens=False)
        print(f"{name:<{width}}  " + f"\n{'':<{width + 2}}".join(lines))
    return 0


def _steps(arguments: argparse.Namespace) -> int:
    from dataprep.stages.clean.steps import steps_text

    print(steps_text())
    return 0


def _role(text: str) -> tuple[str, str]:
    name, equals, role = text.partition("=")
    if not (name and equals and role):
        raise InputError(f"--role {text}: expected NAME=ROLE, such as --role counselor=assistant")
    return name, role


def _tokenize(arguments: argparse.Namespace) -> int:
    from dataprep.build import tokenize_corpus
    from dataprep.recipe import agreed_seed, read_recipe
    from dataprep.token_options import parsed_arguments
    from dataprep.tokenize_summary import tokenize_summary
    from schemas.manifest import PackOptions, TokenOptions

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
    token_options = TokenOptions(
        turns=arguments.turns,
        train_on=arguments.train_on,
        thinking=arguments.thinking,
        template_args=parsed_arguments(arguments.template_arg),
        control_tokens=arguments.control_tokens,
    )
    built = tokenize_corpus(arguments.cache, arguments.model, options, workers, recipe, token_options)
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
    if (arguments.dataset is None) != (arguments.tokenizer is None):
        raise InputError("--dataset and --tokenizer belong together: what was tokenised, and the model it is for")
    if arguments.dataset is not None:
        from dataprep.verify_dataset import verify_dataset

        findings = verify_dataset(arguments.dataset, arguments.tokenizer)
        print(findings.text())
        return 0 if findings.sound else 1
    from dataprep.verify import verify_cache

    report = verify_cache(arguments.cache, arguments.sample)
    print(report.text())
    return 0 if report.sound else 1


def _report(arguments: argparse.Namespace) -> int:
    from dataprep.report.write import write_report

    samples = _checked(arguments.samples >= 0, arguments.samples, "--samples", "0 or more")
    print(write_report(arguments.cache, arguments.out, samples))
    return 0


def _template(arguments: argparse.Namespace) -> int:
    if (arguments.model is None) == (not arguments.table):
        raise InputError("give either M, a model or a .jinja file, or --table with places of templates; see --help")
    if arguments.table:
        from dataprep.template.page import counts_line, write_page

        rows = write_page(arguments.table, arguments.tokenizer, arguments.out)
        if arguments.out is not None:
            print(f"{arguments.out}: {counts_line(rows)}")
        return 0
    from dataprep.template.show import template_text

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(template_text(arguments.model, arguments.tokenizer, colour))
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "normalize": _normalize,
    "formats": _formats,
    "steps": _steps,
    "tokenize": _tokenize,
    "inspect": _inspect,
    "verify": _verify,
    "report": _report,
    "template": _template,
}


if __name__ == "__main__":
    sys.exit(main())
