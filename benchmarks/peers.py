"""One recurrent layer in every library: the same weights, the same function, a forward and a backward pass.

A layer of T, N, I, H: x (T, N, I) and weights W (I, G*H), U (H, G*H), b (G*H) of G gates, packed as ours are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
Shape = tuple[int, int, int, int]
SIZES: dict[str, Shape] = {
    "learner": (20, 8, 16, 32),
    "charrnn": (64, 32, 64, 128),
    "medium": (100, 64, 128, 256),
    "large": (64, 64, 512, 512),
}


# -- the cells, for whatever has operators. a: x W + b by gate. u(h, gates): h U by gate. c: the recurrent bias -------


class Functions(NamedTuple):
    """What a library calls its functions; one: a 1 that leaves float32 alone."""

    sigmoid: Callable[[Any], Any]
    tanh: Callable[[Any], Any]
    one: Any = 1


def rnn(a: Any, state: Any, u: Any, c: Any, f: Functions) -> Any:
    (uh,) = u(state[0], "h")
    return (f.tanh(a[0] + uh),)


def minimal_gru(a: Any, state: Any, u: Any, c: Any, f: Functions) -> Any:
    (h,), (az, an) = state, a
    uz, un = u(h, "zn")
    z, n = f.sigmoid(az + uz), f.tanh(an + un)
    return (z * n + (f.one - z) * h,)


def gru_before(a: Any, state: Any, u: Any, c: Any, f: Functions) -> Any:
    (h,), (az, ar, an) = state, a
    uz, ur = u(h, "zr")
    z, r = f.sigmoid(az + uz), f.sigmoid(ar + ur)
    (un,) = u(r * h, "n")
    return (z * f.tanh(an + un) + (f.one - z) * h,)


def gru_after(a: Any, state: Any, u: Any, c: Any, f: Functions) -> Any:
    (h,), (az, ar, an) = state, a
    uz, ur, un = u(h, "zrn")
    z, r = f.sigmoid(az + uz), f.sigmoid(ar + ur)
    return ((f.one - z) * f.tanh(an + r * (un + c)) + z * h,)


def lstm(a: Any, state: Any, u: Any, c: Any, f: Functions) -> Any:
    (h, cell), (ai, af, ag, ao) = state, a
    ui, uf, ug, uo = u(h, "ifgo")
    cell = f.sigmoid(af + uf) * cell + f.sigmoid(ai + ui) * f.tanh(ag + ug)
    return f.sigmoid(ao + uo) * f.tanh(cell), cell


class Cell(NamedTuple):
    """A cell: its gates in the order of packing, one step, and what the libraries call it.

    together: which gates' products with h are one product. torch: the name of torch's layer; its order of gates.
    """

    gates: str
    step: Callable[..., Any]
    ours: str
    options: dict[str, Any]
    together: tuple[str, ...]
    torch: tuple[str, str] | None
    states: int = 1


TORCH_GRU = {"reset": "after", "update": "old", "recurrent_bias": True}
CELLS = {
    "RNN": Cell("h", rnn, "RNN", {}, ("h",), ("RNN", "h")),
    "MinimalGRU": Cell("zn", minimal_gru, "MinimalGRU", {}, ("zn",), None),
    "GRU": Cell("zrn", gru_before, "GRU", {}, ("zr", "n"), ("GRU", "rzn")),
    "GRU after": Cell("zrn", gru_after, "GRU", TORCH_GRU, ("zrn",), ("GRU", "rzn")),
    "LSTM": Cell("ifgo", lstm, "LSTM", {}, ("ifgo",), ("LSTM", "ifgo"), states=2),
}


def arrays(cell: Cell, shape: Shape) -> Arrays:
    """x, the weights, and the gradient g that comes in for the outputs; float32, the same for every peer."""
    T, N, I, H = shape  # noqa: E741
    G, rng = len(cell.gates), np.random.default_rng(0)
    shapes = {"W": (I, G * H), "U": (H, G * H), "b": (G * H,)} | ({"c": (H,)} if cell.step is gru_after else {})
    made = {name: (2 * rng.random(size, np.float32) - 1) / np.float32(np.sqrt(H)) for name, size in shapes.items()}
    return made | {name: rng.standard_normal((T, N, last), np.float32) for name, last in (("x", I), ("g", H))}


class Case(NamedTuple):
    """What is timed: `forward` records for a backward pass, `both` leaves no gradient out; `found` names the results.

    found: the output y and the gradients of x, W, U, b (and c), in our layout; None for what is no layer.
    """

    forward: Callable[[], Any]
    both: Callable[[], Any]
    found: Callable[[], Arrays] | None


def outputs(cell: Cell, inputs: Iterable[Any], u: Callable[..., Any], zeros: Any, c: Any, f: Functions) -> list[Any]:
    """The cell over time."""
    state, found = (zeros,) * cell.states, []
    for a in inputs:
        state = cell.step(a, state, u, c, f)
        found.append(state[0])
    return found


def apart(cell: Cell, a: Arrays, leaf: Callable[[np.ndarray], Any]) -> dict[str, list[Any]]:
    """Leaves as code that goes operation by operation has them: x by step, the weights by gate."""
    G = len(cell.gates)
    found = {name: [leaf(part.copy()) for part in np.split(a[name], G, axis=-1)] for name in "WUb"}
    return {"x": [leaf(x) for x in a["x"]], **found} | ({"c": [leaf(a["c"])]} if "c" in a else {})


def op_by_op(cell: Cell, leaves: dict[str, list[Any]], zeros: Any, f: Functions) -> list[Any]:
    """The outputs by step, from leaves that lie apart."""
    gates = range(len(cell.gates))
    W, b, U, (c,) = leaves["W"], leaves["b"], dict(zip(cell.gates, leaves["U"])), leaves.get("c", [None])
    inputs = ([x @ W[g] + b[g] for g in gates] for x in leaves["x"])
    return outputs(cell, inputs, lambda h, gates: [h @ U[g] for g in gates], zeros, c, f)


def joined(gradients: dict[str, list[Any]]) -> Arrays:
    """Gradients that lie apart, in our layout."""
    return {
        name: np.stack(parts) if name == "x" and len(parts) > 1 else np.concatenate(parts, axis=-1)
        for name, parts in gradients.items()
    }


def taped(
    forward: Callable[[], Any],
    leaves: dict[str, list[Any]],
    backward: Callable[[Any], Any],
    layout: Callable[[dict[str, list[Any]]], Arrays] = joined,
    array: Callable[[Any], np.ndarray] = np.asarray,
) -> Case:
    """The case of a library whose leaves collect their gradients in `.grad`."""
    every = [leaf for parts in leaves.values() for leaf in parts]

    def both() -> Any:
        for leaf in every:
            leaf.grad = None
        y = forward()
        backward(y)
        return y

    def found() -> Arrays:
        y = both()
        return {"y": array(y)} | layout({name: [array(p.grad) for p in parts] for name, parts in leaves.items()})

    return Case(forward, both, found)


# -- the libraries ---------------------------------------------------------------------------------------------------


def ours(cell: Cell, a: Arrays, **options: Any) -> Case:
    """tinygrad_rnn's layer; options: of the layer, besides the cell's."""
    import tinygrad_rnn as tg

    layer = getattr(tg.nn, cell.ours)(a["x"].shape[2], a["U"].shape[0], **cell.options, **options)
    weights = {name: getattr(layer.cells[0], name) for name in "WUbc" if name in a}
    for name, weight in weights.items():
        weight.assign_(a[name])
    x, g = tg.tensor(a["x"], requires_grad=True), tg.tensor(a["g"])
    leaves = {"x": [x]} | {name: [weight] for name, weight in weights.items()}
    return taped(
        lambda: layer(x)[0], leaves, lambda y: y.backward(g, retain_graph=False), array=lambda tensor: tensor.numpy()
    )


def _torch() -> Any:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return torch


def torch_own(cell: Cell, a: Arrays, whole: bool) -> Case:
    """torch's layer, or a loop over its cell."""
    torch = _torch()
    name, order = cell.torch
    H, I, G = a["U"].shape[0], a["x"].shape[2], len(order)  # noqa: E741
    module = getattr(torch.nn, name if whole else f"{name}Cell")(I, H)
    to_torch = np.concatenate([np.arange(H) + H * cell.gates.index(gate) for gate in order])
    to_ours = np.argsort(to_torch)
    recurrent_bias = np.zeros(G * H, np.float32)  # where ours has only c, torch has a second bias for every gate
    if "c" in a:
        recurrent_bias[-H:] = a["c"]
    given = {"weight_ih": a["W"][:, to_torch].T, "weight_hh": a["U"][:, to_torch].T}
    given |= {"bias_ih": a["b"][to_torch], "bias_hh": recurrent_bias}
    weights = {name: getattr(module, name + "_l0" * whole) for name in given}
    with torch.no_grad():
        for name, array in given.items():
            weights[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))
    x, g = torch.tensor(a["x"], requires_grad=True), torch.tensor(a["g"])

    def loop() -> Any:
        state, found = None, []
        for step in x.unbind():
            state = module(step, state)
            found.append(state[0] if cell.states > 1 else state)
        return torch.stack(found)

    def layout(gradients: dict[str, list[Any]]) -> Arrays:
        of = {name: parts[0] for name, parts in gradients.items()}
        found = {"x": of["x"], "W": of["weight_ih"].T[:, to_ours], "U": of["weight_hh"].T[:, to_ours]}
        return found | {"b": of["bias_ih"][to_ours]} | ({"c": of["bias_hh"][-H:]} if "c" in a else {})

    leaves = {"x": [x]} | {name: [weight] for name, weight in weights.items()}
    array = lambda tensor: tensor.detach().numpy()  # noqa: E731
    return taped((lambda: module(x)[0]) if whole else loop, leaves, lambda y: y.backward(g), layout, array)


def torch_op_by_op(cell: Cell, a: Arrays) -> Case:
    torch = _torch()
    leaves = apart(cell, a, lambda array: torch.tensor(array, requires_grad=True))
    x = torch.tensor(a["x"], requires_grad=True)
    leaves["x"], g, zeros = [x], torch.tensor(a["g"]), torch.zeros(a["g"].shape[1:])

    def forward() -> Any:
        return torch.stack(op_by_op(cell, {**leaves, "x": x.unbind()}, zeros, Functions(torch.sigmoid, torch.tanh)))

    return taped(forward, leaves, lambda y: y.backward(g), array=lambda tensor: tensor.detach().numpy())


def torch_compile(cell: Cell, a: Arrays) -> Case:
    """torch.compile of the loop in its best form: one product for all inputs, and one a step where the cell allows."""
    torch = _torch()
    torch.compiler.reset()  # else all cells count as recompilations of one function, of which there may be eight
    cuts = np.cumsum([len(gates) * a["U"].shape[0] for gates in cell.together])[:-1]
    leaves = {name: [a[name]] for name in "xWbc" if name in a} | {"U": np.split(a["U"], cuts, axis=-1)}
    leaves = {name: [torch.tensor(p, requires_grad=True) for p in parts] for name, parts in leaves.items()}
    g, zeros, f = torch.tensor(a["g"]), torch.zeros(a["g"].shape[1:]), Functions(torch.sigmoid, torch.tanh)

    @torch.compile(fullgraph=True, dynamic=False)
    def layer(x: Any, W: Any, b: Any, c: Any, *U: Any) -> Any:
        inputs = (step.chunk(len(cell.gates), -1) for step in (x @ W + b).unbind())
        products = dict(zip(cell.together, U))
        u = lambda h, gates: (h @ products[gates]).chunk(len(gates), -1)  # noqa: E731
        return torch.stack(outputs(cell, inputs, u, zeros, c, f))

    (x,), (W,), (b,), (c,) = leaves["x"], leaves["W"], leaves["b"], leaves.get("c", [None])
    array = lambda tensor: tensor.detach().numpy()  # noqa: E731
    return taped(lambda: layer(x, W, b, c, *leaves["U"]), leaves, lambda y: y.backward(g), array=array)


def jax_scan(cell: Cell, a: Arrays) -> Case:
    """jax.jit of the loop in its best form, by lax.scan."""
    import jax
    from jax import numpy as jnp

    H, G = a["U"].shape[0], len(cell.gates)
    starts = np.cumsum([0, *(len(gates) * H for gates in cell.together)])
    p = {name: jnp.asarray(a[name]) for name in "xWbc" if name in a}
    p |= {gates: jnp.asarray(a["U"][:, s : s + len(gates) * H]) for gates, s in zip(cell.together, starts)}
    g, f = jnp.asarray(a["g"]), Functions(jax.nn.sigmoid, jnp.tanh)

    def layer(p: Any) -> Any:
        def u(h: Any, gates: str) -> Any:
            return jnp.split(h @ p[gates], len(gates), axis=-1)

        def step(state: Any, inputs: Any) -> Any:
            state = cell.step(jnp.split(inputs, G, axis=-1), state, u, p.get("c"), f)
            return state, state[0]

        return jax.lax.scan(step, (jnp.zeros(g.shape[1:]),) * cell.states, p["x"] @ p["W"] + p["b"])[1]

    @jax.jit
    def recorded(p: Any) -> Any:
        return jax.vjp(layer, p)

    @jax.jit
    def pulled(p: Any, g: Any) -> Any:
        y, pull = jax.vjp(layer, p)
        return y, pull(g)[0]

    def both() -> Any:
        return jax.block_until_ready(pulled(p, g))

    def found() -> Arrays:
        y, of = both()
        gradients = {name: [of[name]] for name in "xWbc" if name in of} | {"U": [of[k] for k in cell.together]}
        return {"y": np.asarray(y)} | joined(gradients)

    return Case(lambda: jax.block_until_ready(recorded(p)), both, found)


def hips_op_by_op(cell: Cell, a: Arrays) -> Case:
    """HIPS autograd, which has no tensors: its forward pass is that of `make_vjp`."""
    from autograd import make_vjp
    from autograd import numpy as anp

    leaves, zeros = apart(cell, a, np.asarray), np.zeros_like(a["g"][0])
    f = Functions(lambda v: 0.5 * anp.tanh(0.5 * v) + 0.5, anp.tanh)
    forward = partial(make_vjp(lambda leaves: anp.stack(op_by_op(cell, leaves, zeros, f))), leaves)

    def both() -> Any:
        pull, y = forward()
        return y, pull(a["g"])

    def found() -> Arrays:
        y, gradients = both()
        return {"y": y} | joined(gradients)

    return Case(forward, both, found)


def mygrad_op_by_op(cell: Cell, a: Arrays) -> Case:
    """MyGrad, with its memory guard as it comes; it clears gradients by itself."""
    import mygrad as mg

    leaves, zeros = apart(cell, a, mg.tensor), np.zeros_like(a["g"][0])
    half, one = (mg.tensor(np.float32(number), constant=True) for number in (0.5, 1))
    f = Functions(lambda v: half * mg.tanh(half * v) + half, mg.tanh, one)
    forward = lambda: mg.stack(op_by_op(cell, leaves, zeros, f))  # noqa: E731

    def both() -> Any:
        y = forward()
        y.backward(a["g"])
        return y

    def found() -> Arrays:
        y = both()
        return {"y": np.asarray(y)} | joined({name: [p.grad for p in parts] for name, parts in leaves.items()})

    return Case(forward, both, found)


def matrix_products(cell: Cell, a: Arrays) -> Case:
    """The floor: the bare matrix products of the passes into buffers, by NumPy's BLAS."""
    T, N, I = a["x"].shape  # noqa: E741
    W, U, X, h = a["W"], a["U"], a["x"].reshape(T * N, I), a["g"]
    U_turned, W_turned = np.ascontiguousarray(U.T), np.ascontiguousarray(W.T)  # views of these would be slower
    D = np.ones((T, N, U.shape[1]), np.float32)
    A, u, dh = np.empty_like(D), np.empty_like(D[0]), np.empty_like(h[0])
    dX, dW, dU = (np.empty_like(each) for each in (X, W, U))

    def forward() -> None:
        np.matmul(X, W, out=A.reshape(T * N, -1))
        for t in range(T):
            np.matmul(h[t], U, out=u)

    def both() -> None:
        forward()
        for t in range(T):
            np.matmul(D[t], U_turned, out=dh)
        rows = D.reshape(T * N, -1)
        np.matmul(rows, W_turned, out=dX)
        np.matmul(X.T, rows, out=dW)
        np.matmul(h.reshape(T * N, -1).T, rows, out=dU)

    return Case(forward, both, None)


class Peer(NamedTuple):
    """A library, and how it is asked for a layer; sizes: at which ones it is worth its time, all if left out."""

    package: str
    build: Callable[[Cell, Arrays], Case]
    sizes: Sequence[str] = tuple(SIZES)


OURS, FLOOR = "tinygrad_rnn", "matrix products"
PEERS = {
    OURS: Peer("tinygrad_rnn", ours),
    "op by op": Peer("tinygrad_rnn", partial(ours, fused=False)),
    "torch layer": Peer("torch", partial(torch_own, whole=True)),
    "torch cells": Peer("torch", partial(torch_own, whole=False)),
    "torch op by op": Peer("torch", torch_op_by_op),
    "torch.compile": Peer("torch", torch_compile, ("learner", "charrnn")),
    "jax scan": Peer("jax", jax_scan),
    "autograd op by op": Peer("autograd", hips_op_by_op, ("learner", "charrnn", "medium")),
    "mygrad op by op": Peer("mygrad", mygrad_op_by_op, ("learner", "charrnn")),
    FLOOR: Peer("numpy", matrix_products),
}


def has(peer: str, cell: str) -> bool:
    """Whether the peer has such a cell: torch has no minimal GRU."""
    return CELLS[cell].torch is not None or peer not in ("torch layer", "torch cells")


def same_function(peer: str, cell: str) -> bool:
    """Whether the peer's outcome can be held against ours: torch's own GRU resets after the product, ours before."""
    return peer != FLOOR and not (cell == "GRU" and peer in ("torch layer", "torch cells"))
