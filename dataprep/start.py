"""How the `dataprep` command begins: with what an interrupt does, before anything else is loaded.

Cleaning up after an interrupt is worth a try where our own code runs. Within an import it is not: libraries turn the
exception into others, with tracebacks of their own. As the cache stands every kill, the process just ends there.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

INTERRUPTED = "interrupted; run the same command again to go on"
_INTERRUPTED_CODE = 130
_IMPORTING = "<frozen importlib"


def main() -> int:
    """Run the command line; interrupted at any moment, it says so in one line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not so under nohup
        _heed_interrupts(os.getpid())
    from dataprep.cli import main as run

    return run()


def _heed_interrupts(own: int) -> None:
    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a worker that was just forked: its parent decides
            os._exit(_INTERRUPTED_CODE)
        while frame is not None:
            if frame.f_code.co_filename.startswith(_IMPORTING):
                _end()
            frame = frame.f_back
        raise KeyboardInterrupt

    def on_unraisable(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):  # it came up where nothing can catch it
            _end()
        sys.__unraisablehook__(unraisable)

    signal.signal(signal.SIGINT, on_interrupt)
    sys.unraisablehook = on_unraisable


def _end() -> None:
    os.write(2, f"dataprep: {INTERRUPTED}\n".encode())
    os._exit(_INTERRUPTED_CODE)


if __name__ == "__main__":
    sys.exit(main())
