"""The gate arithmetic of nn/gates.py as launches: one per step forward, and one back, beside the products.

The functions have the arguments of the methods that they stand for. Gates lie side by side here (`nn.layouts.Columns`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loader import Kernels

Step = Callable[..., None]


def row(a: Any) -> int:
    """How many numbers lie between two sequences."""
    return int(a.strides[-2] // a.itemsize)


def array(weights: Any) -> Any:
    """Weights as a kernel takes them: None where there are none."""
    return weights if hasattr(weights, "dtype") else None


def of_gates(kernels: Kernels) -> dict[str, Callable[..., Any]]:
    """The kernels by the names of the methods that they stand for."""
    launcher, scratch = kernels.launcher, kernels.scratch

    def products(xp: Any, layout: Any, G: int, like: Any) -> tuple[Callable[..., Any], Any]:
        room = scratch("p", (1, *like.shape[:1], G, *like.shape[1:]), like.dtype)
        return layout.product(xp), room.transpose(2, 0, 1, 3)[:, 0]

    def simple(name: str, G: int, option: str = "") -> Callable[..., Step]:
        """The step of a cell with one state and one product."""

        def forward(gates: Any, xp: Any, layout: Any, U: Any, b: Any, c: Any, like: Any) -> Step:
            product, p = products(xp, layout, G, like)
            launch, (N, H) = launcher("gates", f"{name}_forward", like), like.shape
            settings = (N, H, *_option(gates, option))
            biases = (array(b), array(c)) if name == "gru_after" else (array(b),)

            def step(a: Any, e: Any, state: Any, new: Any, outside: Any) -> None:
                product(state[0], U, p)
                launch(*settings, a, row(a), p, *biases, state[0], new[0], outside)

            return step

        return forward

    def gru_forward(gates: Any, xp: Any, layout: Any, U: Any, b: Any, c: Any, like: Any) -> Step:
        product, p = products(xp, layout, 3, like)
        first, second = (launcher("gates", name, like) for name in ("gru_reset", "gru_candidate"))
        reset, (N, H), (old,) = scratch("reset", like.shape, like.dtype), like.shape, _option(gates, "update")
        U_zr, U_n, p_zr, p_n, bias = U[:2], U[2:], p[:2], p[2:], array(b)

        def step(a: Any, e: Any, state: Any, new: Any, outside: Any) -> None:
            product(state[0], U_zr, p_zr)
            first(N, H, a, row(a), p, bias, state[0], reset, outside)
            product(reset, U_n, p_n)
            second(N, H, old, a, row(a), p, bias, state[0], new[0], outside)

        return step

    def lstm_forward(gates: Any, xp: Any, layout: Any, U: Any, b: Any, c: Any, like: Any) -> Step:
        product, p = products(xp, layout, 4, like)
        launch, (N, H), bias = launcher("gates", "lstm_forward", like), like.shape, array(b)

        def step(a: Any, e: Any, state: Any, new: Any, outside: Any) -> None:
            product(state[0], U, p)
            launch(N, H, a, row(a), p, bias, *state, *new, outside)

        return step

    def slopes(name: str, option: str = "") -> Callable[..., None]:
        def fill(gates: Any, xp: Any, a: Any, e: Any, before: Any, after: Any, d: Any, keep: Any) -> None:
            T, N, H = keep.shape
            launch, settings = launcher("gates", f"{name}_slopes", keep), (T * N, H, *_option(gates, option))
            if name == "rnn":
                launch(*settings, after[0], d, row(d))
            elif name == "lstm":
                launch(*settings, a, row(a), before[1], after[1], d, row(d), keep)
            else:
                launch(*settings, a, row(a), before[0], d, row(d), keep)

        return fill

    def linear_backward(gates: Any, xp: Any, layout: Any, U: Any, like: Any) -> Step:
        launch, (N, H), S = launcher("gates", "linear_backward", like), like.shape, len(gates.preactivations)
        back, keeps, first = layout.back(U), gates.packed != ("h",), S - len(gates.packed)

        def step(a: Any, d: Any, keep: Any, g: Any, grads: Any, outside: Any) -> None:
            launch(N, H, S, d, row(d), keep if keeps else None, g, grads[0], outside)
            back(d[first:], grads[0], True)

        return step

    def gru_backward(gates: Any, xp: Any, layout: Any, U: Any, like: Any) -> Step:
        first, second = (launcher("gates", name, like) for name in ("gru_backward", "gru_reset_backward"))
        (N, H), reset = like.shape, scratch("reset", like.shape, like.dtype)
        through_n, through_zr = layout.back(U[2:]), layout.back(U[:2])

        def step(a: Any, d: Any, keep: Any, g: Any, grads: Any, outside: Any) -> None:
            first(N, H, d, row(d), g, grads[0], outside)
            through_n(d[2:], reset, False)
            second(N, H, a, row(a), d, row(d), keep, reset, grads[0], outside)
            through_zr(d[:2], grads[0], True)

        return step

    def lstm_backward(gates: Any, xp: Any, layout: Any, U: Any, like: Any) -> Step:
        launch, (N, H), back = launcher("gates", "lstm_backward", like), like.shape, layout.back(U)

        def step(a: Any, d: Any, keep: Any, g: Any, grads: Any, outside: Any) -> None:
            launch(N, H, a, row(a), d, row(d), keep, g, *grads, outside)
            back(d, grads[0], True)

        return step

    table: dict[str, tuple[Callable[..., Any], ...]] = {
        "RNNGates": (simple("rnn", 1, "activation"), slopes("rnn", "activation"), linear_backward),
        "MinimalGRUGates": (simple("minimal_gru", 2), slopes("minimal_gru"), linear_backward),
        "GRUGates": (gru_forward, slopes("gru", "update"), gru_backward),
        "GRUAfterGates": (simple("gru_after", 3, "update"), slopes("gru_after", "update"), linear_backward),
        "LSTMGates": (lstm_forward, slopes("lstm"), lstm_backward),
    }
    methods = ("forward", "slopes", "backward")
    return {f"{cell}.{method}": f for cell, found in table.items() for method, f in zip(methods, found)}


def _option(gates: Any, name: str) -> tuple[int, ...]:
    """The option of a cell as its kernel takes it."""
    return (int(getattr(gates, name) in ("relu", "old")),) if name else ()
