"""Find a model's tokenizer and chat template: in a folder, a GGUF file, or the hub; kept in the cache by content.

transformers reads it once; what the stages need of it then lies in `tokenizers/<key>/` of the cache, so that later runs
start at once. The folder inside it is what trainers save beside the model.
"""

import hashlib
import math
import secrets
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from schemas.errors import CacheError, ModelError
from schemas.files import damaged_files, seal_holds, sealed, sha256_file, write_text_whole, written_whole

if TYPE_CHECKING:
    from jinja2 import Template

    from dataprep.core.encode import Encoder

TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
)
_GGUF_HEAD_BYTES = 64 << 20  # the tokenizer stands in a GGUF's head
_SAVED_PER_CHAR = 4  # bytes on disk, at most, for each character of a tokenizer's JSON
_HUB_TIMEOUT_S = 5.0
_BUNDLE_VERSION = 2  # of what lies in tokenizers/: a change of it reads every tokenizer anew
_BYTE_TABLE = "token_bytes.npz"
_FAST_BYTES = 1 << 18  # below this Hugging Face's tokenizer is done before fastokens is loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTokenizer:
    """What the stages need of a tokenizer; the files themselves are in `folder`."""

    folder: str
    sha256: str  # of the tokenizer's canonical JSON
    template: str | None
    special_tokens: dict[str, str]  # names that templates may use: bos_token, eos_token, …
    control_tokens: list[str]  # every special token's text, the longest first
    control_ids: list[int]  # their ids
    vocab_size: int
    eos_token_id: int | None
    pad_token_id: int | None
    sandbox_proven: bool  # our sandbox renders the template as transformers does
    byte_level: bool  # each id stands for exact bytes
    encoder_proof: str | None  # why fastokens may be used for it; None: it may not
    encoder_note: str

    def is_fast(self, text_bytes: float = math.inf) -> bool:
        """Whether fastokens makes the ids of so much text: where it is proven, and worth the second to load it."""
        return self.encoder_proof is not None and text_bytes >= _FAST_BYTES

    def encoder(self, text_bytes: float = math.inf) -> "Encoder":
        """Load what makes its ids; `text_bytes` is about how much text is to come."""
        from dataprep.core.encode import ByteTable, choose_encoder

        text = (Path(self.folder) / "tokenizer.json").read_text(encoding="utf-8")
        table = Path(self.folder).parent / _BYTE_TABLE
        return choose_encoder(text, ByteTable.load(table) if self.byte_level else None, self.is_fast(text_bytes))

    def encoder_files(self) -> dict[str, bytes]:
        """What `encoder` reads, by names below the folder that `folder` is in."""
        home = Path(self.folder).parent
        names = ["files/tokenizer.json", *([_BYTE_TABLE] if self.byte_level else [])]
        return {name: (home / name).read_bytes() for name in names}

    def compiled_template(self, official: bool = False) -> "Template":
        """The template in our sandbox where that was proven for it, else in transformers' own, or where `official`."""
        assert self.template is not None
        if self.sandbox_proven and not official:
            from dataprep.core.sandbox import compile_template

            return compile_template(self.template)
        from transformers.utils.chat_template_utils import _compile_jinja_template

        return _compile_jinja_template(self.template)

    @property
    def template_sha256(self) -> str:
        """Hex SHA-256 of the chat template's text ("" where there is none)."""
        return hashlib.sha256((self.template or "").encode()).hexdigest()


def load_tokenizer(model: str, cache: Path) -> ModelTokenizer:
    """Find the tokenizer of `model`: a folder, a .gguf file, or a hub name. Raises ModelError, at once."""
    place = locate(model)
    key = content_key(place)
    home = cache / "tokenizers" / key[:16]
    kept = read_bundle(home)
    if kept is not None:
        return kept
    bundle = _extract(place, model, home / "files")
    digests = {name: sha256_file(home / name) for name in _names_in(home)}
    record = asdict(bundle) | {"folder": "files", "digests": digests}  # the same wherever the cache is
    write_text_whole(home / "bundle.json", sealed(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode()))
    return bundle


def read_bundle(home: Path) -> ModelTokenizer | None:
    """What an earlier run left in `home`; None where nothing did, another version of sftpack, or a bit has flipped."""
    try:
        content = (home / "bundle.json").read_bytes()
        record = orjson.loads(content)
        whole = seal_holds(content, record.pop("checksum")) and not damaged_files(home, record.pop("digests"))
        bundle = ModelTokenizer(**{**record, "folder": str(home / "files")})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return bundle if whole else None


def _save(tokenizer: Any, folder: Path) -> None:
    """Let transformers write a tokenizer's files; what it can't write is removed."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the library under it raises no narrower one
        shutil.rmtree(folder, ignore_errors=True)
        raise CacheError(f"{folder}: cannot be written: {error}; free space there or choose another CACHE") from error


def _names_in(home: Path) -> list[str]:
    """The files that a bundle stands for, below its folder."""
    table = [_BYTE_TABLE] if (home / _BYTE_TABLE).is_file() else []
    return table + sorted(f"files/{path.name}" for path in (home / "files").iterdir())


def locate(model: str) -> Path:
    """The local folder or file that holds `model`'s tokenizer, fetched from the hub where needed."""
    path = Path(model).expanduser()
    if path.exists():
        if path.is_dir() and not any(path.glob("tokenizer*")):
            ggufs = sorted(path.glob("*.gguf"))
            if len(ggufs) == 1:
                return ggufs[0]
            raise ModelError(
                f"{model}: no tokenizer files in this folder; give a model folder, a .gguf file or a hub name"
            )
        if path.is_file() and path.suffix != ".gguf":
            raise ModelError(
                f"{model}: not a model; give a model folder, a .gguf file or a hub name such as Qwen/Qwen3-4B"
            )
        return path
    if path.suffix == ".gguf" or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(
            f"{model}: no such folder or file; give a model folder, a .gguf file or a hub name such as Qwen/Qwen3-4B"
        )
    return _from_hub(model)


def _from_hub(model: str) -> Path:
    import urllib.error
    import urllib.request

    from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import build_hf_headers

    for name in ("tokenizer.json", "tokenizer_config.json"):
        cached = try_to_load_from_cache(model, name)
        if isinstance(cached, str):
            return Path(cached).parent
    request = urllib.request.Request(f"{constants.ENDPOINT}/api/models/{model}", headers=build_hf_headers())
    try:  # one short question first: the hub's own client would try again for minutes
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S).close()
        return Path(snapshot_download(model, allow_patterns=["config.json", *TOKENIZER_FILES]))
    except urllib.error.HTTPError as error:
        raise ModelError(
            f"{model}: the hub answers {error.code}: no such model, or it needs a login (hf auth login)"
        ) from error
    except (OSError, LocalEntryNotFoundError) as error:
        raise ModelError(
            f"{model}: neither a local folder nor downloaded before, and the model hub is out of reach; "
            "check the network (or HF_ENDPOINT), or give a local model folder or a .gguf file"
        ) from error


def content_key(place: Path) -> str:
    """Hash of the files that decide a tokenizer, and of the library that reads them."""
    digest = hashlib.sha256(f"bundle {_BUNDLE_VERSION}".encode())
    for package in ("transformers", "tokenizers", "fastokens"):
        digest.update(f"{package} {_version(package)}".encode())
    if place.is_file():
        digest.update(str(place.stat().st_size).encode())
        with place.open("rb") as file:
            digest.update(file.read(_GGUF_HEAD_BYTES))
    else:
        for file_path in sorted({match for pattern in TOKENIZER_FILES for match in place.glob(pattern)}):
            if file_path.is_file():
                digest.update(f"{file_path.name} {sha256_file(file_path)}".encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extract(place: Path, model: str, folder: Path) -> ModelTokenizer:
    """Let transformers read the tokenizer, save it as a folder, and prove the fast encoder for it."""
    from transformers import AutoTokenizer

    from dataprep.core.encode import ByteTable
    from dataprep.core.probes import prove_fast

    try:
        if place.is_file():
            tokenizer = AutoTokenizer.from_pretrained(place.parent, gguf_file=place.name)
        else:
            tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        detail = str(error).strip().split("\n")[0]
        raise ModelError(f"{model}: its tokenizer can't be read: {detail}") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{model}: its tokenizer has no fast form (tokenizer.json); convert it with transformers first"
        )
    aside = folder.with_name(f".{folder.name}.{secrets.randbits(48)}.tmp")
    partial = folder.with_name(f".{folder.name}.{secrets.randbits(48)}.tmp")  # other machines may begin at once
    partial.mkdir(parents=True)
    text = tokenizer.backend_tokenizer.to_str()
    free = shutil.disk_usage(partial).free
    if free < _SAVED_PER_CHAR * len(text):  # asked first, since the library fails without saying why
        raise CacheError(
            f"{partial}: cannot be written: {free >> 20} MiB free; free space there or choose another CACHE"
        )
    _save(tokenizer, partial)
    with suppress(OSError):  # whichever run comes last puts the same there
        folder.rename(aside)
    with suppress(OSError):
        partial.rename(folder)
    for path in (aside, partial):
        shutil.rmtree(path, ignore_errors=True)
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= set(tokenizer.all_special_tokens)
    saved = (folder / "tokenizer.json").read_text(encoding="utf-8")
    record = orjson.loads(saved)
    proof, table = prove_fast(saved, record), ByteTable.of(record)
    if table is not None:
        with written_whole(folder.parent / _BYTE_TABLE) as temporary, temporary.open("wb") as file:
            table.save(file)
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    names = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return ModelTokenizer(
        folder=str(folder),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        template=template,
        special_tokens=names,
        control_tokens=sorted(special, key=lambda token: (-len(token), token)),
        control_ids=sorted({int(tokenizer.vocab[token]) for token in special}),
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        sandbox_proven=bool(template) and _sandbox_proven(tokenizer, template, names),
        byte_level=table is not None,
        encoder_proof=proof.note if proof.equal else None,
        encoder_note=proof.note,
    )


def _sandbox_proven(tokenizer: Any, template: str, names: dict[str, str]) -> bool:
    from jinja2 import TemplateError

    from dataprep.core.sandbox import compile_template, sandbox_agrees

    try:
        compile_template(template)
    except TemplateError as error:
        raise ModelError(f"its chat template can't be parsed: {error}; mend chat_template.jinja") from error

    def official(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, prompt: bool) -> str:
        return tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=template, add_generation_prompt=prompt, tokenize=False
        )

    return sandbox_agrees(template, names, official)
