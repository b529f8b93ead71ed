"""onnxruntime, without a word, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import needed


def session(source: bytes | str | Path) -> Any:
    """A session of a model, by its bytes or the path of its file.

    Raises: MissingPackage without onnxruntime; whatever onnxruntime raises of models that it cannot run.
    """
    runtime = needed("onnxruntime", "running it")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    return runtime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
