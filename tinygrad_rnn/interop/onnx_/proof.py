"""The proof of a graph: what it computes is what the model computes, number by number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from ...backend import Array
from ...core.modes import no_grad
from ...core.tensor import Tensor
from ...errors import ConversionError, MissingPackage
from ..agreement import agree, apart, tolerance
from ..nests import leaves
from .files import dtype_of
from .graph import RECURRENT
from .reading import OnnxModel, from_onnx
from .runtime import session

Runner = Callable[[dict[str, Array]], Sequence[Any]]
"""The inputs of a graph, by name -> its outputs."""


def prove(
    proto: Any, model: Callable[[dict[str, Tensor]], Any], examples: Iterable[Mapping[str, Array]],
    dtypes: Iterable[Any],
) -> str:  # fmt: skip
    """Run the graph, and see that it computes what the model does; returns what ran it.

    examples: of the inputs, at several sizes. dtypes: all those that are computed with.

    Raises: ConversionError, if it does not.
    """
    (runtime, run), bound = _runner(proto), tolerance(dtypes)
    for inputs in examples:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in inputs.items())
        with no_grad(), np.errstate(all="ignore"):
            ours = model({name: Tensor(array) for name, array in inputs.items()})
        try:
            theirs = run({name: np.asarray(x) for name, x in inputs.items()})
        except Exception as error:
            raise ConversionError(
                f"the graph that was made of the model does not run with {shapes}: {error}"
            ) from error
        for output, x, y in zip(proto.graph.output, leaves(ours), theirs, strict=True):
            _compare(output.name, np.asarray(x._array), np.asarray(y), shapes, bound)
    return runtime


def _compare(name: str, ours: Array, theirs: Array, shapes: str, bound: float) -> None:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise ConversionError(
            f"the graph that was made of the model gives {name} as {theirs.dtype} {theirs.shape}, and the model as "
            f"{ours.dtype} {ours.shape}, with {shapes}"
        )
    if not agree(ours, theirs, bound):
        raise ConversionError(
            f"the graph that was made of the model computes another {name}, off by {apart(ours, theirs):.3g}, with "
            f"{shapes}: something in it depends on sizes or numbers in a way that the runs it was made of did not show"
        )


# -- what can run a graph ----------------------------------------------------------------------------------------


def _runner(proto: Any) -> tuple[str, Runner]:
    """The best that can run a graph, and how."""
    for name, runner_of in RUNTIMES.items():
        run = runner_of(proto)
        if run is not None:
            return name, run
    raise ConversionError("nothing here can run the graph that was made of the model")


def _onnxruntime(proto: Any) -> Runner | None:
    """onnxruntime, if it is there and has all kernels that the graph needs; its nodes of float64 refuse to run."""
    dtypes = {each.name: dtype_of(each.data_type, each.name) for each in proto.graph.initializer}
    weights = [node.input[1] for node in proto.graph.node if node.op_type in RECURRENT]
    if any(dtypes.get(name) != np.float32 for name in weights):
        return None
    try:
        made = session(proto.SerializeToString())
    except MissingPackage:
        return None
    except Exception as error:  # its types of errors have no public names
        if type(error).__name__ == "NotImplemented":
            return None
        raise ConversionError(f"onnxruntime refuses the graph that was made of the model: {error}") from error
    taken = {each.name for each in made.get_inputs()}
    return lambda inputs: made.run(None, {name: x for name, x in inputs.items() if name in taken})


def _ours(proto: Any) -> Runner | None:
    """The package itself, by `from_onnx`, which can run whatever is written here."""
    again = cast(OnnxModel, from_onnx(proto, alone=False))
    names = {entry.name for entry in again.graph.inputs}
    return lambda inputs: [
        each.numpy() for each in leaves(again(**{name: x for name, x in inputs.items() if name in names}))
    ]


RUNTIMES: dict[str, Callable[[Any], Runner | None]] = {"onnxruntime": _onnxruntime, "this package": _ours}
"""What can prove a graph, the best first."""
