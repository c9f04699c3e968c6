"""hf://owner/name in, the files of that dataset out.

`datasets` downloads it to its own cache; the Arrow files that it keeps there are read in place.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dataprep.core.errors import first_line
from dataprep.stages.read.raw import RawFile
from schemas.errors import InputError

HUB = "hf://"

_GIVEN = re.compile(r"hf://(?:datasets/)?(?P<id>[\w.-]+/[\w.-]+)(?:/(?P<config>[^@/]+))?(?:@(?P<split>[^@/]+))?/?")
_CONFIGS = re.compile(r"(?:Available|available|pick one)[^\[]*\[(.*?)\]", re.DOTALL)
_GATED = "access is given on the dataset's page; ask for it there, then run: hf auth login"
_ANSWER_S = 10.0


def hub_files(given: str) -> list[RawFile]:
    """Name the files of hf://owner/name, with /config and @split where these are given; all splits otherwise.

    Without an answer of the hub, what was downloaded before is used. Raises InputError.
    """
    parts = _GIVEN.fullmatch(given)
    if parts is None:
        raise InputError(
            f"{given}: not a dataset; write hf://owner/name, hf://owner/name/config or hf://owner/name@split"
        )
    splits = _load(given, parts["id"], parts["config"])
    if parts["split"] is not None:
        if parts["split"] not in splits:
            found = ", ".join(splits)
            raise InputError(f"{given}: the dataset has no split {parts['split']!r}; choose one of {found}")
        splits = {parts["split"]: splits[parts["split"]]}
    path = f"{HUB}{parts['id']}" + (f"/{parts['config']}" if parts["config"] else "")
    return [file for split, dataset in splits.items() for file in _files(f"{path}/{split}", parts["id"], dataset)]


def _files(name: str, dataset_id: str, dataset: Any) -> Iterator[RawFile]:
    paths = [Path(file["filename"]) for file in dataset.cache_files]
    for number, path in enumerate(paths, 1):
        yield RawFile(
            path=path,
            name=name if len(paths) == 1 else f"{name}/{number}",
            source=dataset_id.split("/")[1],
            ending=".arrow",
            packing="",
            bytes=path.stat().st_size,
        )


def _load(given: str, dataset_id: str, config: str | None) -> dict[str, Any]:
    import datasets

    unanswered = _ask(given, dataset_id)
    with _offline() if unanswered else nullcontext():
        try:
            loaded = datasets.load_dataset(dataset_id, config)
        except Exception as error:  # the hub's, the network's, those of every kind of file
            raise InputError(f"{given}: {_refusal(error, unanswered)}") from error
    assert isinstance(loaded, datasets.DatasetDict)
    return {str(split): dataset for split, dataset in loaded.items()}


def _ask(given: str, dataset_id: str) -> str:
    """Ask the hub once, without the many retries of a download; give the reason where there is no answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(dataset_id, timeout=_ANSWER_S)
    except GatedRepoError as error:
        raise InputError(f"{given}: {_GATED}") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{given}: the hub has no such dataset, or it is private; check the name, or run: hf auth login"
        ) from error
    except HFValidationError as error:
        raise InputError(f"{given}: not a name that the hub allows; check it") from error
    except Exception as error:  # httpx's, whatever release of it the hub's client uses
        return first_line(error)
    return ""


def _refusal(error: Exception, unanswered: str) -> str:
    text = str(error)
    if unanswered and not _CONFIGS.search(text):
        return (
            f"no answer from the hub ({unanswered}), and nothing downloaded before; check the network, or download the "
            "dataset where there is one and name its folder"
        )
    if configs := _CONFIGS.search(text):
        names = ", ".join(re.findall(r"'([^']*)'", configs[1]))
        return f"name one of its configs, as in hf://owner/name/config: {names}"
    if "gated" in text.lower():
        return _GATED
    return f"datasets can't load it: {first_line(error)}; download its files and name their folder"


@contextmanager
def _offline() -> Iterator[None]:
    """Let `datasets` use what it has downloaded, at once."""
    import datasets.config
    import huggingface_hub.constants

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before
