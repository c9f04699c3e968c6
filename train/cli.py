"""The command `train`: arguments in, exit code out. Heavy imports wait inside the commands: --help is instant."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from schemas.errors import SftpackError
from schemas.recipe import parser_with_recipe
from train.config import ALTERNATIVES, DEFAULTS
from train.doctor import DOCTOR_EXAMPLE, add_doctor
from train.method import RANK
from train.slurm import LAUNCH_EXAMPLE, add_launch

SCHEDULES = "cosine", "linear", "wsd", "constant"
PRECISIONS = "auto", "bf16", "fp16", "fp32"

RUN_EXAMPLE = """example:
  train run --shards cache/ --out runs/first
  train chat --model runs/first --base Qwen/Qwen3-4B

Several GPUs are found and used. Also runs as it is under `torchrun` and `deepspeed`.
The same command goes on where an interrupted run with this --out was saved last."""

PLAN_EXAMPLE = """examples:
  train plan --shards cache/ --gpus 4xH100-80G
  train plan --shards cache/ --model Qwen/Qwen3-8B --gpus 2xA100-80G --zero 3"""

CHAT_EXAMPLE = """examples:
  train chat --model runs/first
  train chat --model runs/first --base Qwen/Qwen3-4B --prompt "How do I sleep better?" """

COMPARE_EXAMPLE = """example:
  train compare Qwen/Qwen3-4B runs/first --shards cache/ --prompt "How do I sleep better?" """

EXPORT_EXAMPLE = """examples:
  train export --model runs/adapted --merge --out merged
  train export --model runs/killed/checkpoints/step-001000 --out model
  train export --model model-q4_k_m.gguf --out model"""

VERIFY_EXAMPLE = """examples:
  train verify --shards cache/
  train verify --shards cache/ --out runs/first"""


def command() -> NoReturn:
    """`train` as a process of its own.

    A rank leaves without the interpreter's own end: where a thread of gloo's lets go of its last tensor during that,
    the process aborts (PyTorch 179291).
    """
    code = main()
    if "RANK" in os.environ:
        with suppress(OSError):  # nobody reads it any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `train`. Gives 0, or 1 after a mistake, told in a line on stderr; 128 and more after a signal."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parser_with_recipe(_parser, arguments, ALTERNATIVES).parse_args(arguments)
        if options.command == "plan":
            from train.plan import plan

            return plan(options)
        if options.command == "run":
            from train.run import run

            return run(options, arguments)
        if options.command == "doctor":
            from train.doctor import doctor

            return doctor(options)
        if options.command == "launch":
            from train.slurm import launch

            return launch(options, parser_with_recipe(_parser, options.arguments, ALTERNATIVES))
        if options.command == "compare":
            from train.compare import compare

            return compare(options)
        if options.command == "export":
            from train.deliver import export

            return export(options)
        if options.command == "verify":
            from train.verify.run import verify

            return verify(options, arguments)
        from train.chat import chat

        return chat(options)
    except SftpackError as error:
        _tell(f"train: {error}")
        return 1
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if arguments[:1] == ["run"]:
            _tell(
                "train: ended, since nobody reads its output any more; the same command goes on where it was saved last"
            )
        return 141
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            _tell("train: interrupted; no half-written file was left behind")
        return 130


def _tell(line: str) -> None:
    """Print one line on stderr; ranks but the first wait, since the launcher ends them once the first has told it."""
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        time.sleep(3)
        line = f"rank {rank}: {line}"
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train", description="Fine-tune a chat model on packed token shards.")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # where the deepspeed launcher puts it
    names = "{run,plan,verify,launch,doctor,chat,compare,export}"
    commands = parser.add_subparsers(dest="command", required=True, metavar=names)
    add = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_run(
        add(
            "run",
            usage="train run --shards DIR [options]",
            help="train on shards that `dataprep tokenize` made",
            description="Train a model on shards. Model, tokenizer and sequence length come from the shards.",
            epilog=RUN_EXAMPLE,
        )
    )
    planned = add(
        "plan",
        usage="train plan --shards DIR [--gpus 4xH100-80G] [options of `train run`]",
        help="say what a run would take, and how fast it would go, without a GPU",
        description="Memory, settings and hours of the run that the same options would start.",
        epilog=PLAN_EXAMPLE,
    )
    planned.add_argument("--gpus", metavar="NxGPU", help="as in 4xH100-80G or 2xNAME-24G (default: those visible here)")
    _add_run(planned)
    add_launch(
        add(
            "launch",
            usage="train launch slurm --nodes N --gpus-per-node N [options] -- train run --out DIR ...",
            help="print the batch script of a run on several nodes",
            description="Print a batch script for Slurm that starts the run behind the two dashes.",
            epilog=LAUNCH_EXAMPLE,
        )
    )
    add_doctor(
        add(
            "doctor",
            usage="train doctor [--deepspeed FILE] [--out DIR]",
            help="look over this machine, and a DeepSpeed config",
            description="What this machine has, and what would go wrong; exit code 1 where there is a problem.",
            epilog=DOCTOR_EXAMPLE,
        )
    )
    _add_chat(
        add(
            "chat",
            usage="train chat --model M [options]",
            help="talk to a trained model, beside its base if you like",
            description="Talk to a model: a run, a Hugging Face folder, a hub id or a .gguf file.",
            epilog=CHAT_EXAMPLE,
        )
    )
    _add_compare(
        add(
            "compare",
            usage="train compare A B --shards DIR [--prompt TEXT ...]",
            help="held-out loss of two models on the same shards, by source",
            description="Loss and perplexity of two models over the held-out targets, overall and by source.",
            epilog=COMPARE_EXAMPLE,
        )
    )
    _add_verify(
        add(
            "verify",
            usage="train verify --shards DIR [--model M] [--out DIR]",
            help="show by numbers that training on these shards computes what it should, in minutes",
            description="Packed = each example alone, 1 rank = 2, accumulated = at once, saved and loaded = going on; "
            "examples keep apart; the loss is that by hand. Writes certificate.json; exits with 1 where one fails.",
            epilog=VERIFY_EXAMPLE,
        )
    )
    _add_export(
        add(
            "export",
            usage="train export --model M --out DIR [--merge]",
            help="write a run's model as a plain Hugging Face folder, its adapter merged",
            description="Write a model as a Hugging Face folder of safetensors.",
            epilog=EXPORT_EXAMPLE,
        )
    )
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shards", type=Path, required=True, metavar="DIR", help="the cache, or its folder shards/")
    add("--recipe", type=Path, metavar="FILE.toml", help="take these options from its table [train]")
    add("--model", metavar="M", help="hub id, folder or .gguf file (default: the shards')")
    add("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/MODEL, numbered)")
    add("--learning-rate", type=float, metavar="X", help=_default("learning_rate", "peak learning rate"))
    add("--epochs", type=int, metavar="N", help=_default("epochs", "times each pack is seen"))
    add("--steps", type=int, metavar="N", help="optimizer steps, instead of --epochs")
    add("--batch-tokens", type=int, metavar="N", help=_default("batch_tokens", "tokens a step, on all ranks together"))
    add("--batch-packs", type=int, metavar="N", help="packs a step, instead of --batch-tokens")
    add(
        "--micro-packs",
        type=int,
        metavar="N",
        help="packs a rank takes at a time (default: what fits)",
    )
    add("--schedule", choices=SCHEDULES, metavar="NAME", help=f"{', '.join(SCHEDULES)} (default: cosine)")
    add("--warmup-ratio", type=float, metavar="X", help=_default("warmup_ratio", "part of the steps that warm up"))
    add("--warmup-steps", type=int, metavar="N", help="instead of --warmup-ratio")
    add("--weight-decay", type=float, metavar="X", help=_default("weight_decay", "on matrices only"))
    add(
        "--max-grad-norm", type=float, metavar="X", help=_default("max_grad_norm", "gradients are clipped to this norm")
    )
    add("--precision", choices=PRECISIONS, metavar="NAME", help="auto (bf16 on GPUs), bf16, fp16, fp32")
    add("--zero", type=int, choices=[0, 1, 2, 3], help="ZeRO stage (default: the fastest that fits; 1 on CPU)")
    add(
        "--offload-optimizer",
        action=argparse.BooleanOptionalAction,
        help="keep the optimizer's state in CPU memory (default: where nothing fits without)",
    )
    add(
        "--gradient-checkpointing",
        nargs="?",
        const="all",
        metavar="N",
        help="layers to compute twice: auto, none, all, or N",
    )
    _add_method(add)
    add("--eval-every", type=int, metavar="N", help="steps between held-out losses (default: 4 a run)")
    add(
        "--save-every",
        type=int,
        metavar="N",
        help="steps between checkpoints (default: each half hour)",
    )
    add("--keep", type=int, metavar="N", help=_default("keep", "newest checkpoints that stay"))
    add("--patience", type=int, metavar="N", help="stop after N held-out losses without a new best")
    add("--log-to", metavar="NAME,…", help="wandb, swanlab, mlflow, trackio, beside TensorBoard")
    add("--fresh", action="store_true", help="start anew; what an earlier run left in OUT goes")
    add("--seed", type=int, metavar="N", help=_default("seed", "of the order of packs"))
    add("--deepspeed", type=Path, metavar="FILE", help='DeepSpeed config; "auto" values are filled in')
    add("--backend", choices=["deepspeed", "trl"], default="deepspeed", metavar="NAME", help="trl: TRL's SFTTrainer")
    add("--procs", type=int, metavar="N", help="processes on this machine (default: one a GPU)")
    add("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # launchers pass it; the environment says it


def _add_method(add: Callable[..., Any]) -> None:
    add("--lora", type=int, nargs="?", const=RANK, metavar="R", help=f"train adapters of this rank (bare: {RANK})")
    add("--dora", action="store_true", default=None, help="train DoRA's magnitudes too")
    add("--lora-alpha", type=float, metavar="X", help="adapters are scaled by X / R (default: 2 R)")
    add("--lora-dropout", type=float, metavar="P", help="within adapters (default: 0)")
    add("--lora-targets", nargs="+", metavar="NAME", help="as in q_proj v_proj (default: every linear layer)")
    add("--merge", action="store_true", default=None, help="leave the merged model in OUT/model too")
    add("--freeze", nargs="+", metavar="PATTERN", help="weights to keep, as in 'model.embed_tokens.*'")
    add("--neftune", type=float, metavar="A", help="noise on embeddings, 5 for instance (default: none)")
    add("--label-smoothing", type=float, metavar="X", help="part of each target given to all tokens (default: 0)")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("a", metavar="A", help="a run's folder, a model's, an adapter's, a hub id or a .gguf file")
    add("b", metavar="B", help="the other one")
    add("--shards", type=Path, required=True, metavar="DIR", help="the cache, or its folder shards/")
    add("--prompt", nargs="+", metavar="TEXT", help="have both answer these, side by side")
    add("--max-tokens", type=int, default=512, metavar="N", help="at most so many an answer (default: 512)")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--shards", type=Path, required=True, metavar="DIR", help="the cache, or its folder shards/")
    add("--model", metavar="M", help="hub id, folder or .gguf file (default: the one the shards were made for)")
    add("--out", type=Path, metavar="DIR", help="where certificate.json goes, as a run's folder (default: here)")


def _add_export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="M", help="folder of a run, checkpoint, adapter or model, or a .gguf file")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write; it must not be there yet")
    add("--merge", action="store_true", help="add an adapter to the weights of its base model")


def _add_chat(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="M", help="a run's folder, a model's folder, a hub id or a .gguf file")
    add("--base", metavar="M", help="another model to answer beside it")
    add("--prompt", nargs="+", action="extend", metavar="TEXT", help="ask these and leave (default: a conversation)")
    add("--system", metavar="TEXT", help="system message")
    add("--max-tokens", type=int, default=512, metavar="N", help="longest answer (default: 512)")
    add("--temperature", type=float, default=0.0, metavar="X", help="0 takes the likeliest token (default: 0)")
    add("--seed", type=int, default=0, metavar="N", help="of the sampling (default: 0)")


def _default(name: str, text: str) -> str:
    return f"{text} (default: {DEFAULTS[name]})"


if __name__ == "__main__":
    command()
