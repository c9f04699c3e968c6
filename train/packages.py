"""The Python packages a run rests on: their versions, those that don't go together, and compilers for what is built."""

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator

from train.machine import Line

SHOWN = "torch", "deepspeed", "transformers", "trl", "peft", "accelerate", "datasets", "pyarrow"
BUILT_ON_TORCH = "torchvision", "torchaudio", "xformers", "flash-attn", "bitsandbytes", "vllm", "liger-kernel", "triton"


def look_over_packages() -> Iterator[Line]:
    """Lines on Python and packages."""
    yield Line(state="ok", name="python", says=f"{platform.python_version()}, {sys.executable}")
    yield from _required()
    yield from _clashing()
    yield from _compilers()


def _required() -> Iterator[Line]:
    """What sftpack's own metadata asks for, against what is installed."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires("sftpack") or []]
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    wrong = []
    for need in wanted:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        found = _version(need.name)
        if found is None:
            wrong.append(f"{need.name} is missing (pip install '{need}')")
        elif not need.specifier.contains(found, prereleases=True):
            wrong.append(f"{need.name} is {found} (pip install '{need}')")
    if wrong:
        yield Line(state="problem", name="packages", says="; ".join(wrong))
    shown = [f"{name} {_version(name) or 'missing'}" for name in SHOWN]
    yield Line(state="ok", name="packages", says=", ".join(shown))


def _clashing() -> Iterator[Line]:
    """Packages beside ours that were made for another torch: importing transformers may fail because of them."""
    from packaging.requirements import Requirement

    torch = _version("torch")
    for name in BUILT_ON_TORCH:
        version = _version(name)
        if version is None or torch is None:
            continue
        for text in importlib.metadata.requires(name) or []:
            need = Requirement(text)
            if need.name == "torch" and (need.marker is None or need.marker.evaluate({"extra": ""})):
                if not need.specifier.contains(torch.partition("+")[0], prereleases=True):
                    says = f"{name} {version} wants {need}, torch is {torch}; pip install -U {name}, or remove it"
                    yield Line(state="problem", name="packages", says=says)
                break


def _compilers() -> Iterator[Line]:
    """Triton wants a C compiler; DeepSpeed's AdamW for CPUs, which --offload-optimizer takes, g++ and ninja too."""
    import torch

    on_gpu = torch.cuda.is_available()
    found = {name: shutil.which(name) for name in ("gcc", "g++", "ninja", "nvcc")}
    there = ", ".join(name for name, path in found.items() if path) or "none"
    if on_gpu and not found["gcc"]:
        yield Line(state="warning", name="compilers", says=f"{there}; without gcc layers aren't compiled: install gcc")
    elif on_gpu and not (found["g++"] and found["ninja"] and found["nvcc"]):
        missing = ", ".join(name for name in ("g++", "ninja", "nvcc") if not found[name])
        says = f"{there}; --offload-optimizer compiles DeepSpeed's AdamW and needs {missing} too"
        yield Line(state="warning", name="compilers", says=says)
    else:
        yield Line(state="ok", name="compilers", says=f"{there}{'' if on_gpu else '; none is needed on CPU'}")
    built_for = torch.version.cuda
    if on_gpu and found["nvcc"] and built_for:
        said = subprocess.run([found["nvcc"], "--version"], capture_output=True, encoding="utf-8", check=False).stdout
        toolkit = said.partition("release ")[2].partition(",")[0]
        if toolkit and toolkit.split(".")[0] != built_for.split(".")[0]:
            says = f"nvcc is of CUDA {toolkit}, torch of {built_for}: --offload-optimizer can't compile; set CUDA_HOME"
            yield Line(state="warning", name="compilers", says=says)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
