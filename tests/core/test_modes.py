"""Recording, debugging and scopes: in force inside their block, in this thread and coroutine only."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.core.modes import current, listening
from tinygrad_rnn.errors import IndexOutOfRange, NumericalError


def leaf() -> tg.Tensor:
    return tg.tensor(np.array([1.0, 2.0]), requires_grad=True)


# -- recording -----------------------------------------------------------------------------------------


def test_no_grad_records_nothing_and_enable_grad_records_again(backend: str) -> None:
    x = leaf()
    with tg.no_grad():
        y = x * x
        assert not y.requires_grad and y.op is None and y.inputs == ()
        with tg.enable_grad():
            assert (x * x).requires_grad
        assert not (x * x).requires_grad
    assert (x * x).requires_grad


def test_no_grad_decorates_functions_any_number_of_times() -> None:
    @tg.no_grad()
    def predict(x: tg.Tensor) -> tg.Tensor:
        return x * x

    for _ in range(2):
        assert not predict(leaf()).requires_grad
    assert current().recording


def test_an_exception_ends_the_mode() -> None:
    with pytest.raises(ZeroDivisionError), tg.no_grad(), tg.debug(), tg.scope("cell"):
        1 / 0  # noqa: B018
    assert (current().recording, current().debug, current().scope) == (True, False, None)


def test_leaves_made_under_no_grad_can_require_gradients() -> None:
    with tg.no_grad():
        x = leaf()
    (x * x).sum().backward()
    assert x.grad is not None


def test_creating_gradients_inside_no_grad() -> None:
    """A pullback of a graph from outside works inside no_grad; with create_graph it records all the same."""
    x = leaf()
    y = (x**3).sum()
    with tg.no_grad():
        (d,) = tg.pullback(y, [x], create_graph=True)
    assert d.requires_grad
    assert tg.pullback(d.sum(), [x])[0].tolist() == [6.0, 12.0]


# -- threads and coroutines ----------------------------------------------------------------------------------


def in_thread(f: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(f()))
    thread.start()
    thread.join()
    return found[0]


def test_each_thread_has_its_own_mode_scope_and_backend() -> None:
    with tg.no_grad(), tg.debug(), tg.scope("outer"), tg.use_backend("fakecupy"):
        mode = in_thread(current)
        assert (mode.recording, mode.debug, mode.scope) == (True, False, None)
        assert in_thread(lambda: tg.tensor(1.0).backend) == "numpy"
        assert in_thread(lambda: (leaf() * 2).requires_grad)


def test_threads_running_side_by_side_do_not_see_each_other() -> None:
    """Two threads hold each other up inside opposite modes, so that a shared setting would show."""
    both_inside = threading.Barrier(2, timeout=10)
    seen: dict[str, Any] = {}

    def work(name: str, recording: bool, home: str) -> None:
        with tg.enable_grad() if recording else tg.no_grad(), tg.scope(name), tg.use_backend(home):
            both_inside.wait()
            y = leaf() * 2
            seen[name] = y.requires_grad, y.scope and y.scope.path, y.backend.partition(":")[0]
            both_inside.wait()

    threads = [threading.Thread(target=work, args=args) for args in [("a", True, "numpy"), ("b", False, "fakecupy")]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": (True, "a", "numpy"), "b": (False, "b", "fakecupy")}


def test_gradients_of_graphs_in_several_threads_are_right() -> None:
    def train() -> list[float]:
        x = leaf()
        for _ in range(200):
            (x * x * x).sum().backward()
        assert x.grad is not None
        return x.grad.tolist()  # type: ignore[no-any-return]

    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(train())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[600.0, 2400.0]] * 4


def test_coroutines_that_take_turns_do_not_see_each_other() -> None:
    async def work(name: str, recording: bool) -> tuple[bool, str | None]:
        with tg.enable_grad() if recording else tg.no_grad(), tg.scope(name):
            await asyncio.sleep(0.01)  # the other one enters its mode here
            y = leaf() * 2
            await asyncio.sleep(0.01)
            return (leaf() * 2).requires_grad and y.requires_grad, y.scope and y.scope.path

    async def both() -> Any:
        return await asyncio.gather(work("a", True), work("b", False))

    assert asyncio.run(both()) == [(True, "a"), (False, "b")]


# -- scopes ----------------------------------------------------------------------------------------------------


def test_a_result_remembers_the_scope_that_it_was_born_in() -> None:
    with tg.scope("model", "Model"), tg.scope("gru", "GRU"), tg.scope(step=3), tg.scope("cell", "GRUCell"):
        y = leaf() * 2
    assert y.scope is not None and y.scope.path == "model.gru[t=3].cell"
    assert (y.scope.kind, y.scope.parent and y.scope.parent.step) == ("GRUCell", 3)
    assert (leaf() * 2).scope is None


def test_two_calls_of_one_module_are_two_scopes() -> None:
    found = []
    for _ in range(2):
        with tg.scope("cell", "GRUCell"):
            a, b = leaf() * 2, leaf() * 3
            assert a.scope is b.scope
            found.append(a.scope)
    assert found[0] is not found[1]


def test_errors_name_the_module_path_and_the_time_step() -> None:
    with (
        tg.scope("model"),
        tg.scope("gru"),
        tg.scope(step=3),
        pytest.raises(ValueError, match=r"\(in model\.gru\[t=3\]\)"),
    ):
        tg.tensor([1.0, 2.0]) * tg.tensor([1.0, 2.0, 3.0])


# -- debug ------------------------------------------------------------------------------------------------------


def line_here() -> int:
    import sys

    return sys._getframe(1).f_lineno


def test_in_a_notebook_the_source_line_is_that_of_the_cell() -> None:
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    names = {"x": x}
    with tg.debug():
        exec(compile("# a remark\ny = x * 3", "/tmp/ipykernel_71/1234567.py", "exec"), names)
    assert names["y"].source == "cell:2"


def test_the_source_line_is_that_of_the_caller() -> None:
    x = leaf()
    with tg.debug():
        y, line = tg.tanh(x) * 2, line_here()
        z, z_line = y.sum().reshape(1), line_here()
        s = x.std() + tg.einsum("i,i->", x, x)
        s_line = line_here() - 1
    assert {t.source for t in tg.tape(y) if t.op} == {f"test_modes.py:{line}"}
    assert z.source == f"test_modes.py:{z_line}"
    assert {t.source for t in tg.tape(s) if t.op} == {f"test_modes.py:{s_line}"}
    assert (x * 2).source is None


@pytest.mark.parametrize(
    ("make", "what", "value"),
    [
        (lambda x: tg.log(x - 2.0), r"log of sub \(2,\) float64", "-inf|nan"),
        (lambda x: tg.exp(x * 1000), r"exp of mul \(2,\) float64", "inf"),
        (lambda x: (x - 1) / (x - 1), r"div of sub \(2,\) float64 and sub", "nan"),
        (lambda x: tg.sqrt(-x), r"sqrt of neg \(2,\) float64", "nan"),
    ],
)
def test_the_first_nan_or_infinity_forward_is_named_with_its_operands_line_and_element(
    make: Callable[[tg.Tensor], tg.Tensor], what: str, value: str, backend: str
) -> None:
    x = leaf()
    with (
        np.errstate(all="ignore"),
        tg.debug(),
        tg.scope("gru"),
        tg.scope(step=2),
        pytest.raises(NumericalError) as caught,
    ):
        make(x) * 0
    message = str(caught.value)
    assert message.startswith(what.split(" of ")[0])

    assert re.search(rf"{what}.* at test_modes\.py:\d+ made ({value}) at element \(\d,\) \(in gru\[t=2\]\)", message)


def test_the_first_nan_backward_is_named_with_the_line_of_the_forward_operation(backend: str) -> None:
    """sqrt is fine at 0, its derivative is not."""
    x = tg.tensor(np.array([4.0, 0.0]), requires_grad=True, name="x")
    with np.errstate(all="ignore"), tg.debug():
        y, line = tg.sqrt(x).sum(), line_here()
        with pytest.raises(
            NumericalError,
            match=rf"derivative of sqrt for x \(2,\) float64 at test_modes\.py:{line} made inf at element \(1,\)",
        ):
            y.backward()
        with pytest.raises(NumericalError, match=rf"^the derivative of sqrt for x .* at test_modes\.py:{line}: div of"):
            tg.pullback(y, [x], create_graph=True)  # here the rule records operations, and one of them is to blame


def test_without_debug_numbers_are_numpys() -> None:
    with np.errstate(all="ignore"):
        assert np.isnan((leaf() - 1).log().numpy()).any() or np.isinf((leaf() - 1).log().numpy()).any()


def test_an_index_out_of_range_is_caught_on_every_backend(backend: str) -> None:
    """CuPy wraps an array of indices around in silence; debug() looks at the numbers."""
    x = tg.tensor(np.arange(6.0).reshape(2, 3))
    for key, text in [(([0, 2],), "2 .*axis 0 of length 2"), ((slice(None), [-4, 1]), "-4 .*axis 1 of length 3")]:
        with tg.debug(), pytest.raises(IndexOutOfRange, match=text):
            x[key]
    with tg.debug(), pytest.raises(IndexOutOfRange, match=r"3 .*axis 1 of length 3"):
        x[..., [[0], [3]]]
    with pytest.raises(IndexOutOfRange, match=r"index of tensor \(2, 3\)"):
        x[2]


# -- listening -----------------------------------------------------------------------------------------


def test_a_listener_hears_every_operation_differentiable_or_not_until_its_block_ends() -> None:
    heard: list[tuple[str, tuple[int, ...]]] = []
    x = leaf()
    with listening(lambda op, inputs, options, result: heard.append((op.name, result.shape))):
        (x * 2 > 1).sum()
        with tg.no_grad(), tg.scope("inner"):
            x.reshape((2, 1))
        with listening(None):
            tg.exp(x)
        with tg.debug():
            tg.tanh(x)
    with tg.debug():
        tg.exp(x)
    tg.cos(x)
    assert heard == [("mul", (2,)), ("greater", (2,)), ("sum", ()), ("reshape", (2, 1)), ("tanh", (2,))]


def test_a_listener_is_told_inputs_and_options_and_what_it_hears_is_computed_as_ever() -> None:
    heard: list[Any] = []
    x = leaf()
    with listening(lambda *call: heard.append(call)):
        y = x.sum(axis=0, keepdims=True)
    ((op, inputs, options, result),) = heard
    assert op.name == "sum" and inputs == (x,) and options == {"axis": 0, "keepdims": True} and result is y
    y.backward(np.ones(1))
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0]


def test_a_listener_hears_its_own_thread_only() -> None:
    heard: list[str] = []
    with listening(lambda op, *_: heard.append(op.name)):
        thread = threading.Thread(target=lambda: tg.exp(leaf()))
        thread.start()
        thread.join()
    assert heard == []


def test_a_listener_may_hear_of_numbers_that_are_read_but_not_of_those_that_are_shown() -> None:
    class Reader:
        def __init__(self) -> None:
            self.heard: list[Any] = []
            self.read = self.heard.append

        def __call__(self, *call: Any) -> None:
            pass

    x, one, reader = leaf(), tg.tensor([3]), Reader()
    with listening(reader):
        x.numpy(), x.tolist(), np.asarray(x.detach())
        assert (one.item(), int(one), float(one), bool(one), "abcd"[one]) == (3, 3, 3.0, True, "d")
        assert "1." in repr(x) and len(x) == 2
    x.numpy()
    assert [each is x for each in reader.heard] == [True, True, False, *[False] * 5]
    assert all(each is one for each in reader.heard[3:])
