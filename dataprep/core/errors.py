"""Other libraries' errors in, one line out."""


def first_line(error: BaseException) -> str:
    """Give the first line of an error's message; its name where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
