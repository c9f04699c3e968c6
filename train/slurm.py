"""`train launch slurm`: a run's options in, the batch script that runs it on several nodes out.

Slurm starts one task a GPU, so its signals reach every rank itself; before the time limit they save and leave with 143,
and the job queues again and goes on.
"""

import copy
import shlex
import sys
from argparse import ArgumentParser, Namespace

from schemas.errors import TrainError
from schemas.recipe import parser_with_recipe
from train.config import ALTERNATIVES

LAUNCH_EXAMPLE = """example:
  train launch slurm --nodes 2 --gpus-per-node 8 --time 12:00:00 --sbatch partition=gpu -- \\
      train run --shards cache/ --out runs/first > job.sh
  sbatch job.sh"""
SIGNAL_S = 300  # before the time limit: for a step to end and a checkpoint to be written

SCRIPT = """\
#!/bin/bash
{directives}

# {head}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))  # rank 0 listens there
export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE={tasks}
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_PER_TASK:-1}}}}"

trap : TERM # the ranks get it too; this shell waits for them

# each task is the rank that Slurm says it is; where one fails, the others are ended
# shellcheck disable=SC2016 # the tasks expand these
srun --kill-on-bad-exit=1 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec "$@"' rank \\
    {command} &
wait $!
code=$?
while kill -0 $! 2> /dev/null; do wait $!; code=$?; done # a signal ended the waiting, not the ranks

# 143: saved and left because of SIGTERM; unless the job was cancelled, it goes on later from there
if [ "$code" = 143 ] && [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def add_launch(parser: ArgumentParser) -> None:
    """Add the options of `train launch`."""
    add = parser.add_argument
    add("scheduler", choices=["slurm"], help="the one there is")
    add("arguments", nargs="+", metavar="-- train run ...", help="the run, as you would start it here")
    add("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    add("--gpus-per-node", type=int, required=True, metavar="N", help="GPUs, and ranks, of each; 0: one rank, on CPU")
    add("--time", metavar="T", help="time limit; the job saves before and comes back, as in 12:00:00")
    add("--sbatch", nargs="+", action="extend", metavar="OPTION", help="sbatch's own, as in partition=gpu account=lab")


def launch(options: Namespace, parser: ArgumentParser) -> int:
    """Print the script; `parser` reads the run in it. Raises TrainError for what can't work."""
    from train.load import open_shards

    arguments = options.arguments[1:] if options.arguments[0] == "train" else options.arguments
    if arguments[:1] != ["run"]:
        raise TrainError("train launch slurm: give the run behind two dashes: -- train run OPTIONS")
    run = parser_with_recipe(lambda: copy.deepcopy(parser), arguments, ALTERNATIVES).parse_args(arguments)
    if run.out is None:
        raise TrainError("train launch slurm: name the run's folder with --out, where a job that comes back goes on")
    for name in ("fresh", "procs"):
        if getattr(run, name):
            why = "each return of the job would start anew" if name == "fresh" else "Slurm starts the processes"
            raise TrainError(f"train launch slurm: {why}; leave --{name} out")
    open_shards(run.shards)
    print(slurm_script(options, run.out.name, arguments), end="")
    return 0


def slurm_script(options: Namespace, name: str, arguments: list[str]) -> str:
    """The script, for `nodes` times `gpus_per_node` ranks (0 GPUs: one rank a node, on CPU)."""
    for each, least in (("nodes", 1), ("gpus_per_node", 0)):
        if getattr(options, each) < least:
            flag = "--" + each.replace("_", "-")
            raise TrainError(f"{flag} is {getattr(options, each)}; it must be at least {least}")
    gpus, tasks = options.gpus_per_node, max(1, options.gpus_per_node)
    directives = [
        f"--job-name={'-'.join(name.split())}",
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={tasks}",
        *([f"--gpus-per-node={gpus}"] if gpus else []),
        *([f"--time={options.time}"] if options.time else []),
        "--requeue",
        f"--signal=TERM@{SIGNAL_S}",
        "--output=%x-%j.log",
        "--open-mode=append",
        *(f"--{each.lstrip('-')}" for each in options.sbatch or []),
    ]
    return SCRIPT.format(
        directives="\n".join(f"#SBATCH {each}" for each in directives),
        head=f"{options.nodes} nodes x {tasks} ranks. The environment below, shards, model and --out are paths that "
        "all nodes see.",
        tasks=tasks,
        command=shlex.join([sys.executable, "-m", "train.cli", *arguments]),
    )
