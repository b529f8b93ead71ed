"""How a command ends: its exit status, and Ctrl-C and its like."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SAVED, BAD_INPUT, INTERRUPTED = 0, 2, 130

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def on_signals(handler: Handler) -> Iterator[None]:
    """Whoever wants to stop us calls the handler; only the main thread can be told."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, handler)
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number] or signal.SIG_DFL)


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler that ends a command as Ctrl-C does."""
    raise KeyboardInterrupt
