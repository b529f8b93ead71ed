"""`to_onnx`: models as ONNX, operation by operation, recurrent layers as nodes or Scan, each proved by running it."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...backend import use_backend
from ...errors import ConversionError, OptionError
from ...nn import options
from ...nn.module import Module
from ...train.checkpoint import write
from ..calling import Dynamic, Usage, use_of
from ..files import needed
from ..nests import leaves, paths
from ..report import Report
from . import recurrent as onnx_recurrent
from . import tracing
from .building import Builder, Emitter, Item, Result, name_of
from .emission import EMITTERS, REFUSED
from .proof import prove

OPSET = 22
OLDEST = 20
LONGER, LONG = 7, max(tracing.LONGER) + 51
"""By how much all axes are longer in the first proof, and one of them in each of those that follow.

These are not for recurrent layers, in which rounding may grow from step to step.
"""

LARGEST = 2**31 - 2**20
"""The bytes of constants that ONNX's format has room for in one file."""


def to_onnx(
    model: Any, path: str | Path | None = None, inputs: Mapping[str, Any] | Sequence[Any] | None = None, *,
    dynamic: Dynamic | None = None, outputs: Sequence[str] | None = None, states: bool = False, lengths: bool = False,
    nodes: str = "auto", opset: int = OPSET, report: Report | None = None,
) -> Any:  # fmt: skip
    """A model as an `onnx.ModelProto`, also written to path, if there is one; the model itself stays as it is.

    model: a module, or a function of tensors made of the package's operations. Modules are written as in `eval()`.
    inputs: example arrays, by name or in the order of the model's arguments. Not needed for recurrent layers
        (x; LSTM and others alike), cells (x, then the states), Linear, LayerNorm, Embedding (ids), LanguageModel (ids),
        and Layers, Final, Sequential that begin with one of these.
    dynamic: which axes may have other lengths when the graph runs, by input, such as {"x": {0: "T", 1: "N"}}; all
        others are fixed. Left out, it is T and N of the models that were just listed, and nothing of others.
    outputs: what to call them, instead of output, h_n, c_n, logits and the like.
    states: adds the initial states of a recurrent layer or LanguageModel as inputs, h_0 (and c_0 of an LSTM); they are
        zeros otherwise.
    lengths: adds an input of that name, (N) int32, which recurrent layers, Layers and Final (or any model that takes
        lengths=) get.
    nodes: "auto" writes RNN, GRU and LSTM nodes where these compute the same in float32, and a Scan over the cell's
        own step otherwise: for simplified GRUs, cells of your own, and in float64, for which onnxruntime has no such
        nodes. "always": nodes in float64 too, and simplified GRUs as GRU nodes whose reset gate is open. "never": Scan.
    opset: the version of ONNX's operators, 20 or later.
    report: takes down what went where.

    The result passes ONNX's full check, and was run at sizes other than those it was made at, where its outputs had to
    agree with the model's: in onnxruntime, if it is there and has the kernels, else by `from_onnx`; the report says
    where.

    What is written down are operations on tensors, as they are when the model runs. Numbers that depend on the inputs
    and are read, by `.item()`, `.numpy()`, `bool()`, `float()` and the like, are refused, and so is every if on them;
    those of weights and constants may be read. What Python does with the lengths of axes is seen by running the model
    with each axis of dynamic= at some lengths: 3, or less, and 2, 5, 15, 35, 95 and 160 more than in the example. A
    loop over T, or an if or a number that follows a length otherwise than by factor and offset, is refused where it
    shows at one of these. Not seen is what shows at other lengths only: `x.shape[0] > 1000`, or `== 1`, is written as
    False.

    Raises: ConversionError with the reason, where the model cannot be written or does not compute the same;
        OptionError; MissingPackage; OutputError, if the file cannot be written; what the model raises of its inputs.
    """
    onnx, report = needed("onnx", "to_onnx"), Report() if report is None else report
    options.kind("path=", path, str, PathLike, type(None), words="the path of a file")
    options.kind("outputs=", outputs, list, tuple, str, type(None), words="a list of names")
    for name in outputs or ():
        options.kind("outputs=", name, str, words="names")
    options.choice("nodes", nodes, onnx_recurrent.WAYS)
    newest = onnx.defs.onnx_opset_version()
    if not isinstance(opset, int) or not OLDEST <= opset <= newest:
        raise OptionError(f"opset is {opset!r}; this version of onnx can write {OLDEST} to {newest}")
    with use_backend("numpy"):
        model, names = _own(model, report)
        use = use_of(model, inputs, dynamic, states=states, lengths=lengths)
        program = tracing.program(use.call, use.inputs, use.dynamic, names)
        layers = {
            tracing.WHOLE_LAYER: onnx_recurrent.emitter(nodes, names),
            tracing.SCAN: onnx_recurrent.scan_emitter(names),
        }
        proto = _model(onnx, program, use, outputs, layers, opset, report)
        try:
            onnx.checker.check_model(proto, full_check=True)
        except Exception as error:
            raise ConversionError(f"ONNX does not allow the graph that was made of the model: {error}") from error
        dtypes, base = {tensor.dtype for tensor in program.runs[0].tensors}, program.sizes[0]
        sizes = [{letter: n + LONGER for letter, n in base.items()}]
        if not any(call.name in (tracing.WHOLE_LAYER, tracing.SCAN) for call in program.calls):
            sizes += [{**base, letter: base[letter] + LONG} for letter in base]
        rng = np.random.default_rng(1)
        examples = [tracing.resized(use.inputs, use.dynamic, each, rng) for each in sizes]
        runtime = prove(proto, use.call, examples, dtypes)
        report.note(f"{runtime} has run it, and computes the same")
    if path is not None:
        write(path, proto.SerializeToString(), elsewhere="name another place")
    return proto


def _own(model: Any, report: Report) -> tuple[Any, dict[int, str]]:
    """A copy of a module on the host that is not training, and the names of its state, by identity.

    report: learns which weights are frozen, which no ONNX file tells.
    """
    if not isinstance(model, Module):
        if not callable(model):
            raise OptionError(f"to_onnx takes a module or a function of tensors, not a {type(model).__name__}")
        return model, {}
    twin = copy.deepcopy(model).to("numpy").eval()
    state = dict(twin._named_state())
    learning = {name for name, _ in twin.named_parameters()}
    if learning and (frozen := [name for name, each in state.items() if each.ndim and name not in learning]):
        report.note(f"ONNX has no place for what is frozen (requires_grad=False): {', '.join(frozen)}")
    return twin, {id(tensor): name for name, tensor in state.items()}


# -- the model ---------------------------------------------------------------------------------------------------


def _refusing(reason: str) -> Emitter:
    def emit(g: Builder, inputs: list[Any], options: dict[str, Any], out: list[Result]) -> str:
        raise ConversionError(reason)

    return emit


def _model(
    onnx: Any, program: tracing.Program, use: Usage, outputs: Sequence[str] | None, layers: Mapping[str, Emitter],
    opset: int,
    report: Report,
) -> Any:  # fmt: skip
    """The program as a model."""
    refused = {name: _refusing(f"{name} is not written to ONNX: {remedy}") for name, remedy in REFUSED.items()}
    graph = Builder({**EMITTERS, **refused, **layers}, report)
    given = [Item(graph.free(name), array.dtype, program.shapes[number])
             for number, (name, array) in enumerate(use.inputs.items())]  # fmt: skip
    names = _output_names(outputs or use.outputs, program.outputs)
    wishes = [graph.free(name) for name in names]
    results = graph.deliver(list(leaves(graph.write(program, given))), wishes)
    if (room := sum(array.nbytes for array in graph.shared.constants.values())) > LARGEST:
        raise ConversionError(f"the weights take {room:,} bytes, and an ONNX file holds no more than {LARGEST:,}")
    inner = graph.finished("model", given, results)
    known = {name_of(name) for name in program.names.values()}
    for each in inner.initializer:
        if each.name in known:
            report.add(each.name, tuple(each.dims), each.name, tuple(each.dims))
    ids = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(
        inner, opset_imports=ids, ir_version=onnx.helper.find_min_ir_version_for(ids),
        producer_name="tinygrad_rnn", producer_version=importlib.import_module("tinygrad_rnn").__version__,
    )  # fmt: skip


def _output_names(wishes: Sequence[str], outputs: Any) -> list[str]:
    """What the outputs are called.

    Raises: OptionError, if there are not as many names as outputs; ConversionError, if one is no tensor.
    """
    found = list(paths(outputs))
    for _, each in found:
        if not isinstance(each, tracing.ARRAYS):
            raise ConversionError(f"the model returns {each!r} among its outputs, which is no tensor")
    if not found:
        raise ConversionError("the model returns nothing")
    if wishes and (len(wishes) != len(found) or len(set(wishes)) < len(wishes)):
        raise OptionError(f"outputs names {', '.join(wishes)}; {len(found)} different names are needed")
    return list(wishes) or [path if path and not path[0].isdigit() else "_".join(filter(None, ["output", path]))
                            for path, _ in found]  # fmt: skip
