"""The one definition form: what it makes of a kernel and its rules, what it refuses, what it says of misfits."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.errors import DtypeError, IndexOutOfRange, PrimitiveError, ShapeError


@tg.primitive(
    "bilinear",
    domain=(0.5, 2.0),
    latex=r"{a} \star {b}",
    da=lambda g, b, scale: g * b * scale,
    db=lambda g, y, b: g * y / b,
)
def scaled_product(xp: Any, a: Any, b: Any, *, scale: float = 2.0) -> Any:
    """scale * a * b."""
    return a * b * scale


def test_a_users_primitive_has_everything_that_the_packages_have(backend: str) -> None:
    a, b = np.array([[0.5], [1.5]]), np.array([1.0, 2.0, 0.75])
    tg.gradcheck(scaled_product, tg.tensor(a), tg.tensor(b), order=3)
    y = scaled_product(tg.tensor(a), tg.tensor(b), scale=3.0)
    np.testing.assert_allclose(y.numpy(), a * b * 3)
    op = PRIMITIVES["scaled_product"]
    assert (op.kind, op.arrays, op.defaults, op.domain) == ("bilinear", ("a", "b"), {"scale": 2.0}, (0.5, 2.0))
    assert scaled_product.__doc__ == "scale * a * b." and scaled_product.__name__ == "scaled_product"
    assert list(inspect.signature(scaled_product).parameters) == ["a", "b", "scale"]
    assert repr(op) == "<primitive scaled_product>"


def test_on_bare_arrays_nothing_is_wrapped_or_recorded() -> None:
    y = scaled_product(np.array([1.0, 2.0]), 3.0, scale=1.0)
    assert type(y) is np.ndarray and y.tolist() == [3, 6]
    assert type(tg.tanh(np.float64(0.5))) is np.float64


def test_plain_numbers_and_lists_become_tensors() -> None:
    assert isinstance(tg.tanh(0.5), tg.Tensor) and tg.add([1.0, 2.0], 1).tolist() == [2, 3]
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x * [3.0, 4.0]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3, 4]


def test_an_array_among_the_inputs_is_copied_so_that_nobody_changes_it_behind_the_tape() -> None:
    x, w = tg.tensor(np.array([1.0, 2.0]), requires_grad=True), np.array([3.0, 4.0])
    y = (x * w).sum()
    w[:] = 100
    y.backward()
    assert x.grad is not None and x.grad.tolist() == [3, 4]


def test_other_number_systems_take_over() -> None:
    class Symbol:
        def __apply_primitive__(self, op: Any, args: Any, options: Any) -> str:
            return f"{op.name}({', '.join('s' if x is self else str(x) for x in args)}, {options})"

    assert tg.tanh(Symbol()) == "tanh(s, {})"
    assert scaled_product(2, Symbol()) == "scaled_product(2, s, {'scale': 2.0})"


def test_options_may_be_given_by_position_as_in_numpy() -> None:
    x = tg.tensor(np.arange(6.0).reshape(2, 3))
    assert tg.sum(x, 0).tolist() == x.sum(axis=0).tolist() == x.sum(0).tolist() == [3, 5, 7]
    assert tg.concatenate([x, x], 1).shape == tg.concatenate((x, x), axis=1).shape == (2, 6)
    assert tg.clip(x, 1, 2).tolist() == [[1, 1, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: tg.sum(x, axes=0), r"sum takes no option 'axes'; its options are axis, keepdims"),
        (lambda x: tg.swapaxes(x, 0), r"swapaxes needs the option axis2="),
    ],
)
def test_unknown_and_missing_options(call: Any, text: str) -> None:
    with pytest.raises(PrimitiveError, match=text):
        call(tg.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"tanh\(\).*'slope'"):
        tg.tanh(tg.zeros(3), slope=2)


@pytest.mark.parametrize(
    ("kind", "rules", "text"),
    [
        ("diagonal", {}, r"kind is one of linear, bilinear, elementwise, general, not 'diagonal'"),
        ("general", {"dz": lambda g: g}, r"there is a rule dz, but its arrays are \('x',\)"),
        ("general", {"dx": lambda g, w: g}, r"asks for 'w'; a rule may ask for g, y, x, k"),
        ("general", {"dx": lambda x, g: g}, r"first parameter of dx is g"),
        ("general", {"x": lambda g: g}, r"called d and the argument's name"),
    ],
)
def test_an_ill_formed_primitive_fails_where_it_is_defined(kind: str, rules: dict[str, Any], text: str) -> None:
    def ill_formed(xp: Any, x: Any, *, k: int = 0) -> Any:
        return x

    with pytest.raises(PrimitiveError, match=text):
        tg.primitive(kind, **rules)(ill_formed)
    assert "ill_formed" not in PRIMITIVES


# -- messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda a, b: a + b, r"add of a \(2, 3\) float32 and b \(4, 5\) float32: .*at axis -1, 3 and 5 meet"),
        (lambda a, b: tg.where(a > 0, a, b), r"where of .*\(2, 3\).*\(4, 5\).*at axis -1"),
        (lambda a, b: a @ b, r"matmul of a .* and b \(4, 5\) .*last axis of a \(3\) .* the last but one of b \(4\)"),
        (lambda a, b: a @ 2, r"matmul .*at least one axis on each side; use \* for scalars"),
        (lambda a, b: a.reshape(4), r"reshape of a \(2, 3\) float32: .*size 6.*\(4,\)"),
        (lambda a, b: tg.concatenate([a, b]), r"concatenate of a \(2, 3\) .* and b \(4, 5\)"),
        (lambda a, b: a.sum(axis=2), r"sum of a \(2, 3\) float32: axis 2 is out of bounds"),
        (lambda a, b: tg.einsum("ij,jk->ik", a, b), r"einsum: 'j' is 3 .* and 4"),
        (lambda a, b: tg.split(a, 2, axis=1), r"length 3 does not divide into 2"),
    ],
)  # fmt: skip
def test_misfits_name_the_operation_all_shapes_and_what_would_have_fitted(call: Any, text: str, backend: str) -> None:
    a, b = tg.zeros((2, 3), name="a"), tg.zeros((4, 5), name="b")
    with pytest.raises(ShapeError, match=text):
        call(a, b)


def test_the_axis_that_misfits_is_found_also_in_the_middle() -> None:
    with pytest.raises(ShapeError, match=r"at axis -2, 3 and 4 meet"):
        tg.zeros((2, 3, 1)) * tg.zeros((4, 5))
    with pytest.raises(ShapeError, match=r"broadcast_to of tensor \(2, 3\) float32"):
        tg.broadcast_to(tg.zeros((2, 3)), shape=(3,))


def test_an_index_out_of_range() -> None:
    with pytest.raises(IndexOutOfRange, match=r"index of tensor \(2, 3\).*index 5 is out of bounds"):
        tg.zeros((2, 3))[5]
    with pytest.raises(IndexError):
        tg.zeros((2, 3))[0, 0, 0]


def test_what_is_not_numbers_is_no_operand() -> None:
    with pytest.raises(DtypeError):
        tg.zeros(3) + "text"
    with pytest.raises(DtypeError):
        tg.zeros(3) * None


def test_an_unexpected_error_of_a_kernel_keeps_its_type_and_gets_a_note() -> None:
    @tg.primitive("general", dx=lambda g: g)
    def breaking(xp: Any, x: Any) -> Any:
        raise KeyError("inside")

    with tg.scope("cell"), pytest.raises(KeyError) as caught:
        breaking(tg.zeros((2, 3)))
    assert caught.value.__notes__ == ["in breaking of tensor (2, 3) float32 (in cell)"]


def test_a_rule_may_ask_for_several_things_and_for_all_arrays_at_once() -> None:
    @tg.primitive("general", darrays=lambda g, y, arrays, power: [g * power * x ** (power - 1) for x in arrays])
    def sum_of_powers(xp: Any, *arrays: Any, power: int = 2) -> Any:
        return sum(x**power for x in arrays)

    tg.gradcheck(lambda a, b, c: sum_of_powers([a, b, c], power=3), *np.arange(1.0, 7.0).reshape(3, 2), order=2)
    with pytest.raises(PrimitiveError):
        sum_of_powers([tg.zeros(1)], exponent=3)


def test_an_argument_without_a_rule_gets_no_gradient() -> None:
    @tg.primitive("general", dx=lambda g, w: g * w)
    def weighted(xp: Any, x: Any, w: Any) -> Any:
        return x * w

    x, w = tg.tensor([1.0], requires_grad=True), tg.tensor([2.0], requires_grad=True)
    weighted(x, w).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2] and w.grad is None


# -- what users write -------------------------------------------------------------------------------------------


def test_a_primitive_of_a_users_own_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither NumPy's kernel for `exp` nor the engine's own use of `sum_to` has a privilege by name."""
    for name in ("exp", "sum_to"):  # the table is put back afterwards, for the tests that read it by name
        monkeypatch.setitem(PRIMITIVES, name, PRIMITIVES[name])

    @tg.primitive("elementwise", dx=lambda g, x, y: -2 * x * g * y)
    def exp(xp: Any, x: Any) -> Any:
        return xp.exp(-x * x)

    @tg.primitive("linear", dx=lambda g: g * 1000)
    def sum_to(xp: Any, x: Any, *, shape: Any) -> Any:
        return x * 1000

    assert exp(tg.tensor(2.0)).item() == pytest.approx(np.exp(-4.0)) and tg.exp(tg.tensor(0.0)).item() == 1
    b = tg.tensor([1.0], requires_grad=True)
    (b * tg.ones(3)).sum().backward()
    assert b.grad is not None and b.grad.tolist() == [3.0]


@pytest.mark.parametrize(
    ("rule", "words"), [(3, "dx is a function of g, not 3"), (lambda: 0, "first parameter of dx is g")]
)
def test_a_rule_that_is_none_is_refused(rule: Any, words: str) -> None:
    with pytest.raises(PrimitiveError, match=words):
        tg.primitive("linear", dx=rule)(lambda xp, x: x)


def test_a_users_primitive_of_many_arrays_takes_a_list_and_owes_a_gradient_to_each() -> None:
    @tg.primitive("linear", darrays=lambda g, arrays: [g for _ in arrays])
    def total(xp: Any, *arrays: Any) -> Any:
        return sum(arrays)

    @tg.primitive("linear", darrays=lambda g, arrays: [g])
    def forgetful(xp: Any, *arrays: Any) -> Any:
        return sum(arrays)

    a, b = tg.tensor([1.0], requires_grad=True), tg.tensor([2.0], requires_grad=True)
    for y in (total([a, b]), total(a, b)):
        assert y.tolist() == [3] and [d.tolist() for d in tg.pullback(y, [a, b])] == [[1], [1]]
    with pytest.raises(PrimitiveError, match="forgetful gave 1 gradients for 2 arrays"):
        forgetful(a, b).backward()


def test_a_kernel_without_xp_is_refused() -> None:
    for kernel in (lambda x: x, lambda: 1.0):
        with pytest.raises(PrimitiveError, match="the first parameter of a kernel is xp"):
            tg.primitive("linear")(kernel)  # type: ignore[arg-type]


def test_what_a_users_kernel_or_rule_returns_is_looked_at() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True)

    @tg.primitive("elementwise", dx=lambda g: 1.0)
    def with_a_float_for_a_rule(xp: Any, x: Any) -> Any:
        return x * 2

    @tg.primitive("elementwise", dx=lambda g: g)
    def without_a_result(xp: Any, x: Any) -> Any:
        return None

    with pytest.raises(PrimitiveError, match="the rule dx of with_a_float_for_a_rule returned a float"):
        with_a_float_for_a_rule(x).sum().backward()
    with pytest.raises(PrimitiveError, match="the kernel of without_a_result returned a NoneType"):
        without_a_result(x)
    with pytest.raises(PrimitiveError, match=r"write @primitive\(kind"):
        tg.primitive(lambda xp, x: x)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: -tg.tensor([True]), DtypeError, "neg of tensor .* bool"),
        (lambda: tg.tensor(np.uint8([1])) + (-1), DtypeError, "add .* out of bounds"),
        (lambda: tg.tensor([1, 2]) ** -1, DtypeError, "power .* negative integer powers"),
        (lambda: tg.tensor([1.0]) + None, DtypeError, r"add of tensor \(1,\) float32 and None"),
        (lambda: tg.tensor([1.0, 2.0])[1.5], DtypeError, "index .* integer"),
        (lambda: tg.tensor([1.0]) * 1j, DtypeError, "mul .* real numbers"),
        (lambda: tg.tensor([1.0], dtype="flot32"), DtypeError, "flot32"),
        (lambda: tg.clip(tg.tensor([1.0]), tg.tensor(0.0)), PrimitiveError, "clip: the option min="),
        (lambda: tg.stack(tg.ones((2, 3))), ShapeError, "stack takes a list"),
        (lambda: tg.sum(tg.ones(2), 0, True, 5), PrimitiveError, "not more"),
    ],
)
def test_wrong_kinds_of_numbers_and_options_are_named(
    call: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call()


def test_tensor_is_not_for_subclasses() -> None:
    with pytest.raises(TypeError, match="not made for subclasses"):
        type("Parameter", (tg.Tensor,), {})
