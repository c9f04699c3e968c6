"""The `dataprep` command: arguments in, one call into the stages, a summary out; imports wait for their command."""

import argparse
import io
import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from typing import TypeVar

from dataprep import start
from dataprep.arguments import parser
from schemas.errors import InputError, SftpackError
from schemas.recipe import parser_with_recipe

Number = TypeVar("Number", int, float)

_LINE_WIDTH = 120
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]+")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0 when done, 1 after what the user can mend, 2 for wrong usage, 130 when interrupted."""
    try:
        _open_standard_streams()
        arguments = _told_apart(argv)
        os.environ.setdefault("RAYON_NUM_THREADS", "1")  # processes are the parallelism here, not threads
        return _COMMANDS[arguments.command](arguments)
    except SftpackError as error:
        _complain(str(error))
        return 1
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place, reason = error.filename or "a file", error.strerror or error
        _complain(f"{place}: {reason}; check free space and permissions, then run it again")
        return 1
    except MemoryError:
        _complain("out of memory; give it more, or run it with --workers 1")
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one line, however often it is asked
        _complain(start.INTERRUPTED)
        return 130


def _open_standard_streams() -> None:
    """Open what the caller closed, lest a file of ours takes its number; print what the terminal can't as escapes."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _told_apart(argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments; inputs may stand on both sides of options. Ends the program for an option that is none."""
    given = sys.argv[1:] if argv is None else argv
    arguments, left = parser_with_recipe(parser, given).parse_known_args(given)
    for text in left:
        if text.startswith("-") or arguments.command != "normalize":
            what = "no such option" if text.startswith("-") else "one argument too many"
            hint = f"; a file of that name is ./{text}" if os.path.lexists(text) else ""
            _complain(f"{arguments.command}: {text}: {what}; see dataprep {arguments.command} --help{hint}")
            sys.exit(2)
        arguments.inputs.append(text)
    return arguments


def _complain(message: str) -> None:
    print(f"dataprep: {_on_one_line(message)}", file=sys.stderr)


def _show(text: str) -> None:
    print("\n".join(map(_on_one_line, text.split("\n"))))


def _on_one_line(text: str) -> str:
    """Show control characters, which names of files may hold, as escapes."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _normalize(arguments: argparse.Namespace) -> int:
    from dataprep.core.arrays import spare_pandas
    from dataprep.normalize.choices import Choices
    from dataprep.normalize.run import normalize_corpus, retry_quarantine
    from dataprep.normalize.summary import summary_text

    spare_pandas()
    choices = Choices(
        format=arguments.format,
        roles=_roles(arguments.role),
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
    _show(summary_text(manifest, arguments.out))
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


def _roles(texts: list[str]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for text in texts:
        name, equals, role = text.partition("=")
        if not (name and equals and role):
            raise InputError(f"--role {text}: expected NAME=ROLE, such as --role counselor=assistant")
        if roles.setdefault(name, role) != role:
            raise InputError(f"--role {text}: {name} is given as {roles[name]}, too; leave one out")
    return roles


def _tokenize(arguments: argparse.Namespace) -> int:
    from dataprep.core.arrays import spare_pandas
    from dataprep.tokenize.options import parsed_arguments
    from dataprep.tokenize.part import parsed_part, part_summary, tokenize_part
    from dataprep.tokenize.recipe import agreed_seed, read_recipe
    from dataprep.tokenize.run import tokenize_corpus
    from dataprep.tokenize.summary import tokenize_summary
    from schemas.manifest import PackOptions, TokenOptions

    started = time.monotonic()
    spare_pandas()
    if arguments.seed is not None:
        _checked(arguments.seed >= 0, arguments.seed, "--seed", "0 or more")
    recipe = read_recipe(arguments.recipe) if arguments.recipe else None
    options = PackOptions(
        seq_len=_checked(arguments.seq_len >= 8, arguments.seq_len, "--seq-len", "8 or more"),
        overflow=arguments.overflow,
        pack=arguments.pack,
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
    cache, model, engine, chunks_at = arguments.cache, arguments.model, arguments.engine, arguments.chunks
    if arguments.shard is not None:
        if engine != "local":
            raise InputError("--shard makes a part without a cluster, --engine ray shares out by itself; leave one out")
        made = tokenize_part(cache, model, parsed_part(arguments.shard), workers, recipe, token_options, chunks_at)
        print(part_summary(made, time.monotonic() - started))
        return 0
    built = tokenize_corpus(cache, model, options, workers, recipe, token_options, engine, chunks_at)
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
        from dataprep.verify.dataset import verify_dataset

        findings = verify_dataset(arguments.dataset, arguments.tokenizer)
        print(findings.text(sys.stdout.isatty() and "NO_COLOR" not in os.environ))
        return 0 if findings.sound else 1
    from dataprep.verify.cache import verify_cache

    report = verify_cache(arguments.cache, arguments.sample)
    print(report.text())
    return 0 if report.sound else 1


def _explain(arguments: argparse.Namespace) -> int:
    from dataprep.explain.run import explain_cache

    _show(explain_cache(arguments.cache))
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    from dataprep.gc.run import collect_garbage

    def may_remove() -> bool:
        if arguments.yes or not sys.stdin.isatty():
            return bool(arguments.yes)
        return input("remove them? [y/N] ").strip().lower() in ("y", "yes")

    if collect_garbage(arguments.cache, _show, may_remove):
        _show("nothing was removed; --yes removes them")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from dataprep.report.write import write_report

    samples = _checked(arguments.samples >= 0, arguments.samples, "--samples", "0 or more")
    _show(write_report(arguments.cache, arguments.out, samples))
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
    "explain": _explain,
    "gc": _gc,
    "report": _report,
    "template": _template,
}


if __name__ == "__main__":
    sys.exit(start.main())
