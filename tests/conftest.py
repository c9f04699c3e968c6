"""Shared fixtures. Data that is not in the project is used only where it lies beside it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with real dialogues and Qwen3's tokenizer")
    return SHARED
