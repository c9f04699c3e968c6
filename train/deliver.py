"""`train export`: a run, a checkpoint, an adapter or a .gguf file in, a plain Hugging Face folder out."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import TrainError
from train.hub import find_model

if TYPE_CHECKING:
    from train.proof import ExportProof


def export(options: Namespace) -> int:
    """Write the model that `options` name as a folder of safetensors, an adapter merged. Gives the exit code."""
    out: Path = options.out
    if out.exists():
        raise TrainError(f"{out}: is there already; choose another --out")
    from train.launch import quiet_libraries

    quiet_libraries()
    out.parent.mkdir(parents=True, exist_ok=True)
    from train.from_checkpoint import export_checkpoint, find_checkpoint

    checkpoint = find_checkpoint(options.model)
    if checkpoint is not None:
        proof = export_checkpoint(checkpoint, out, merge=options.merge)
        print(f"checkpoint {checkpoint}")
    else:
        proof = _export_files(options, out)
    print(f"model      {out}", f"checked    {proof.line()}", sep="\n")
    return 0


def _export_files(options: Namespace, out: Path) -> "ExportProof":
    from train.export import export_files

    files = find_model(options.model)
    if files.adapter is None and options.merge:
        raise TrainError(f"{options.model}: holds no adapter, so nothing is to be merged; leave --merge out")
    if files.adapter is not None and not options.merge:
        raise TrainError(
            f"{options.model}: is an adapter, in {files.adapter}, which peft loads as it is; "
            "add --merge for a whole model"
        )
    return export_files(files, out, None)
