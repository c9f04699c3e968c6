"""The name of a model in, files on this machine out: a folder, a .gguf file, or a hub id, fetched where it must be."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.errors import ModelError

HUB_TIMEOUT_S = 5
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FETCHED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """Where a model lies; in transformers' terms `from_pretrained(folder, gguf_file=gguf)`."""

    name: str  # as the user gave it
    folder: Path
    gguf: str | None
    adapter: Path | None = None  # its own folder; `folder` is then the base model's

    @property
    def tokenizer(self) -> Path:
        """The folder of its tokenizer: an adapter was trained with its own."""
        own = self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file()
        return self.adapter if own and self.adapter is not None else self.folder


def find_model(name: str) -> ModelFiles:
    """Find the files of `name`, downloading a hub's model that is not in the cache.

    Raises ModelError at once, never after minutes of retries, when it is neither here nor to be had.
    """
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"{name}: no such file; check --model")
        return ModelFiles(name=name, folder=path.parent, gguf=path.name)
    if path.is_dir():
        return _folder(name, path)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise ModelError(f"{name}: no such folder; check --model")
    cached = _cached(name)
    return ModelFiles(name=name, folder=cached if cached is not None else _fetch(name), gguf=None)


def find_config(name: str) -> ModelFiles:
    """Find a model's config, without its weights where it is a hub's model that is not here; else as `find_model`."""
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return ModelFiles(name=name, folder=path, gguf=None)
    if path.exists() or path.suffix == ".gguf" or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        return find_model(name)
    if (folder := _cached(name)) is not None:
        return ModelFiles(name=name, folder=folder, gguf=None)
    return ModelFiles(name=name, folder=_fetch(name, ["config.json"]), gguf=None)


def _folder(name: str, path: Path) -> ModelFiles:
    if (path / "config.json").is_file():
        if not _has_weights(path):
            raise ModelError(f"{name}: has a config.json but not all of its weights; download the model again")
        return ModelFiles(name=name, folder=path, gguf=None)
    if (path / "model" / "config.json").is_file():  # the folder of a run
        return _folder(name, path / "model")
    for adapter in (path, path / "adapter"):
        if (adapter / "adapter_config.json").is_file():
            return _with_adapter(name, adapter)
    found = sorted(file.name for file in path.glob("*.gguf"))
    if found:
        raise ModelError(f"{name}: holds GGUF files; name one of them: --model {path / found[0]}")
    raise ModelError(f"{name}: holds no config.json, so it is no model's folder; check --model")


def _with_adapter(name: str, adapter: Path) -> ModelFiles:
    from train.lora import base_of_adapter

    base = base_of_adapter(adapter)
    try:
        files = find_model(base)
    except ModelError as error:
        raise ModelError(f"{name}: is an adapter whose base model can't be had: {error}") from error
    if files.adapter is not None:
        raise ModelError(f"{name}: is an adapter on an adapter, {base}; merge that one first: train export --merge")
    return replace(files, name=name, adapter=adapter)


def _has_weights(folder: Path) -> bool:
    """Whether one weights file, or all that an index names, is there."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return True
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            return all((folder / file).is_file() for file in files)
    return False


def _cached(name: str) -> Path | None:
    """The model's folder in the hub's cache, if it is complete there (`dataprep` fetches only the tokenizer)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ModelError(f"{name}: neither a folder, nor a .gguf file, nor a hub id such as Qwen/Qwen3-4B") from error
    return folder if (folder / "config.json").is_file() and _has_weights(folder) else None


def _fetch(name: str, wanted: list[str] | None = None) -> Path:
    """Download a model, or only the files `wanted` of it."""
    from huggingface_hub import constants, snapshot_download

    where = f"{name}: not a folder here, not in the hub's cache"
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{where}, and HF_HUB_OFFLINE is set; unset it, or give --model FOLDER")
    _reach(constants.ENDPOINT, where)
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted or FETCHED))
        if wanted is None and not _has_weights(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*FETCHED, "*.bin"]))
    except Exception as error:  # the hub's library raises those of whichever HTTP library it found
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{where}, and {constants.ENDPOINT} does not give it: {reason}; check --model") from error
    if wanted is None and not _has_weights(folder):
        raise ModelError(f"{name}: the hub has no safetensors or PyTorch weights of it; choose another --model")
    return folder


def _reach(endpoint: str, where: str) -> None:
    """Raise ModelError when nothing answers at `endpoint` within seconds; the hub's library would retry for long."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(endpoint, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
    except HTTPError:
        return  # it answers, whatever it says
    except (URLError, OSError) as error:
        raise ModelError(
            f"{where}, and {endpoint} can't be reached; give --model FOLDER, or set HF_ENDPOINT to a mirror"
        ) from error
