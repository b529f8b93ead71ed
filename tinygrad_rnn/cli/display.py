"""A run as it goes on, in the terminal or line by line."""

from __future__ import annotations

import math
import signal
import time
from types import FrameType
from typing import Self

from ..train.loop import Report, Run
from .ending import interrupt, on_signals


class Display:
    """Shows a run while it goes on: a live bar in a terminal, else a line now and then; Ctrl-C ends it in good order.

    seconds: the limit by the clock, if the run has one.
    An output that cannot be written ends the run in good order too; leaving the display then raises its OSError.
    """

    def __init__(self, run: Run, seconds: float = math.inf) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn

        self.run, self.seconds, self.console = run, seconds, Console(highlight=False)
        self.interrupted = False
        self.failure: OSError | None = None
        self.first, self.started, self.spoken, self.last = run.step, time.monotonic(), -math.inf, Report(0, 0)
        self.unit = "verb" if run.configuration.task == "agreement" else "char"
        columns = (TextColumn("step {task.fields[step]}/{task.fields[steps]}"), BarColumn(bar_width=None))
        self.progress = Progress(*columns, TextColumn("{task.fields[left]}"), expand=True)
        self.bar = self.progress.add_task("", total=1.0, step=run.step, steps=run.configuration.steps, left="")
        self.live = Live(console=self.console, get_renderable=lambda: Group(self.progress, self._below()))

    def __enter__(self) -> Self:
        self._listening = on_signals(self._stop)
        self._listening.__enter__()
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()
        self._listening.__exit__(None, None, None)
        if self.failure:
            raise self.failure

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Only leaves word: whoever was interrupted may hold the lock of the output."""
        self.run.stopping = self.interrupted = True
        signal.signal(number, interrupt)  # who asks twice means it

    def show(self, report: Report) -> None:
        """Bring the display up to a report."""
        now = time.monotonic()
        share = (report.step - self.first) / max(1, report.steps - self.first)
        share = max(share, min(1.0, (now - self.started) / self.seconds))
        left = _time((now - self.started) * (1 - share) / share) + " left" if share else ""
        if report.loss is not None:
            self.last = report
        self.progress.update(self.bar, completed=share, step=report.step, left=left)
        due = report.loss is not None and (now - self.spoken > 5 or report.step == report.steps)
        if report.measured or (due and not self.console.is_terminal):
            self._say(f"step {report.step}/{report.steps}  {self._words(report)}", left)
            if report.step > self.first + 1:  # the first step has its line at once, and delays no other
                self.spoken = now

    def _say(self, words: str, left: str) -> None:
        try:
            if self.console.is_terminal:
                self.console.print(words)
            else:
                print(f"{words}  {left}", flush=True)
        except OSError as error:
            self.run.stopping, self.failure = True, error

    def _words(self, report: Report) -> str:
        """Losses in nats and bits, and the speed."""
        parts = [
            f"{name} {nats:.3f} nats ({nats / math.log(2):.3f} bits/{self.unit})"
            for name, nats in (("loss", report.loss), ("validation", report.measured.get("val_loss")))
            if nats is not None
        ]
        if "accuracy" in report.measured:
            parts.append(f"right {report.measured['accuracy']:.1%}")
        return "  ".join([*parts, f"{report.tokens_per_second:,.0f} tokens/s"])

    def _below(self) -> str:
        """The line below the bar: what fits, in the fullest words that do."""
        if self.interrupted:
            return "finishing this step, then saving ..."
        if self.last.loss is None:
            return ""
        nats, bits = f"{self.last.loss:.3f} nats", f"{self.last.loss / math.log(2):.3f} bits"
        speed = f"{self.last.tokens_per_second:,.0f} tokens/s"
        forms = (f"loss {nats} ({bits}/{self.unit})  {speed}", f"{nats}  {bits}  {speed}", f"{nats}  {bits}", nats)
        return next((form for form in forms if len(form) <= self.console.width), "")


def _time(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
