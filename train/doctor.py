"""`train doctor`: what this machine has, line by line, and what to do where a run would stumble over it."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.machine import Line

DOCTOR_EXAMPLE = """examples:
  train doctor
  train doctor --deepspeed ds_config.json --out /data/runs"""


def add_doctor(parser: ArgumentParser) -> None:
    """Add the options of `train doctor`."""
    add = parser.add_argument
    add("--deepspeed", type=Path, metavar="FILE", help="look through this DeepSpeed config too")
    add("--out", type=Path, default=Path("runs"), metavar="DIR", help="where runs will be written (default: runs)")


def doctor(options: Namespace) -> int:
    """Print a line for each thing looked at. Gives 1 where there is a problem, else 0."""
    from train.machine import look_over
    from train.packages import look_over_packages

    counts = {"ok": 0, "warning": 0, "problem": 0}

    def tell(line: "Line") -> None:
        counts[line.state] += 1
        mark = {"ok": "ok     ", "warning": "WARNING", "problem": "PROBLEM"}[line.state]
        print(f"{mark}  {line.name:<12}  {line.says}", flush=True)

    for line in look_over_packages():
        tell(line)
    for line in look_over(options.out):
        tell(line)
    if options.deepspeed is not None:
        for line in _look_over_config(options.deepspeed):
            tell(line)
    print(
        f"{_count(counts['problem'], 'problem')}, {_count(counts['warning'], 'warning')}", file=sys.stdout, flush=True
    )
    return 1 if counts["problem"] else 0


def _look_over_config(path: Path) -> Iterator["Line"]:
    from schemas.errors import TrainError
    from train.deepspeed_config import file_settings, read_deepspeed_file
    from train.deepspeed_lint import lint
    from train.machine import Line

    try:
        content = read_deepspeed_file(path)
        file_settings(content)
    except TrainError as error:
        yield Line(state="problem", name="deepspeed", says=str(error))
        return
    found = lint(content)
    for finding in found:
        yield Line(state="problem" if finding.is_problem else "warning", name="deepspeed", says=finding.line())
    if not found:
        yield Line(state="ok", name="deepspeed", says=f"{path}: nothing is wrong with it")


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
