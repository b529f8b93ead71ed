"""The log of a run: a file of JSON lines that is whole at every moment."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from ..errors import OutputError
from . import checkpoint

LOG = "log.jsonl"


class Log:
    """A file of JSON lines that is never torn: a line that does not fit is taken back.

    step: where the run stands; lines of later steps, and a last one that was cut off, are dropped.

    Raises: OutputError, if there is such a file that cannot be read and written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        try:
            with open(path, "r+b") as file:
                lines = file.readlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(
                f"{path} cannot be read and written ({error.strerror}): "
                "give yourself the permission, move it away, or name another folder with --out"
            ) from None
        whole = [line for line in lines if _step_of(line) <= step]
        if whole != lines:
            checkpoint.write(path, b"".join(whole))

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line.

        Raises: OutputError; the file is then as it was.
        """
        before = self.path.stat().st_size if self.path.exists() else None
        try:
            with open(self.path, "ab") as file:
                file.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
        except OSError as error:
            if before is not None:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, before)
            raise OutputError(
                f"{self.path} could not be written ({error.strerror}); the last checkpoint is whole: make room, "
                f"then go on with tinygrad-rnn train --resume {checkpoint.as_typed('--out', self.path.parent)}"
            ) from error

    def entries(self) -> list[dict[str, Any]]:
        """All lines, read back."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()] if self.path.exists() else []


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
