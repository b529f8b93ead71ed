"""What ONNX models are held against: ONNX Runtime, and ONNX's text of its recurrent operators in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from golden.activations import formula

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


# -- graphs ------------------------------------------------------------------------------------------------------


def info(name: str, array: np.ndarray | None = None, shape: Sequence[Any] | None = None) -> Any:
    """What a graph says of an input or an output: the dtype of an array, and sizes that may be any."""
    if array is None:
        return onnx.ValueInfoProto(name=name)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    free = [f"{name}_{axis}" for axis in range(array.ndim)]
    return helper.make_tensor_value_info(name, kind, free if shape is None else shape)


def model(
    nodes: Sequence[Any], inputs: Mapping[str, np.ndarray], outputs: Sequence[str],
    weights: Mapping[str, np.ndarray] | None = None, opset: int = 22,
) -> Any:  # fmt: skip
    """A ModelProto of nodes; inputs: examples of what goes in."""
    arrays = [numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
              for name, array in (weights or {}).items()]  # fmt: skip
    graph = helper.make_graph(
        nodes, "graph", [info(*each) for each in inputs.items()], [info(o) for o in outputs], arrays
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def by_runtime(proto: Any, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime makes of it."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(inputs))


# -- recurrent nodes ---------------------------------------------------------------------------------------------


def arrays_for(
    op: str, rng: np.random.Generator, *, D: int = 1, T: int = 4, N: int = 3, I: int = 5, H: int = 2,
    dtype: Any = np.float32, peepholes: bool = False, lengths: bool = False, states: bool = True, bias: bool = True,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Random arrays for a node, in layout 0; no bias is zero, and neither is an initial state."""
    G = GATES[op]
    made = {"X": (T, N, I), "W": (D, G * H, I), "R": (D, G * H, H)}
    made |= {"B": (D, 2 * G * H)} if bias else {}
    if states:
        made |= {"initial_h": (D, N, H)} | ({"initial_c": (D, N, H)} if op == "LSTM" else {})
    if peepholes:
        made["P"] = (D, 3 * H)
    found = {name: rng.standard_normal(shape).astype(dtype) for name, shape in made.items()}
    if lengths:
        found["sequence_lens"] = np.array([T, *range(1, N)], np.int32)[:N]
    return found


def node_model(
    op: str, arrays: Mapping[str, np.ndarray], *, given: Sequence[str] = ("X",), opset: int = 22, **attributes: Any
) -> tuple[Any, dict[str, np.ndarray]]:  # fmt: skip
    """A graph of one recurrent node, and its inputs; given: which arrays are inputs, the others are in the file."""
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    names = [name if name in arrays else "" for name in INPUTS[: 8 if op == "LSTM" else 6]]
    node = helper.make_node(op, names, outputs, name="walk", hidden_size=arrays["R"].shape[-1], **attributes)
    inputs = {name: array for name, array in arrays.items() if name in given}
    weights = {name: array for name, array in arrays.items() if name not in given}
    return model([node], inputs, outputs, weights, opset), inputs


ALPHA = {"Affine": 1, "LeakyRelu": 0.01, "ThresholdedRelu": 1, "ScaledTanh": 1, "HardSigmoid": 0.2, "Elu": 1}
BETA = {"Affine": 0, "ScaledTanh": 1, "HardSigmoid": 0.5}


def by_the_text(
    op: str, arrays: Mapping[str, np.ndarray], *, direction: str = "forward", layout: int = 0,
    activations: Sequence[str] = (), activation_alpha: Sequence[float] = (), activation_beta: Sequence[float] = (),
    clip: float = np.inf, linear_before_reset: int = 0, input_forget: int = 0,
) -> list[np.ndarray]:  # fmt: skip
    """Y, Y_h and, of an LSTM, Y_c: sequence by sequence, step by step. Attributes are float32 in any file."""
    backwards = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}[direction]
    usual = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
    activations = list(activations) or usual[op] * len(backwards)
    alphas, betas = ([float(np.float32(x)) for x in given] for given in (activation_alpha, activation_beta))
    clip, functions = float(np.float32(clip)), []
    for name in activations:
        a = alphas.pop(0) if name in ALPHA and alphas else ALPHA.get(name, 0)
        b = betas.pop(0) if name in BETA and betas else BETA.get(name, 0)
        functions.append(formula(name, a, b))
    X, W, R = (arrays[name] for name in "XWR")
    first = lambda x: np.swapaxes(x, 0, 1) if layout else x  # noqa: E731
    X = first(X)
    T, N, H, D, G = *X.shape[:2], R.shape[-1], len(backwards), GATES[op]
    B, P = arrays.get("B", np.zeros((D, 2 * G * H))), arrays.get("P", np.zeros((D, 3 * H)))
    h_0, c_0 = (first(arrays.get(name, first(np.zeros((D, N, H))))) for name in ("initial_h", "initial_c"))
    lengths = arrays.get("sequence_lens", [T] * N)
    Y, Y_h, Y_c = np.zeros((T, D, N, H), X.dtype), h_0.copy(), c_0.copy()
    cut = lambda x: np.clip(x, -clip, clip)  # noqa: E731
    for d, n in np.ndindex(D, N):
        f, g, *rest = [*functions[d * len(functions) // D :], None]
        h, c = h_0[d, n], c_0[d, n]
        steps = range(lengths[n])
        for t in reversed(steps) if backwards[d] else steps:
            x = np.split(W[d] @ X[t, n] + B[d, : G * H], G)
            r = np.split(R[d] @ h + B[d, G * H :], G)
            if op == "RNN":
                h = f(cut(x[0] + r[0]))
            elif op == "GRU":
                update, reset = f(cut(x[0] + r[0])), f(cut(x[1] + r[1]))
                inner = reset * r[2] if linear_before_reset else R[d, 2 * H :] @ (reset * h) + B[d, 5 * H :]
                h = (1 - update) * g(cut(x[2] + inner)) + update * h
            else:
                p_i, p_o, p_f = np.split(P[d], 3)
                i = f(cut(x[0] + r[0] + p_i * c))
                forget = 1 - i if input_forget else f(cut(x[2] + r[2] + p_f * c))
                c = forget * c + i * g(cut(x[3] + r[3]))
                h = f(cut(x[1] + r[1] + p_o * c)) * rest[0](c)
            Y[t, d, n] = h
        Y_h[d, n], Y_c[d, n] = h, c
    if layout:
        return [Y.transpose(2, 0, 1, 3), first(Y_h), first(Y_c)][: 3 if op == "LSTM" else 2]
    return [Y, Y_h, Y_c][: 3 if op == "LSTM" else 2]
