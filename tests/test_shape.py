"""The project's own shape: imports point one way, and importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {"schemas": {"schemas"}, "dataprep": {"dataprep", "schemas"}, "train": {"train", "schemas"}}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_downwards_only(package):
    for path in (ROOT / package).rglob("*.py"):
        ours = {name.split(".")[0] for name in imported(path)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package], path


@pytest.mark.parametrize(("folder", "below"), [("core", {"core"}), ("stages", {"core", "stages"})])
def test_stages_see_the_core_alone_and_the_core_sees_itself(folder, below):
    for path in (ROOT / "dataprep" / folder).rglob("*.py"):
        ours = {name.split(".")[1] for name in imported(path) if name.startswith("dataprep.")}
        assert ours <= below, path


@pytest.mark.parametrize("module", ["dataprep.cli", "train.cli"])
def test_the_command_line_loads_nothing_heavy_until_a_command_needs_it(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'pyarrow', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
