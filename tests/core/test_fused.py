"""Fused primitives in the engine: derivatives by hand and by reference, what is wanted, kept and refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn.backend import NAMESPACE_OF
from tinygrad_rnn.core import autodiff
from tinygrad_rnn.core.autodiff import Part
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.errors import GradcheckError, GraphError, ModifiedError, NumericalError, PrimitiveError, ShapeError

X, W = np.arange(1.0, 7.0).reshape(2, 3) / 4, np.array([0.5, -1.25, 2.0])
seen: list[Any] = []  # what the backward pass below was given: the gradient, and what is wanted


def by_operations(x: Any, w: Any, *, scale: float = 1.0) -> Any:
    return (x * w * w).sum(axis=0) * scale


def backward(xp: Any, g: Any, y: Any, saved: Any, x: Any, w: Any, *, wanted: Any, scale: float) -> tuple[Any, ...]:
    seen.append((g, wanted))
    g = g.whole() if type(g) is Part else g
    squared, times = saved
    dx = g * squared * scale + xp.zeros(x.shape, x.dtype) if wanted[0] else None
    return dx, g * times.sum(axis=0) * 2 * scale if wanted[1] else None


def forward(xp: Any, x: Any, w: Any, *, scale: float = 1.0) -> Any:
    """The sum over the rows of x w^2, times a number."""
    return (x * w * w).sum(axis=0) * scale, (w * w, x * w)


def define(**changes: Any) -> Any:
    """A fused primitive, with some of its parts replaced."""
    parts: dict[str, Any] = {"kernel": forward, "reference": by_operations, "vjp": backward, "kind": "general"}
    parts |= changes
    kernel, kind = parts.pop("kernel"), parts.pop("kind")
    return tg.primitive(kind, **parts)(kernel)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    seen.clear()
    yield
    PRIMITIVES.pop("forward", None)


def leaves(backend: str = "numpy") -> tuple[tg.Tensor, tg.Tensor]:
    return tuple(tg.tensor(a, requires_grad=True, backend=backend, name=n) for a, n in ((X, "x"), (W, "w")))  # type: ignore[return-value]


# -- derivatives ---------------------------------------------------------------------------------------------


def test_value_and_derivatives_of_every_order_both_ways(backend: str) -> None:
    fused = define()
    tg.gradcheck(fused, *[tg.tensor(a) for a in (X, W)], order=3)
    tg.gradcheck(lambda x, w: tg.tanh(fused(x, w) * fused(x, w * 2.0, scale=3.0)), X, W, order=2)
    y = fused(tg.tensor(X), tg.tensor(W), scale=2.0)
    np.testing.assert_allclose(y.numpy(), (X * W * W).sum(0) * 2, rtol=1e-14)
    assert y.backend == backend


def test_one_tensor_in_both_places() -> None:
    def product_back(xp: Any, g: Any, y: Any, saved: Any, x: Any, w: Any, *, wanted: Any) -> Any:
        return g * w * w, 2 * g * x * w

    @tg.primitive("general", reference=lambda x, w: x * w * w, vjp=product_back)
    def forward(xp: Any, x: Any, w: Any) -> Any:
        return x * w * w, None

    tg.gradcheck(lambda x: forward(x, x), X, order=2)
    x = tg.tensor(X, requires_grad=True)
    forward(x, x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * X**2, rtol=1e-14)  # type: ignore[union-attr]


def test_transforms_give_what_the_reference_gives() -> None:
    fused = define()
    run: list[Callable[[Any], Any]] = [
        lambda f: tg.jvp(lambda x: f(x, W), [X], [X * 0.3])[1],
        lambda f: tg.jvp(f, [tg.tensor(X), tg.tensor(W)], [tg.tensor(X), tg.tensor(W * 0.5)])[1],
        lambda f: tg.hvp(lambda w: (f(tg.tensor(X), w) ** 2).sum(), W, W * 0.1),
        lambda f: tg.jacobian(lambda w: f(tg.tensor(X), w))(W),
        lambda f: tg.hessian(lambda w: f(tg.tensor(X), w).sum())(W),
        lambda f: tg.grad(lambda x: tg.checkpoint(lambda x: f(x, tg.tensor(W)), x).sum())(X),
    ]
    for each in run:
        np.testing.assert_allclose(each(fused).numpy(), each(by_operations).numpy(), rtol=1e-12)


def test_first_derivatives_take_the_fast_path_and_recorded_ones_the_reference() -> None:
    fused = define()
    x, w = leaves()
    y = fused(x, w).sum()
    assert [node.op.name for node in tg.tape(y) if node.op] == ["sum", "forward"]
    tg.pullback(y, [x, w])
    assert len(seen) == 1
    d = tg.pullback(y, [w], create_graph=True)[0]
    assert len(seen) == 1 and {node.op.name for node in tg.tape(d) if node.op} >= {"mul", "sum_to", "alias"}


def test_a_reference_that_does_not_use_an_argument_gives_it_zeros() -> None:
    def half(x: Any, w: Any, *, scale: float = 1.0) -> Any:
        return x.sum(axis=0) * scale

    fused = define(reference=half)
    x, w = leaves()
    assert (tg.pullback(fused(x, w).sum(), [w], create_graph=True)[0].numpy() == 0).all()


def test_bare_arrays_and_symbols() -> None:
    class Symbol:
        def __apply_primitive__(self, op: Any, args: Any, options: Any) -> str:
            return f"{op.name} {options}"

    fused = define()
    y = fused(X, W)
    assert type(y) is np.ndarray and y.tolist() == (X * W * W).sum(0).tolist()  # without what is saved
    assert fused(Symbol(), W) == "forward {'scale': 1.0}"
    assert fused(X.tolist(), tg.tensor(W)).shape == (3,)


# -- what is wanted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learned", [(True, True), (True, False), (False, True)])
def test_the_backward_pass_is_told_what_is_wanted(learned: tuple[bool, bool]) -> None:
    fused = define()
    x, w = (tg.tensor(a, requires_grad=yes) for a, yes in zip((X, W), learned))
    y = fused(x, w).sum()
    y.backward()
    assert [wanted for _, wanted in seen] == [learned]
    assert [t.grad is not None for t in (x, w)] == list(learned)


def test_what_a_pullback_does_not_ask_for_is_not_wanted() -> None:
    fused = define()
    x, w = leaves()
    y = fused(x * 2.0, w).sum()
    for wrt, wanted in (([x], (True, False)), ([w], (False, True)), ([x, w], (True, True))):
        seen.clear()
        tg.pullback(y, wrt)
        assert [flags for _, flags in seen] == [wanted]


def test_numbers_and_what_became_a_parameter_later_are_not_wanted() -> None:
    fused = define()
    x, w = tg.tensor(X, requires_grad=True), tg.tensor(W)
    y, z = fused(x, w).sum(), fused(x, 1.5, scale=2.0).sum()
    w.requires_grad = True
    y.backward()
    z.backward()
    assert [wanted for _, wanted in seen] == [(True, False)] * 2 and w.grad is None


# -- parts of gradients ---------------------------------------------------------------------------------------


def test_a_sparse_one_receives_the_gradient_of_a_slice_as_it_comes() -> None:
    fused = define(sparse=True)
    x, w = leaves()
    y = fused(x, w)
    expected = [d.numpy() for d in tg.pullback(y, [x, w], np.array([0.0, 1.0, 1.0]))]
    y[1:3].sum().backward()
    g, _ = seen[-1]
    assert type(g) is Part and (g.shape, g.index, g.dtype) == ((3,), (slice(1, 3),), np.float64)
    assert g.g.tolist() == [1, 1] and g.whole().tolist() == [0, 1, 1]
    for tensor, wanted in zip((x, w), expected):
        np.testing.assert_array_equal(tensor.grad.numpy(), wanted)  # type: ignore[union-attr]


def whole_gradients(use: Callable[[tg.Tensor], Any], sparse: bool = True) -> Any:
    """The gradient that the backward pass is given."""
    fused = define(sparse=sparse)
    x, w = leaves()
    y = fused(x, w)
    use(y)
    return seen[-1][0]


USES: dict[str, Callable[[tg.Tensor], Any]] = {
    "a hook": lambda y: (y.register_hook(lambda g: g * 2.0), y[1:3].sum().backward()),
    "retain_grad": lambda y: (y.retain_grad(), y[1:3].sum().backward()),
    "a target": lambda y: tg.pullback(y[1:3].sum(), [y, y.inputs[0]]) and y.sum().backward(),  # type: ignore[index]
    "two uses": lambda y: (y[1:3].sum() + (y * 2.0).sum()).backward(),
    "two uses, the slice last": lambda y: ((y * 2.0).sum() + y[1:3].sum()).backward(),
    "two slices": lambda y: (y[1:3].sum() + y[:2].sum()).backward(),
    "another dtype": lambda y: y.astype("float32")[1:3].sum().backward(),
    "recorded": lambda y: tg.pullback(y[1:3].sum(), [y.inputs[0]], create_graph=True) and y.sum().backward(),  # type: ignore[index]
}


@pytest.mark.parametrize("use", USES)
def test_parts_become_whole_where_somebody_looks_or_adds(use: str) -> None:
    g = whole_gradients(USES[use])
    assert type(g) is np.ndarray and g.shape == (3,)
    expected = {"a hook": [0, 2, 2], "two uses": [2, 3, 3], "two uses, the slice last": [2, 3, 3],
                "two slices": [1, 2, 1], "a target": [1, 1, 1], "recorded": [1, 1, 1]}  # fmt: skip
    assert g.tolist() == expected.get(use, [0, 1, 1])


def test_parts_become_whole_under_debug() -> None:
    fused = define(sparse=True)
    x, w = leaves()
    with tg.debug():
        fused(x, w)[1:3].sum().backward()
    assert type(seen[-1][0]) is np.ndarray


def test_a_target_gets_its_whole_gradient() -> None:
    fused = define(sparse=True)
    x, w = leaves()
    y = fused(x, w)
    for other in ([], [x]):
        assert tg.pullback(y[1:3].sum(), [y, *other])[0].tolist() == [0, 1, 1]


def test_one_that_is_not_sparse_never_sees_a_part() -> None:
    assert type(whole_gradients(lambda y: y[1:3].sum().backward(), sparse=False)) is np.ndarray


# -- what is kept ---------------------------------------------------------------------------------------------


def test_what_is_saved_stays_until_the_graph_is_freed() -> None:
    fused = define()
    x, w = leaves()
    y = fused(x, w)
    loss = y.sum()
    loss.backward()
    assert y.saved is not None
    loss.backward(retain_graph=False)
    assert y.saved is None and y.inputs is None
    with pytest.raises(GraphError, match="freed"):
        y.backward(np.ones(3))


def test_without_recording_nothing_is_saved() -> None:
    fused = define()
    x, w = leaves()
    with tg.no_grad():
        y = fused(x, w)
        assert y.op is None and not y.requires_grad and y.saved is None
        with tg.enable_grad():
            assert fused(x, w).saved is not None
    assert fused(tg.tensor(X), tg.tensor(W)).saved is None
    assert fused(tg.tensor(X.astype(int)), tg.tensor([1, 2, 3])).op is None


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_changed_input_is_noticed(place: int, recorded: bool) -> None:
    fused = define()
    given = leaves()
    y = fused(*given).sum()
    given[place].assign_(1.0)
    with pytest.raises(ModifiedError, match=rf"forward used {'xw'[place]} \(.*changed afterwards"):
        tg.pullback(y, [given[0]], create_graph=recorded)
    with pytest.raises(ModifiedError):
        y.backward()


def test_threads_each_go_their_own_way() -> None:
    fused = define()
    x, w = leaves()
    found: dict[str, Any] = {}
    both = threading.Barrier(2, timeout=10)

    def work(name: str, recording: bool) -> None:
        with tg.enable_grad() if recording else tg.no_grad():
            both.wait()
            for _ in range(50):
                y = fused(x, w)
                found[name] = tg.pullback(y.sum(), [w])[0].tolist() if recording else y.saved
            both.wait()

    threads = [threading.Thread(target=work, args=args) for args in (("on", True), ("off", False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"on": tg.pullback(fused(x, w).sum(), [w])[0].tolist(), "off": None}


def test_under_debug_a_bad_result_and_a_bad_gradient_are_named() -> None:
    fused = define()
    x, w = leaves()
    with tg.debug(), np.errstate(all="ignore"):
        with pytest.raises(NumericalError, match=r"forward of x \(2, 3\) .* made inf"):
            fused(x, w * 1e160 * 1e60)
        y = define(vjp=lambda xp, g, y, saved, x, w, **_: (g * xp.ones(x.shape), g / 0.0))(x, w).sum()
        with pytest.raises(
            NumericalError, match=r"the derivative of forward for w \(3,\) float64 at test_fused\.py:\d+"
        ):
            y.backward()


# -- whose the gradients are -----------------------------------------------------------------------------------


def unasked_back(xp: Any, g: Any, y: Any, saved: Any, a: Any, b: Any, *, wanted: Any) -> Any:
    return g * 1.0, xp.ones(())


def test_no_two_leaves_share_a_gradient_and_all_uses_add_up() -> None:
    fused = define()
    a, b = (tg.tensor(W, requires_grad=True) for _ in range(2))
    x = tg.tensor(X)
    y = fused(x, a) + fused(x, a, scale=2.0) + fused(x, b) * 3.0
    seed = tg.tensor(np.ones(3))
    for times in (1, 2):
        y.backward(seed)
        for tensor in (a, b):
            np.testing.assert_allclose(tensor.grad.numpy(), times * 6 * W * X.sum(0), rtol=1e-14)  # type: ignore[union-attr]
    assert seed.tolist() == [1, 1, 1]
    arrays = [seed._array, *[t.grad._array for t in (a, b)], *y.inputs[1].inputs[0].saved]  # type: ignore[index, union-attr]
    assert not any(np.shares_memory(one, other) for i, one in enumerate(arrays) for other in arrays[i + 1 :])


def test_a_gradient_that_nobody_asked_for_is_left_alone() -> None:
    @tg.primitive("general", reference=lambda a, b: a + b, vjp=unasked_back)
    def forward(xp: Any, a: Any, b: Any) -> Any:
        return a + b, None

    a, b = tg.tensor(np.arange(3.0), requires_grad=True), tg.tensor(1.0)
    for other in (b, 2.0):
        forward(a, other).sum().backward()
    assert a.grad is not None and a.grad.tolist() == [2, 2, 2] and b.grad is None


# -- what is refused ------------------------------------------------------------------------------------------


def variadic(xp: Any, *xs: Any) -> Any:
    return xs[0], None


@pytest.mark.parametrize(
    "changes",
    [
        {"vjp": None},
        {"reference": None},
        {"kind": "elementwise"},
        {"kind": "linear"},
        {"kind": "bilinear"},
        {"kernel": variadic},
        {"dx": lambda g: g},
    ],
    ids=["no vjp", "no reference", "elementwise", "linear", "bilinear", "variadic", "a rule too"],
)
def test_an_ill_formed_one_fails_where_it_is_defined(changes: dict[str, Any]) -> None:
    with pytest.raises(PrimitiveError, match="a fused primitive has both reference= and vjp=, no rules, the kind"):
        define(**changes)
    assert "forward" not in PRIMITIVES and "variadic" not in PRIMITIVES


@pytest.mark.parametrize(
    ("returned", "word"),
    [(lambda x: x, "ndarray"), (lambda x: (x,), "tuple"), (lambda x: (1, 2), "tuple"), (lambda x: None, "NoneType")],
)
def test_a_kernel_returns_a_result_and_what_is_saved(returned: Any, word: str) -> None:
    def forward(xp: Any, x: Any, w: Any, *, scale: float = 1.0) -> Any:
        return returned(x)

    fused = define(kernel=forward)
    for x in (tg.tensor(X, requires_grad=True), tg.tensor(X), X):
        with pytest.raises(PrimitiveError, match=rf"the kernel of forward is fused: .* \(result, saved\), not {word}"):
            fused(x, W)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_backward_pass_gives_one_gradient_for_each_array(count: int) -> None:
    fused = define(vjp=lambda xp, g, y, saved, x, w, **_: (g,) * count)
    with pytest.raises(PrimitiveError, match=f"the rule of forward gave {count} gradients for 2 arrays"):
        fused(*leaves()).sum().backward()


@pytest.mark.parametrize("returned", [None, 1.0, (1.0, None), ([1.0, 2.0], None)], ids=str)
def test_what_a_backward_pass_returns_is_looked_at(returned: Any) -> None:
    fused = define(vjp=lambda *_, **__: returned)
    with pytest.raises(PrimitiveError, match="forward"):
        fused(*leaves()).sum().backward()


def test_a_gradient_of_the_wrong_shape_is_refused() -> None:
    fused = define(vjp=lambda xp, g, y, saved, x, w, **_: (g, g[:2]))
    with pytest.raises(PrimitiveError, match=r"gradient of shape \(2,\) .*\(3,\)"):
        fused(*leaves()).sum().backward()


def test_arrays_that_do_not_fit_are_explained_like_those_of_other_primitives() -> None:
    with pytest.raises(ShapeError, match=r"forward of tensor \(2, 3\) .* 3 and 2 meet"):
        define()(tg.tensor(X), tg.tensor(W[:2]))


# -- lies ------------------------------------------------------------------------------------------------------


def half_a_thousandth(*places: int) -> Callable[..., Any]:
    def lying(*args: Any, **options: Any) -> Any:
        found = backward(*args, **options)
        return tuple(d if d is None or i not in places else d * 1.0005 for i, d in enumerate(found))

    return lying


@pytest.mark.parametrize("place", [0, 1])
def test_a_backward_pass_that_is_wrong_by_half_a_thousandth_is_found(place: int) -> None:
    with pytest.raises(
        GradcheckError, match=f"^forward of .* first derivative for {'xw'[place]} is .*factor of 1.0005"
    ):
        tg.gradcheck(define(vjp=half_a_thousandth(place)), X, W)


@pytest.mark.parametrize(
    "lie",
    [
        lambda x, w, scale=1.0: (x * w * w).sum(axis=0) * (scale * 1.0005),
        lambda x, w, scale=1.0: (x * w * w).sum(axis=0) * scale + (w - w.detach()) * 5e-4,
        lambda x, w, scale=1.0: (x * w.detach() * w * 2.0 - (x * w * w).detach()).sum(axis=0) * scale,
    ],
    ids=["a factor", "a slope", "a second derivative"],
)
def test_a_reference_that_means_something_else_is_found(lie: Any) -> None:
    fused = define(reference=lie)
    with pytest.raises(GradcheckError, match="forward"):
        tg.gradcheck(fused, X, W, order=2)


def test_a_backward_pass_that_is_not_linear_or_keeps_from_call_to_call_is_found() -> None:
    with pytest.raises(GradcheckError, match="first derivative"):
        tg.gradcheck(define(vjp=lambda xp, g, *rest, **o: backward(xp, g * abs(g), *rest, **o)), X, W)
    memory: list[Any] = []

    def forgetful(*args: Any, **options: Any) -> Any:
        memory.append(backward(*args, **options))
        return memory[0]

    with pytest.raises(GradcheckError):
        tg.gradcheck(define(vjp=forgetful), X, W, order=2)


@pytest.mark.parametrize(
    ("function", "old", "new", "check"),
    [
        ("pull", "at not in wanted and watch is None", "watch is None", test_a_target_gets_its_whole_gradient),
        ("pull", "and watch is None)", ")", test_parts_become_whole_under_debug),
        ("pull", "node.saved = None", "pass", test_what_is_saved_stays_until_the_graph_is_freed),
        ("pull", "_wants(x, age, useful) for x in inputs", "True for x in inputs",
            test_numbers_and_what_became_a_parameter_later_are_not_wanted),
        ("pull", "_wants(x, age, useful) for x in inputs", "_wants(x, age, None) for x in inputs",
            test_what_a_pullback_does_not_ask_for_is_not_wanted),
        ("_jointly", "by_reference if recorded else", "by_reference if False else",
            test_first_derivatives_take_the_fast_path_and_recorded_ones_the_reference),
    ],
)  # fmt: skip
def test_an_engine_that_breaks_a_promise_is_caught(
    function: str, old: str, new: str, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    seen.clear()
    mutated(monkeypatch, autodiff, function, old, new)
    with pytest.raises((AssertionError, AttributeError, TypeError, KeyError, pytest.fail.Exception)):
        check()


def test_the_table_of_names_knows_fused_ones() -> None:
    op = define().primitive
    assert op.differentiable and not op.rules and op.has_rule(0) and op.has_rule(1)
    assert NAMESPACE_OF[np.ndarray] is not None and repr(op) == "<primitive forward>"
