"""ONNX models and how they go wrong: valid ones, and messages like any other with fields that say something else."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from interop.fuzz import Format
from interop.onnx_oracles import GATES, arrays_for, helper, info, model, node_model, numpy_helper, onnx

from tinygrad_rnn.interop import from_onnx

NUMBERS = [-1, 0, 1, 2, 3, 5, 7, 16, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63)]
TEXTS = ["", "X", "W", "R", "Y", "\0", "GRU", "LSTM", "RNN", "Scan", "If", "Expand", "Reshape", "axis", "hidden_size",
         "body"]  # fmt: skip
ALTERED = {"RNN": ["Affine"], "GRU": ["HardSigmoid", "Tanh"], "LSTM": ["Sigmoid", "LeakyRelu", "Tanh"]}


def seeds() -> list[bytes]:
    """Nodes with many attributes and with none, computed weights, graphs in graphs."""
    rng, found = np.random.default_rng(0), []
    for op in GATES:
        plain = arrays_for(op, rng, states=False)
        rich = arrays_for(op, rng, D=2, lengths=True, peepholes=op == "LSTM")
        found.append(node_model(op, plain)[0])
        numbers = {"activation_alpha": [0.2, 0.3], "activation_beta": [0.4, 0.5]} if op != "LSTM" else {}
        activations = ALTERED[op] * 2
        found.append(node_model(op, rich, direction="bidirectional", activations=activations, clip=0.5, **numbers)[0])
    return [each.SerializeToString() for each in (*found, composed(rng))]


def composed(rng: np.random.Generator) -> Any:
    """Weights that are cut and filled, and a Scan with an If in its body."""
    arrays = arrays_for("GRU", rng, states=False)
    flag, one = numpy_helper.from_array(np.array([0])), numpy_helper.from_array(np.ones(1, np.float32))
    yes = helper.make_graph([helper.make_node("Neg", ["c"], ["q"])], "yes", [], [info("q")])
    no = helper.make_graph([helper.make_node("Exp", ["c"], ["r"])], "no", [], [info("r")])
    body = [
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("If", ["flag"], ["d"], then_branch=yes, else_branch=no),
    ]
    step = helper.make_graph(body, "step", [info("a"), info("b")], [info("c"), info("d")])
    nodes = [
        helper.make_node("Constant", [], ["first"], value=flag),
        helper.make_node("Slice", ["W", "first", "last", "first"], ["W_1"]),
        helper.make_node("Unsqueeze", ["W_1", "first"], ["W_2"]),
        helper.make_node("ConstantOfShape", ["sizes"], ["ones"], value=one),
        helper.make_node("Expand", ["ones", "sizes"], ["R"]),
        helper.make_node("GRU", ["X", "W_2", "R"], ["Y", "Y_h"], hidden_size=2, name="walk"),
        helper.make_node("Scan", ["h_0", "Y"], ["o", "p"], num_scan_inputs=1, body=step),
    ]
    inputs = {"X": arrays["X"], "h_0": np.zeros((1, 3, 2), np.float32), "flag": np.array(True)}
    weights = {"W": arrays["W"][0], "last": np.array([6]), "sizes": np.array([1, 6, 2])}
    return model(nodes, inputs, ["o", "p"], weights)


def _fields(message: Any) -> list[tuple[Any, Any]]:
    """All fields that are set in a message, and in those inside of it."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type:
            for each in value if field.is_repeated else [value]:
                found += _fields(each)
    return found


def edited(whole: bytes, chance: random.Random) -> bytes:
    """One to three fields changed, doubled or left out."""
    changed = onnx.load_from_string(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        message, field = chance.choice(_fields(changed))
        value = getattr(message, field.name)
        other = _other(chance, field)
        if field.message_type and not field.is_repeated:
            message.ClearField(field.name)
        elif not field.is_repeated:
            setattr(message, field.name, other)
        elif len(value) and chance.random() < 0.3:
            del value[chance.randrange(len(value))]
        elif len(value) and field.message_type:
            value.add().CopyFrom(value[chance.randrange(len(value))])
        elif len(value) and chance.random() < 0.5:
            value[chance.randrange(len(value))] = other
        elif not field.message_type:
            value.append(other)
    return changed.SerializeToString()


def _other(chance: random.Random, field: Any) -> Any:
    """Another value for a field, of its type."""
    if field.type == field.TYPE_BYTES:
        return chance.choice([b"", b"bidirectional", b"\xff", chance.randbytes(3)])
    if field.cpp_type == field.CPPTYPE_STRING:
        return chance.choice(TEXTS)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return chance.choice([0.0, -1.0, 1e30, float("nan"), float("inf")])
    if field.enum_type:
        return chance.choice(list(field.enum_type.values_by_number))
    small = field.cpp_type == field.CPPTYPE_INT32
    number = chance.choice([n for n in NUMBERS if not small or -(2**31) <= n < 2**31])
    return abs(number) if field.cpp_type == field.CPPTYPE_UINT64 else number


FORMAT = Format(seeds, edited, ".onnx", from_onnx)
