"""Sizes in bytes, for people."""


def size_text(count: float) -> str:
    """Three digits and a unit: 1.23 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 99.95 else f"{count:.3g} {unit}"
