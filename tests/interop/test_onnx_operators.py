"""Every operator of the table in a small graph, against ONNX Runtime; and what the table refuses."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from interop.modules import leaves
from interop.onnx_oracles import by_runtime, helper, info, model, numpy_helper
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ConversionError, FileError, ShapeError, TinygradError
from tinygrad_rnn.interop import from_onnx
from tinygrad_rnn.interop.onnx_ import operators as onnx_operators
from tinygrad_rnn.interop.onnx_.operators import OPERATORS

rng = np.random.default_rng(11)
A = rng.standard_normal((2, 3, 4)).astype(np.float32)
B = rng.standard_normal((3, 1)).astype(np.float32)
POSITIVE = rng.uniform(0.2, 0.9, (2, 3)).astype(np.float32)
M, K = rng.standard_normal((4, 5)).astype(np.float32), rng.standard_normal((5,)).astype(np.float32)
COUNTS, MORE = np.array([[7, -8, 9], [-3, 2, 5]]), np.array([[2, 3, -4], [2, -3, 5]])
LARGE = np.array([2**62 + 3, -7, 7, -(2**60) - 1, -(2**62), 3 * 2**61 + 2, 2**63 - 9, 0, 5])
DIVISORS = np.array([3, 2, -2, 7, 2**61 - 1, 2**61 + 1, -(2**62) + 1, -5, 2**62])
BITS, OTHERS = np.array([True, True, False, False]), np.array([True, False, True, False])


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


class Case(NamedTuple):
    """inputs: in order; None for one that is left out."""

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]
    opset: int
    outputs: int


def case(op, *inputs, opset=20, outputs=1, **attributes):
    return Case(op, inputs, attributes, opset, outputs)


def body(op, inputs, outputs, *nodes):
    """A graph for an attribute."""
    entries = [info(name, array) for name, array in inputs.items()]
    return helper.make_graph(list(nodes), op, entries, [info(name) for name in outputs])


RUNNING = body("running", {"s": A[0], "x": A[0]}, ["s_next", "twice"],
               helper.make_node("Add", ["s", "x"], ["s_next"]),
               helper.make_node("Add", ["s_next", "x"], ["twice"]))  # fmt: skip
PLUS = body("plus", {}, ["sum"], helper.make_node("Add", ["outer", "outer"], ["sum"]))
MINUS = body("minus", {}, ["less"], helper.make_node("Neg", ["outer"], ["less"]))
UNARY = dict.fromkeys(["Neg", "Abs", "Exp", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Erf", "Sign", "Floor", "Ceil",
                       "Tanh", "Sigmoid", "Relu", "LeakyRelu", "Elu", "Softplus", "Softsign", "Gelu", "HardSigmoid",
                       "HardSwish", "ThresholdedRelu", "Identity", "Size", "Shape", "Transpose", "Flatten", "Softmax",
                       "LogSoftmax"], A)  # fmt: skip
UNARY |= dict.fromkeys(["Log", "Sqrt", "Reciprocal", "Asin", "Acos"], POSITIVE)
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
              "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")  # fmt: skip
CASES = [
    *[case(op, x) for op, x in UNARY.items()],
    *[case(op, A, B) for op in ("Add", "Sub", "Mul", "Div", "PRelu")],
    *[case(op, COUNTS, MORE) for op in ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")],
    case("Mod", A, B, fmod=1), case("Mod", COUNTS, MORE, fmod=1),
    case("Mod", LARGE, DIVISORS), case("Div", LARGE, DIVISORS), case("Mod", LARGE, DIVISORS, fmod=1),
    case("Pow", POSITIVE, POSITIVE + 1), case("Pow", A, whole(3)),
    case("LeakyRelu", A, alpha=0.3), case("Elu", A, alpha=0.7), case("HardSigmoid", A, alpha=0.3, beta=0.4),
    case("ThresholdedRelu", A, alpha=0.4), case("Gelu", A, approximate="tanh"),
    *[case(op, A, B, A[0]) for op in ("Max", "Min", "Sum", "Mean")],
    case("Clip", A, np.float32(-0.5), np.float32(0.3)), case("Clip", A, None, np.float32(0.3)), case("Clip", A),
    case("Clip", A, min=-0.2, max=0.1, opset=6),
    case("MatMul", A, M), case("MatMul", A, A.swapaxes(1, 2).copy()), case("MatMul", M, K),
    case("MatMul", K, M.T.copy()),
    case("Gemm", M, M.T.copy()), case("Gemm", M, M, K[:4], alpha=0.5, beta=2.0, transB=1),
    case("Gemm", M, M, M[:1], transA=1, alpha=0.5),
    case("Einsum", A, M, equation="tnh,hk->tnk"), case("Einsum", A, equation="...h->h..."),
    case("Softmax", A, axis=1), case("LogSoftmax", A, axis=0), case("Softmax", A, axis=1, opset=11),
    case("LogSoftmax", A, opset=11), case("Softmax", A, axis=2, opset=11),
    case("LayerNormalization", A, K[:4]), case("LayerNormalization", A, A[0], A[1], axis=1, epsilon=1e-3),
    case("LayerNormalization", A, K[:4], K[1:], outputs=3),
    case("Dropout", A), case("Dropout", A, np.float32(0.4), np.array(False), outputs=2),
    case("Dropout", A, ratio=0.3, opset=7),
    case("Where", A > 0, A, B), case("Where", COUNTS > 2, COUNTS, MORE),
    *[case(op, COUNTS, MORE) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")],
    *[case(op, A, A[0]) for op in ("Greater", "Less")],
    case("Not", BITS), *[case(op, BITS, OTHERS) for op in ("And", "Or", "Xor")],
    *[case(op, POSITIVE) for op in REDUCTIONS], *[case(op, POSITIVE, whole(-1), keepdims=0) for op in REDUCTIONS],
    *[case(op, POSITIVE, axes=[0], opset=11) for op in REDUCTIONS],
    case("ReduceSum", A, whole(2, 0)), case("ReduceSum", A, noop_with_empty_axes=1),
    case("ReduceSum", COUNTS.astype(np.int32)),
    case("ReduceProd", COUNTS), case("ReduceMean", COUNTS.astype(np.int32), keepdims=0),
    *[case(op, A) for op in ("ArgMax", "ArgMin")], *[case(op, A, axis=-1, keepdims=0) for op in ("ArgMax", "ArgMin")],
    case("ArgMax", np.round(A), axis=2, select_last_index=1),
    case("CumSum", A, whole(1)[0]), case("CumSum", A, whole(-1), exclusive=1, reverse=1),
    case("CumSum", COUNTS.astype(np.int32), whole(0)[0], exclusive=1),
    case("Cast", A * 3, to=7), case("Cast", COUNTS, to=1), case("Cast", A, to=11), case("Cast", A, to=10),
    case("Cast", COUNTS, to=9), case("CastLike", COUNTS, A),
    case("Shape", A, start=1), case("Shape", A, start=-2, end=-1),
    case("Transpose", A, perm=[2, 0, 1]), case("Flatten", A, axis=2), case("Flatten", A, axis=0),
    case("Flatten", A, axis=-1),
    case("Reshape", A, whole(0, -1)), case("Reshape", A[:, :0], whole(0, 5), allowzero=1),
    case("Reshape", COUNTS, whole(3, -1)),
    case("Squeeze", B, whole(1)), case("Squeeze", B[None]), case("Squeeze", B, axes=[1], opset=11),
    case("Unsqueeze", A, whole(0, -1)), case("Unsqueeze", A, axes=[1], opset=11),
    case("Expand", B, whole(2, 1, 4)), case("Expand", B, whole(1)), case("Tile", A, whole(2, 1, 3)),
    case("Concat", A, A[:1], axis=0), case("Concat", COUNTS, MORE, axis=-1),
    case("Split", A, axis=1, outputs=3, num_outputs=3), case("Split", A, axis=2, outputs=3, num_outputs=3),
    case("Split", A, whole(1, 3), axis=2, outputs=2), case("Split", A, axis=2, split=[3, 1], opset=11, outputs=2),
    case("Split", A, axis=2, outputs=2, opset=13),
    case("Slice", A, whole(1, -3), whole(9, -1), whole(0, 2)),
    case("Slice", A, whole(3), whole(-9), whole(-1), whole(-2)),
    case("Slice", A, whole(-10), whole(-20), whole(2), whole(-1)),
    case("Slice", A, whole(1), whole(2)), case("Slice", A, axes=[1, 2], starts=[0, 1], ends=[2, -1], opset=9),
    case("Pad", A, whole(0, 1, 2, 1, 0, 3)), case("Pad", A, whole(1, 2), np.float32(0.7), whole(1)),
    case("Pad", A, whole(0, -1, 2, 1, 0, -1)), case("Pad", A, pads=[0, 1, 2, 1, 0, 3], value=0.5, opset=10),
    case("Trilu", A), case("Trilu", A, whole(-1)[0], upper=0), case("Trilu", A, whole(1)[0]),
    case("ConstantOfShape", whole(2, 3)),
    case("ConstantOfShape", whole(2, 3), value=helper.make_tensor("v", 7, [1], [5])),
    case("Range", *whole(2, 11, 3)), case("Range", *np.array([3.5, -1.0, -0.75], np.float32)),
    case("Range", *whole(5, 2, 1)),
    case("NonZero", np.round(A)), case("NonZero", COUNTS > 2),
    case("Gather", M, COUNTS % 4), case("Gather", A, whole(-1, 0), axis=1), case("Gather", A, whole(1)[0], axis=2),
    case("GatherElements", M, np.abs(COUNTS) % 4), case("GatherElements", A, whole(0, -1).reshape(1, 1, 2), axis=2),
    case("GatherND", A, np.array([[0, 1], [1, -1]])), case("GatherND", A, np.array([[[1]], [[0]]])),
    case("ScatterND", A, np.array([[0, 1], [1, 2]]), A[0, :2] + 5),
    case("ScatterND", A, np.array([[1], [0], [1]]), np.concatenate([A, A[:1] * 2])),
    case("ScatterND", A, np.array([[1]]), A[:1], reduction="add"),
    case("ScatterElements", M, whole(2, 0, 2, 2).reshape(1, 4), M[:1, :4] + 5, axis=1),
    case("ScatterElements", COUNTS, whole(1, -1).reshape(2, 1), MORE[:2, :1], axis=1),
    case("ScatterElements", M, whole(1, 0, 3).reshape(1, 3), M[:1, :3] + 5),
    case("ScatterElements", M, whole(1, 1).reshape(2, 1), M[:2, :1], axis=1, reduction="add"),
    case("OneHot", COUNTS, whole(4)[0], np.array([0.2, 0.9], np.float32)),
    case("OneHot", whole(1, -1, 3), whole(3), whole(0, 1), axis=0),
    case("ReverseSequence", A, whole(2, 1, 2)), case("ReverseSequence", A, whole(3, 1), time_axis=1, batch_axis=0),
    case("Scan", A[0] + 1, A, body=RUNNING, num_scan_inputs=1, outputs=2),
    case("Scan", A[0], A.swapaxes(0, 1).copy(), body=RUNNING, num_scan_inputs=1, outputs=2, scan_input_axes=[1],
         scan_input_directions=[1], scan_output_axes=[2], scan_output_directions=[1]),
    *[case("If", condition, then_branch=PLUS, else_branch=MINUS) for condition in (np.array(True), np.array([False]))],
    *[case("Constant", **value) for value in (
        {"value": numpy_helper.from_array(A)}, {"value_float": 0.5}, {"value_floats": [0.5, 2.0]}, {"value_int": 3},
        {"value_ints": [3, 4]})],
]  # fmt: skip


def graph_of(case):
    """The model of a case, and its inputs; every graph also has an input by the name that bodies of `If` refer to."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(case.inputs)]
    arrays = {name: np.asarray(x) for name, x in zip(names, case.inputs) if name}
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="it", **case.attributes)
    inputs = arrays | ({"outer": A} if case.op == "If" else {})
    return model([node], inputs, outputs, opset=case.opset), inputs


def named(case):
    return f"{case.op}-{case.opset}-{','.join(case.attributes)}"


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("each", CASES, ids=named)
def test_as_onnx_runtime(each):
    proto, inputs = graph_of(each)
    found, wanted = leaves(from_onnx(proto)(**inputs)), by_runtime(proto, inputs)
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(mine, theirs, rtol=2e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("op, fmod", [("Div", None), ("Mod", 0), ("Mod", 1)])
def test_whole_numbers_are_divided_exactly_as_tensors_too(op, fmod):
    proto, inputs = graph_of(case(op, LARGE, DIVISORS, **({} if fmod is None else {"fmod": fmod})))
    found = from_onnx(proto)(**{name: tg.tensor(x) for name, x in inputs.items()})
    np.testing.assert_array_equal(found.numpy(), by_runtime(proto, inputs)[0])


def test_no_operator_is_without_a_case():
    assert {each.op for each in CASES} == OPERATORS.keys()


STILL = {"Shape", "Size", "Range", "NonZero", "ArgMax", "ArgMin", "Greater", "Less", "Floor", "Ceil", "Sign", "Where"}
FLOWING = [
    each for each in CASES
    if each.inputs and np.asarray(each.inputs[0]).dtype == np.float32 and each.op not in STILL
    and each.attributes.get("to") not in (7, 10)
]  # fmt: skip


@pytest.mark.parametrize("each", FLOWING, ids=named)
def test_gradients_flow(each):
    """Of a random sum of the first output, for the first input: as central differences, in double precision."""
    inputs = [x.astype(np.float64) if getattr(x, "dtype", None) == np.float32 else x for x in map(_array, each.inputs)]
    proto, arrays = graph_of(each._replace(inputs=tuple(inputs)))
    arrays = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in arrays.items()}
    for entry in proto.graph.input:
        if entry.type.tensor_type.elem_type == 1:
            entry.type.tensor_type.elem_type = 11
    run = from_onnx(proto)
    first = lambda x: found if not isinstance(found := run(**arrays | {"x0": x}), tuple) else found[0]  # noqa: E731
    weight = np.random.default_rng(2).standard_normal(first(arrays["x0"]).shape)
    x = tg.tensor(arrays["x0"], requires_grad=True)
    tg.sum(first(x) * weight).backward()
    step = np.random.default_rng(3).standard_normal(x.shape)
    ends = [float(np.sum(first(arrays["x0"] + sign * 1e-6 * step).numpy() * weight)) for sign in (1, -1)]
    np.testing.assert_allclose(np.sum(x.grad.numpy() * step), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("each", [each for each in CASES if each.op != "Constant"], ids=named)
def test_floats_may_lie_on_a_gpu(each, gpu):
    """Shapes, indices and masks stay on the host all the same."""
    proto, inputs = graph_of(each)
    with tg.use_backend("numpy"):
        wanted = leaves(from_onnx(proto)(**inputs))
    given = {name: tg.tensor(x, backend=gpu) if x.dtype.kind == "f" else x for name, x in inputs.items()}
    for mine, theirs in zip(leaves(from_onnx(proto)(**given)), wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def _array(x):
    return None if x is None else np.asarray(x)


# -- refusals ----------------------------------------------------------------------------------------------------

REFUSED = {
    "unknown operator": (case("Det", A), ConversionError, r"'it' \(Det\) is of an operator that is not known"),
    "unknown attribute": (case("Relu", A, slope=0.1), ConversionError, "'it' .*slope"),
    "old broadcasting": (case("Add", A, B, broadcast=1, opset=6), ConversionError, "broadcast"),
    "mode of padding": (case("Pad", A, whole(0, 1, 2, 1, 0, 3), mode="reflect"), ConversionError, "mode = 'reflect'"),
    "batch_dims": (case("GatherND", A, whole(0, 1).reshape(2, 1), batch_dims=1), ConversionError, "batch_dims = 1"),
    "tensor for a choice": (
        case("Gelu", A, approximate=numpy_helper.from_array(A)), FileError, "approximate = .* has a wrong type"),
    "type of a cast": (case("Cast", A, to=8), ConversionError, "data type 8"),
    "too many inputs": (case("Relu", A, A), ConversionError, "too many positional"),
    "no attribute": (case("Concat", A, A), ConversionError, "axis"),
    "no input": (case("Add", A, None), FileError, "'it' .*without its input b"),
    "no inputs": (case("Max"), FileError, "without one of its inputs"),
    "wrong type": (case("Concat", A, A, axis="first"), FileError, "axis = first has a wrong type"),
    "too many outputs": (case("Relu", A, outputs=2), ConversionError, "2 outputs"),
    "opset to come": (case("Relu", A, opset=99), ConversionError, "opset 99"),
    "random training": (case("Dropout", A, np.float32(0.5), np.array(True)), ConversionError, "training_mode"),
    "Scan of opset 8": (
        case("Scan", A[0], A, body=RUNNING, num_scan_inputs=1, outputs=2, opset=8), ConversionError, "before opset 9"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_name_node_and_reason(what):
    each, kind, words = REFUSED[what]
    with pytest.raises(kind, match=words):
        proto, inputs = graph_of(each)
        from_onnx(proto)(**inputs)


def test_another_domain_is_refused():
    proto, _ = graph_of(case("Gelu", A))
    proto.graph.node[0].domain = "com.microsoft"
    with pytest.raises(ConversionError, match=r"'it' \(Gelu\) is of the domain 'com.microsoft'"):
        from_onnx(proto)


@pytest.mark.parametrize("each", [
    case("ConstantOfShape", whole(10**6, 10**6)), case("Expand", B, whole(10**9, 3, 1)),
    case("Tile", A, whole(10**6, 10**6, 1)), case("Range", *whole(0, 10**12, 1)), case("Range", *whole(0, 10, 0)),
    case("OneHot", COUNTS, whole(10**12)[0], whole(0, 1)), case("Pad", A, whole(0, 0, 0, 10**12, 0, 0)),
    case("Reshape", A, whole(5, 5)), case("Gather", A, whole(9)), case("Slice", A, whole(0), whole(1), whole(5)),
    case("ConstantOfShape", whole(-1)), case("Split", A, whole(9, 1), axis=1, outputs=2), case("Squeeze", A, whole(0)),
    case("Concat", COUNTS, whole(1), axis=0), case("Mod", COUNTS, A[0, :2]), case("Transpose", COUNTS, perm=[0, 0]),
], ids=named)  # fmt: skip
def test_what_cannot_be_computed_is_a_typed_error(each):
    proto, inputs = graph_of(each)
    run = from_onnx(proto)
    with pytest.raises(TinygradError):
        run(**inputs)


def test_an_error_names_the_node():
    proto, inputs = graph_of(case("Reshape", A, whole(5, 5)))
    with pytest.raises(ShapeError) as caught:
        from_onnx(proto)(**inputs)
    assert caught.value.__notes__ == ["in node 'it' (Reshape)"]


# -- wrong tables ------------------------------------------------------------------------------------------------

MUTANTS = {
    "Gemm": ("gemm", "a.T if transA", "a.T if not transA"), "Slice": ("slices", "slice(a, b, step)", "slice(a, b)"),
    "Div": ("divide", '"iu"', '"u"'), "Pad": ("pad", "max(-before, 0)", "0"),
    "Split": ("split", "-(-length // n)", "length // n"),
    "CumSum": ("cumsum", "total - y if exclusive", "total if exclusive"), "OneHot": ("one_hot", "found + n", "found"),
    "Scan": ("scan", "if _at(scan_output_directions, i) else x", "if False else x"),
    "LayerNormalization": ("layer_norm", "+ epsilon", "+ 1e-5"),
    "ReverseSequence": ("reverse_sequence", "lengths - 1 - steps", "T - 1 - steps"),
    "Reshape": ("reshape", "n or x.shape[i]", "n"),
    "Gelu": ("gelu", '== "none"', '!= ""'), "ScatterND": ("_put", 'reduction == "add"', "False"),
}  # fmt: skip


@pytest.mark.parametrize("op", MUTANTS)
def test_a_wrong_operator_is_caught(op, monkeypatch):
    function, old, new = MUTANTS[op]
    mutated(monkeypatch, onnx_operators, function, old, new)
    if OPERATORS[op].__name__ == function:
        monkeypatch.setitem(OPERATORS, op, getattr(onnx_operators, function))
    caught = 0
    for each in [each for each in CASES if each.op == op]:
        try:
            test_as_onnx_runtime(each)
        except (AssertionError, TinygradError):
            caught += 1
    assert caught


@pytest.mark.parametrize("fmod", [0, 1])
def test_remainders_of_infinite_numbers(fmod):
    """As C's fmod, and as ONNX's text has it since opset 28; NumPy computes both."""
    inf = np.inf
    a = np.array([2.5, -2.5, 2.5, -2.5, 0.0, inf, 1.0, np.nan, 7.5], np.float32)
    b = np.array([inf, inf, -inf, -inf, inf, 2.0, np.nan, inf, -2.0], np.float32)
    with np.errstate(invalid="ignore"):
        wanted, found = (np.fmod if fmod else np.mod)(a, b), onnx_operators.modulo(a, b, fmod=fmod)
        tensors = onnx_operators.modulo(tg.tensor(a), tg.tensor(b), fmod=fmod).numpy()
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(tensors, wanted)


def test_the_newest_opset_is_read():
    graph = model([helper.make_node("Tanh", ["x"], ["y"])], {"x": A}, ["y"])
    graph.opset_import[0].version = onnx_operators.NEWEST
    np.testing.assert_allclose(from_onnx(graph)(A).numpy(), np.tanh(A), rtol=0, atol=1e-6)
    graph.opset_import[0].version += 1
    with pytest.raises(ConversionError, match="opset 29"):
        from_onnx(graph)
