"""`train verify`: a model and shards in, a table and certificate.json out; the fields are in schemas/certificate.md."""

import json
import platform
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import TrainError
from schemas.files import write_text_whole
from train.hub import ModelFiles, find_model
from train.launch import join_ranks, quiet_libraries, settle_allocators
from train.load import Shards, open_shards

if TYPE_CHECKING:
    from train.model import ModelShape
    from train.verify.model_checks import Packed
    from train.verify.sample import Sample
    from train.verify.steps import Taken

FORMAT, VERSION = "sftpack-certificate", 1
FILE = "certificate.json"
# relative differences: of losses, and of gradients by the norm of a weight's
ALLOWED = {"fp32": (2e-5, 1e-3), "bf16": (1e-2, 1e-1), "fp16": (2e-3, 2e-2)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One promise, and what was measured."""

    name: str
    holds: bool
    difference: float  # relative, or in nats where nothing may change
    allowed: float
    says: str

    def line(self) -> str:
        """It as a line of the table."""
        word = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.name:<22}  {self.difference:>9.1e}  {self.allowed:>9.1e}  {word}: {self.says}"


def verify(options: Namespace, arguments: list[str]) -> int:
    """Check the promises on the user's model and shards. Gives 0, or 1 where one does not hold."""
    settle_allocators()
    quiet_libraries()
    from train.verify.elsewhere import is_elsewhere, take_as_rank

    if is_elsewhere():
        return take_as_rank()
    from train.model import check_fits, read_shape
    from train.page.page import show_certificate

    started = time.perf_counter()
    shards = open_shards(options.shards)
    files = find_model(options.model or shards.manifest.model)
    shape = read_shape(files)
    check_fits(files, shape, shards)
    folder = options.out or Path()
    if not folder.is_dir():
        raise TrainError(f"{folder}: no such folder; --out is where {FILE} is to lie, as a run's folder")
    with tempfile.TemporaryDirectory() as temporary:
        content = _checked(files, shape, shards, Path(temporary), arguments)
    content["seconds"] = round(time.perf_counter() - started, 1)
    write_text_whole(folder / FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    show_certificate(folder / "summary.html", content)
    print(f"certificate  {folder / FILE}", flush=True)
    return 0 if content["holds"] else 1


def _checked(
    files: ModelFiles, shape: "ModelShape", shards: Shards, temporary: Path, arguments: list[str]
) -> dict[str, Any]:
    """Run the checks, print each as it comes; gives the certificate's content."""
    import torch

    from train.background import Background
    from train.saving import Saver
    from train.verify.elsewhere import take_elsewhere
    from train.verify.model_checks import compare_packed
    from train.verify.sample import sample
    from train.verify.steps import config_of, take_steps

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seq_len = shards.manifest.options.seq_len
    chosen = sample(files, shape, shards.train, device, temporary / "model")
    print(*_opening(files, shape, chosen, device), sep="\n", flush=True)
    with take_elsewhere(files, shape, shards, chosen, temporary, arguments) as elsewhere:
        ranks, sources = join_ranks(), shards.manifest.sources
        config = config_of(files.name, seq_len, ranks)
        packed = compare_packed(chosen.files, chosen.packs, config, ranks)
        checks = list(_told(_packed_checks(packed, config.precision)))
        if not packed.num_packs_moved:
            print(f"{'isolation':<22}  not checked: none of these packs holds two examples with targets", flush=True)
        background = Background(ranks)
        saver = Saver(temporary / "run", ranks, 1, background)
        base = take_steps(chosen.files, chosen.packs, sources, config, ranks, saver=saver)
        whole = take_steps(chosen.files, chosen.packs, sources, replace(config, micro_packs=config.batch_packs), ranks)
        background.finish()
        again = take_steps(chosen.files, chosen.packs, sources, config, ranks, go_on_from=temporary / "run")
        shutil.rmtree(temporary / "run")
        checks += _told(_step_checks(base, whole, again, config.precision, exact=device.type == "cpu"))
        two, one = elsewhere.wait(2), base
        precision = config.precision
        if elsewhere.on_another_device:
            one, precision = elsewhere.wait(1), "fp32"
        checks += _told([_ranks_check(one, two, precision)])
    torch.distributed.destroy_process_group()
    return {
        "format": FORMAT,
        "version": VERSION,
        "holds": all(check.holds for check in checks),
        "model": files.name,
        "shards": shards.manifest.fingerprint,
        "layers": f"{chosen.num_layers} of {shape.num_layers}",
        "packs": len(chosen.packs),
        "tokens": chosen.num_tokens,
        "targets": int(chosen.packs.num_targets.sum()),
        "precision": config.precision,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "kernels": asdict(packed.kernels),
        "versions": _versions(),
        "checks": [asdict(check) for check in checks],
    }


def _packed_checks(packed: "Packed", precision: str) -> Iterator[Check]:
    loss, gradients = ALLOWED[precision]
    yield _check("packed loss", packed.loss, loss, "packs have the loss of each example alone in plain transformers")
    yield _check(
        "packed gradients",
        packed.gradients,
        gradients,
        f"every weight's gradient is that of the examples alone, {packed.gradient_of} the furthest",
    )
    yield _check("loss over targets", packed.by_hand, loss, "the loss is that from logits, in float64, by hand")
    if packed.num_packs_moved:
        check = _check(
            "isolation",
            packed.moved,
            0.0,
            f"one example changed in each of {packed.num_packs_moved} packs moves no other's loss",
        )
        yield replace(check, holds=check.holds and packed.own_moved > 0)


def _step_checks(base: "Taken", whole: "Taken", again: "Taken", precision: str, *, exact: bool) -> Iterator[Check]:
    loss, _ = ALLOWED[precision]
    says = "two steps of 4 and 3 packs are those of one micro-batch each"
    yield _check("accumulation", _furthest(base.numbers(), whole.numbers()), loss, says)
    second = [base.losses[1], base.norms[1], base.loss_after]
    same = base.weights == again.weights
    ends = "same weights bit for bit" if same else "weights differ by rounding"
    check = _check(
        "checkpoint",
        _furthest(second, again.numbers()),
        0.0 if exact else loss,
        f"a step after saving and loading is the step without, {ends}",
    )
    yield replace(check, holds=check.holds and (same or not exact))


def _ranks_check(one: "Taken", two: "Taken", precision: str) -> Check:
    says = f"two steps on 2 ranks are those on 1, in {precision}"
    return _check("ranks", _furthest(one.numbers(), two.numbers()), ALLOWED[precision][0], says)


def _check(name: str, difference: float, allowed: float, says: str) -> Check:
    return Check(name=name, holds=difference <= allowed, difference=difference, allowed=allowed, says=says)


def _furthest(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(one, other, strict=True))


def _told(checks: Any) -> Iterator[Check]:
    for check in checks:
        print(check.line(), flush=True)
        yield check


def _opening(files: ModelFiles, shape: "ModelShape", chosen: "Sample", device: Any) -> list[str]:
    layers = f"all {shape.num_layers} layers"
    if chosen.num_layers < shape.num_layers:
        layers = (
            f"its first {chosen.num_layers} of {shape.num_layers} layers, in its own weights; all would take too long"
        )
    targets = int(chosen.packs.num_targets.sum())
    return [
        f"model        {files.name}: {layers}, on {device.type}",
        f"data         {len(chosen.packs)} packs, {chosen.num_tokens:,} tokens, {targets:,} targets",
        "",
        f"{'check':<22}  {'found':>9}  {'allowed':>9}",
    ]


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("sftpack", "torch", "transformers", "deepspeed"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from its sources
            found[name] = "not installed"
    return found
