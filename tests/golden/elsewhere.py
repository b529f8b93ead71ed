"""Cells of other libraries, each run on arrays that go by the names in the table of conventions.

A case runs x (T, N, I) from states (N, H), in the order that its library has them, and gives the outputs (T, N, H) and
the final states. It knows nothing of this package, so that libraries that cannot be installed beside it can be run by
another Python: `python elsewhere.py` reads what to run from its standard input and writes what came out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A cell of a library: what `packing` calls both, the options of the row, the package it needs, how it is run."""

    library: str
    cell: str
    package: str
    run: Callable[..., Any]
    reset: str | None = None
    activation: str = "tanh"
    tolerance: float = 1e-12


def stepwise(step):
    """A run of what takes one step: step(x, states) -> the hidden state and all states."""

    def run(x, states):
        outputs = []
        for each in x:
            h, states = step(each, states)
            outputs.append(np.asarray(h))
        return np.stack(outputs), [np.asarray(state) for state in states]

    return run


def torch_cell(name, **settings):
    def run(arrays, x, states):
        import torch

        cell = getattr(torch.nn, name)(x.shape[-1], states[0].shape[-1], dtype=torch.float64, **settings)
        cell.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()})

        def step(x, states):
            new = cell(torch.tensor(x), states if len(states) > 1 else states[0])
            states = list(new) if isinstance(new, tuple) else [new]
            return states[0].detach(), [state.detach() for state in states]

        return stepwise(step)(x, [torch.tensor(state) for state in states])

    return run


def by_names_of_torch(run):
    """cuDNN's arrays are those of torch under other names."""
    names = {"W": "weight_ih", "U": "weight_hh", "bW": "bias_ih", "bR": "bias_hh"}
    return lambda arrays, x, states: run({names[name]: array for name, array in arrays.items()}, x, states)


def keras_cell(name, **settings):
    def run(arrays, x, states):
        import keras

        keras.config.set_floatx("float64")
        cell = getattr(keras.layers, name)(states[0].shape[-1], **settings)
        cell.build(x.shape[1:])
        cell.set_weights([arrays["kernel"], arrays["recurrent_kernel"], arrays["bias"]])

        def step(x, states):
            h, states = cell(keras.ops.convert_to_tensor(x), [keras.ops.convert_to_tensor(each) for each in states])
            return keras.ops.convert_to_numpy(h), [keras.ops.convert_to_numpy(each) for each in states]

        return stepwise(step)(x, states)

    return run


def by_reference(model, given):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, given)


def by_onnxruntime(model, given):
    """It has these nodes in single precision only."""
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)


def onnx_node(name, evaluate=by_reference, dtype="float64", **attributes):
    def run(arrays, x, states):
        from onnx import helper

        given = {"X": x, **{key: array[None] for key, array in arrays.items()}}
        given |= dict(zip(("h", "c"), [state[None] for state in states]))
        given = {key: array.astype(dtype) for key, array in given.items()}
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        names = ["X", "W", "R", "B", "", "h", *(["c"] if len(states) > 1 else [])]
        results = ["Y", "Yh", *(["Yc"] if len(states) > 1 else [])]
        node = helper.make_node(name, names, results, hidden_size=states[0].shape[-1], **attributes)
        kinds = {key: helper.make_tensor_value_info(key, kind, None) for key in [*given, *results]}
        graph = helper.make_graph([node], name, [kinds[key] for key in given], [kinds[key] for key in results])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        output, *finals = evaluate(model, given)
        return output[:, 0], [final[0] for final in finals]

    return run


def nested(arrays):
    """{"a/b": array} as {"a": {"b": array}}."""
    found: dict[str, Any] = {}
    for path, array in arrays.items():
        layer, name = path.split("/")
        found.setdefault(layer, {})[name] = array
    return found


def in_double(run):
    """JAX computes in double precision if told so before it starts."""

    def inside(arrays, x, states):
        import jax

        with jax.enable_x64(True):
            return run(arrays, x, states)

    return inside


def flax_cell(name):
    def run(arrays, x, states):
        import flax.linen
        import jax.numpy as jnp

        cell = getattr(flax.linen, name)(features=states[0].shape[-1], param_dtype=jnp.float64)

        def step(x, states):
            carry, h = cell.apply({"params": nested(arrays)}, tuple(states) if len(states) > 1 else states[0], x)
            return h, list(carry) if len(states) > 1 else [carry]

        return stepwise(step)(x, list(map(jnp.asarray, states)))

    return in_double(run)


def nnx_cell(name):
    def run(arrays, x, states):
        import jax.numpy as jnp
        from flax import nnx

        cell = getattr(nnx, name)(x.shape[-1], states[0].shape[-1], param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        for path, array in arrays.items():
            layer, own = path.split("/")
            getattr(getattr(cell, layer), own).set_value(jnp.asarray(array))

        def step(x, states):
            carry, h = cell(states[0], jnp.asarray(x))
            return h, [carry]

        return stepwise(step)(x, list(map(jnp.asarray, states)))

    return in_double(run)


def equinox_cell(name):
    def run(arrays, x, states):
        import equinox
        import jax
        import jax.numpy as jnp

        cell = getattr(equinox.nn, name)(x.shape[-1], states[0].shape[-1], dtype=jnp.float64, key=jax.random.key(0))
        for own, array in arrays.items():
            assert getattr(cell, own).shape == array.shape
            cell = equinox.tree_at(lambda c, own=own: getattr(c, own), cell, jnp.asarray(array))

        def step(x, states):
            new = jax.vmap(cell)(jnp.asarray(x), tuple(states) if len(states) > 1 else states[0])
            states = list(new) if isinstance(new, tuple) else [new]
            return states[0], states

        return stepwise(step)(x, list(map(jnp.asarray, states)))

    return in_double(run)


def shapes(parameters):
    return {layer: {name: array.shape for name, array in own.items()} for layer, own in parameters.items()}


def haiku_core(name):
    def run(arrays, x, states):
        import haiku
        import jax
        import jax.numpy as jnp

        H = states[0].shape[-1]
        together = (lambda states: haiku.LSTMState(*states)) if len(states) > 1 else lambda states: states[0]
        core = haiku.without_apply_rng(haiku.transform(lambda x, s: getattr(haiku, name)(H, name="core")(x, s)))
        own = core.init(jax.random.PRNGKey(0), jnp.asarray(x[0]), together(states))
        parameters = nested({f"core/{key}" if "/" not in key else key: array for key, array in arrays.items()})
        parameters = {key if key == "core" else f"core/{key}": value for key, value in parameters.items()}
        assert shapes(own) == shapes(parameters), (shapes(own), shapes(parameters))

        def step(x, states):
            h, new = core.apply(parameters, jnp.asarray(x), together(states))
            return h, list(new) if len(states) > 1 else [new]

        return stepwise(step)(x, list(map(jnp.asarray, states)))

    return in_double(run)


def chainer_link(name, step):
    def run(arrays, x, states):
        import chainer

        chainer.config.dtype = np.float64
        link = getattr(chainer.links, name)(x.shape[-1], states[0].shape[-1])
        for path, array in arrays.items():
            layer, own = path.split("/")
            parameter = getattr(getattr(link, layer), own)
            assert parameter.shape == array.shape, (path, parameter.shape, array.shape)
            parameter.array[...] = array
        return stepwise(lambda x, states: step(link, x, states))(x, states)

    return run


def stateless_gru(link, x, states):
    h = link(states[0], x).array
    return h, [h]


def variables(states):
    import chainer

    return map(chainer.Variable, states)


def stateful_gru(link, x, states):
    link.set_state(*variables(states))
    h = link(x).array
    return h, [h]


def stateless_lstm(link, x, states):
    c, h = link(*states, x)
    return h.array, [c.array, h.array]


def stateful_lstm(link, x, states):
    link.set_state(*variables(states))
    h = link(x).array
    return h, [link.c.array, h]


def nstep(name):
    def run(arrays, x, states):
        import chainer

        chainer.config.dtype = np.float64
        link = getattr(chainer.links, name)(1, x.shape[-1], states[0].shape[-1], 0.0)
        for own, array in arrays.items():
            getattr(link[0], own).array[...] = array
        *finals, outputs = link(*[state[None] for state in states], list(x.swapaxes(0, 1).copy()))
        return np.stack([each.array for each in outputs], axis=1), [final.array[0] for final in finals]

    return run


CASES: dict[str, Case] = {
    "torch RNNCell tanh": Case("torch", "RNN", "torch", torch_cell("RNNCell")),
    "torch RNNCell relu": Case(
        "torch", "RNN", "torch", torch_cell("RNNCell", nonlinearity="relu"), activation="relu"),
    "torch GRUCell": Case("torch", "GRU", "torch", torch_cell("GRUCell")),
    "torch LSTMCell": Case("torch", "LSTM", "torch", torch_cell("LSTMCell")),
    "cudnn RNN tanh": Case("cudnn", "RNN", "torch", by_names_of_torch(torch_cell("RNNCell"))),
    "cudnn RNN relu": Case(
        "cudnn", "RNN", "torch", by_names_of_torch(torch_cell("RNNCell", nonlinearity="relu")), activation="relu"),
    "cudnn GRU": Case("cudnn", "GRU", "torch", by_names_of_torch(torch_cell("GRUCell"))),
    "cudnn LSTM": Case("cudnn", "LSTM", "torch", by_names_of_torch(torch_cell("LSTMCell"))),
    "keras SimpleRNNCell tanh": Case("keras", "RNN", "keras", keras_cell("SimpleRNNCell"), tolerance=1e-6),
    "keras SimpleRNNCell relu": Case(
        "keras", "RNN", "keras", keras_cell("SimpleRNNCell", activation="relu"), activation="relu", tolerance=1e-6),
    "keras GRUCell reset_after": Case(
        "keras", "GRU", "keras", keras_cell("GRUCell", reset_after=True), "after", tolerance=1e-6),
    "keras GRUCell": Case("keras", "GRU", "keras", keras_cell("GRUCell", reset_after=False), "before", tolerance=1e-6),
    "keras LSTMCell": Case("keras", "LSTM", "keras", keras_cell("LSTMCell"), tolerance=1e-6),
    "onnx RNN": Case("onnx", "RNN", "onnx", onnx_node("RNN")),
    "onnx RNN relu": Case(
        "onnx", "RNN", "onnxruntime", onnx_node("RNN", by_onnxruntime, "float32", activations=["Relu"]),
        activation="relu", tolerance=1e-6),
    "onnx GRU linear_before_reset=0": Case("onnx", "GRU", "onnx", onnx_node("GRU"), "before"),
    "onnx GRU linear_before_reset=1": Case("onnx", "GRU", "onnx", onnx_node("GRU", linear_before_reset=1), "after"),
    "onnx LSTM": Case("onnx", "LSTM", "onnx", onnx_node("LSTM")),
    "flax SimpleCell": Case("flax", "RNN", "flax", flax_cell("SimpleCell")),
    "flax GRUCell": Case("flax", "GRU", "flax", flax_cell("GRUCell")),
    "flax LSTMCell": Case("flax", "LSTM", "flax", flax_cell("LSTMCell")),
    "flax OptimizedLSTMCell": Case("flax", "LSTM", "flax", flax_cell("OptimizedLSTMCell")),
    "flax.nnx GRUCell": Case("flax.nnx", "GRU", "flax", nnx_cell("GRUCell")),
    "equinox GRUCell": Case("equinox", "GRU", "equinox", equinox_cell("GRUCell")),
    "equinox LSTMCell": Case("equinox", "LSTM", "equinox", equinox_cell("LSTMCell")),
    "haiku VanillaRNN": Case("haiku", "RNN", "haiku", haiku_core("VanillaRNN"), activation="relu"),
    "haiku GRU": Case("haiku", "GRU", "haiku", haiku_core("GRU")),
    "haiku LSTM": Case("haiku", "LSTM", "haiku", haiku_core("LSTM")),
    "chainer StatelessGRU": Case(
        "chainer", "GRU", "chainer", chainer_link("StatelessGRU", stateless_gru)),
    "chainer StatefulGRU": Case(
        "chainer", "GRU", "chainer", chainer_link("StatefulGRU", stateful_gru)),
    "chainer StatelessLSTM": Case(
        "chainer", "LSTM", "chainer", chainer_link("StatelessLSTM", stateless_lstm)),
    "chainer LSTM": Case(
        "chainer", "LSTM", "chainer", chainer_link("LSTM", stateful_lstm)),
    "chainer NStepRNNTanh": Case("chainer.nstep", "RNN", "chainer", nstep("NStepRNNTanh")),
    "chainer NStepRNNReLU": Case("chainer.nstep", "RNN", "chainer", nstep("NStepRNNReLU"), activation="relu"),
    "chainer NStepGRU": Case("chainer.nstep", "GRU", "chainer", nstep("NStepGRU")),
    "chainer NStepLSTM": Case("chainer.nstep", "LSTM", "chainer", nstep("NStepLSTM")),
}  # fmt: skip


def in_another_python(python: str, name: str, arrays, x, states):
    """A case run by the Python of this path."""
    told = {"name": name, "arrays": {k: v.tolist() for k, v in arrays.items()}, "x": x.tolist(),
            "states": [state.tolist() for state in states]}  # fmt: skip
    found = subprocess.run([python, "-W", "ignore", __file__], input=json.dumps(told), capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(found.stderr)
    output, finals = json.loads(found.stdout)
    return np.array(output), [np.array(final) for final in finals]


if __name__ == "__main__":
    told = json.load(sys.stdin)
    arrays = {name: np.array(values) for name, values in told["arrays"].items()}
    output, finals = CASES[told["name"]].run(arrays, np.array(told["x"]), [np.array(s) for s in told["states"]])
    json.dump([output.tolist(), [final.tolist() for final in finals]], sys.stdout)
