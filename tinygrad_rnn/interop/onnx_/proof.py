"""The proof of a graph: what it computes is what the model computes, number by number."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from ...backend import Array
from ...core.modes import no_grad
from ...core.tensor import Tensor
from ...errors import ConversionError
from ..nests import leaves
from . import recurrent as onnx_recurrent
from .reading import OnnxModel, from_onnx

TOLERANCES = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-10}
"""How far the two sides may be apart, beside 1 plus the largest number, by the coarsest dtype on the way."""


def prove(
    onnx: Any, proto: Any, model: Callable[[dict[str, Tensor]], Any], inputs: Mapping[str, Array], dtypes: set[str]
) -> str:  # fmt: skip
    """Run the graph, and see that it computes what the model does; returns what ran it.

    dtypes: all those that are computed with.

    Raises: ConversionError, if it does not.
    """
    name, run = next((name, run) for name, each in RUNTIMES.items() if (run := each(onnx, proto)) is not None)
    shapes = ", ".join(f"{name} {x.shape}" for name, x in inputs.items())
    with no_grad(), np.errstate(all="ignore"):
        found = model({name: Tensor(array) for name, array in inputs.items()})
    try:
        outputs = run({name: np.asarray(x) for name, x in inputs.items()})
    except Exception as error:
        raise ConversionError(f"the graph that was made of the model does not run with {shapes}: {error}") from error
    names, bound = [each.name for each in proto.graph.output], max([TOLERANCES.get(each, 0.0) for each in dtypes])
    for output, x, y in zip(names, leaves(found), outputs, strict=True):
        _compare(output, np.asarray(x._array), np.asarray(y), shapes, bound)
    return name


def _compare(name: str, ours: Array, theirs: Array, shapes: str, bound: float) -> None:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise ConversionError(
            f"the graph that was made of the model gives {name} as {theirs.dtype} {theirs.shape}, and the model as "
            f"{ours.dtype} {ours.shape}, with {shapes}"
        )
    with np.errstate(all="ignore"):
        away = np.abs(theirs.astype(np.float64) - ours)
    same = (theirs == ours) | ((theirs != theirs) & (ours != ours))  # infinities and nan too
    bound = bound * (1 + np.abs(ours[np.isfinite(ours)]).max(initial=0)) if ours.dtype.kind == "f" else 0
    if not (same | (away <= bound)).all():
        raise ConversionError(
            f"the graph that was made of the model computes another {name}, off by {away[~same].max():.3g}, with "
            f"{shapes}: something in it depends on sizes or numbers in a way that the runs it was made of did not show"
        )


# -- what can run a graph ----------------------------------------------------------------------------------------

Runner = Callable[[dict[str, Array]], Sequence[Any]]


def _onnxruntime(onnx: Any, proto: Any) -> Runner | None:
    """onnxruntime, if it is there and has all kernels that the graph needs; its nodes of float64 refuse to run."""
    dtypes = {each.name: each.data_type for each in proto.graph.initializer}
    weights = [node.input[1] for node in proto.graph.node if node.op_type in onnx_recurrent.NODES.values()]
    if any(dtypes.get(name) != onnx.TensorProto.FLOAT for name in weights):
        return None
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = runtime.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    except Exception as error:
        raise ConversionError(f"onnxruntime refuses the graph that was made of the model: {error}") from error
    taken = {each.name for each in session.get_inputs()}
    return lambda inputs: session.run(None, {name: x for name, x in inputs.items() if name in taken})


def _ours(onnx: Any, proto: Any) -> Runner | None:
    """The package itself, by `from_onnx`, which can run whatever is written here."""
    again = cast(OnnxModel, from_onnx(proto, alone=False))
    names = {entry.name for entry in again.graph.inputs}

    def run(inputs: dict[str, Array]) -> list[Array]:
        found = again(**{name: x for name, x in inputs.items() if name in names})
        return [each.numpy() for each in leaves(found)]

    return run


RUNTIMES: dict[str, Callable[[Any, Any], Runner | None]] = {
    "onnxruntime": _onnxruntime,
    "this package": _ours,
}
"""What can prove a graph, the best first."""
