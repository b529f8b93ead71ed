"""The bug gallery: each mistake does what it says, and is noticed by whom it says, and by nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn.test_golden import held_against_golden

import tinygrad_rnn as tg
from tinygrad_rnn import lab, nn
from tinygrad_rnn.errors import GradcheckError, LabError, TinygradError
from tinygrad_rnn.lab import mutation
from tinygrad_rnn.lab.gallery import CHECKS, Bug

NAMES = list(lab.BUGS)
DERIVATIVES = NAMES[:4]


def by_gradcheck(bug: Bug) -> None:
    tg.gradcheck(bug.compute, *map(np.asarray, bug.inputs.values()), order=2)


def by_the_fused_layer(bug: Bug) -> None:
    """Values and gradients of a GRU, fused and operation by operation."""
    found = []
    for fused in (True, False):
        layer = nn.GRU(3, 4, fused=fused, dtype=np.float64, rng=np.random.default_rng(1))
        x = tg.tensor(np.random.default_rng(2).uniform(-1, 1, (5, 2, 3)), requires_grad=True)
        output, _ = layer(x)
        found.append([output, *tg.pullback((output * output).sum(), [x, *layer.parameters()])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-9, atol=1e-12)


def by_numbers_from_elsewhere(bug: Bug) -> None:
    held_against_golden("gru before new", fused=False)


BY: dict[str, Callable[[Bug], None]] = dict(zip(CHECKS, (by_gradcheck, by_the_fused_layer, by_numbers_from_elsewhere)))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_it_is_noticed_by_whom_it_says(name: str, check: str) -> None:
    bug = lab.BUGS[name]
    BY[check](bug)
    with lab.bug(name):
        if check in bug.noticed:
            with pytest.raises((AssertionError, TinygradError)):
                BY[check](bug)
        else:
            BY[check](bug)
    BY[check](bug)


@pytest.mark.parametrize("name", NAMES[4:])
def test_gradcheck_of_a_fused_layer_notices_the_wrong_equations_and_operation_by_operation_not(name: str) -> None:
    """As the table, the symptom and the page say it."""
    x = np.random.default_rng(2).uniform(-1, 1, (3, 2, 3))
    layers = [nn.GRU(3, 4, fused=fused, dtype=np.float64, rng=np.random.default_rng(1)) for fused in (True, False)]
    fused, plain = [lambda x, layer=layer: layer(x)[0] for layer in layers]
    with lab.bug(name):
        tg.gradcheck(plain, x)
        with pytest.raises(GradcheckError, match="forward mode"):
            tg.gradcheck(fused, x)
    tg.gradcheck(fused, x)
    assert "tg.gradcheck of a fused layer" in lab.bugs().text(500)
    assert "gradcheck of it notices" in lab.symptom(name).text(500)


def test_torchs_gru_notices_swapped_gates_alone_of_the_wrong_equations() -> None:
    """It resets after the product and keeps the old at z = 1, so that it cannot tell of the other two."""
    torch = pytest.importorskip("torch")
    theirs = torch.nn.GRU(3, 4).double()
    x = np.random.default_rng(5).uniform(-1, 1, (5, 2, 3))
    ours = tg.interop.from_torch(theirs)
    wanted = theirs(torch.from_numpy(x))[0].detach().numpy()
    layer = ours if isinstance(ours, nn.GRU) else ours.layer
    layer.fused = False
    for name, notices in zip(NAMES[4:], (True, False, False), strict=True):
        with lab.bug(name):
            found = layer(tg.tensor(x))[0].numpy()
        assert np.allclose(found, wanted) is not notices, name


@pytest.mark.parametrize("name", NAMES)
def test_a_symptom_shows_right_and_wrong_the_verdict_and_a_picture(name: str) -> None:
    found = lab.symptom(name)
    text = found.text(120)
    assert lab.BUGS[name].changed in re.sub(r"\s+", " ", text) and found.diff.splitlines()[0] in text
    assert any(not np.allclose(found.right[key], found.wrong[key]) for key in found.wrong)
    value = next(iter(found.wrong))
    assert np.allclose(found.right[value], found.wrong[value]) is (name in DERIVATIVES)
    assert bool(found.gradcheck) is (name in DERIVATIVES)
    assert ("notices nothing" in text) is (name not in DERIVATIVES)
    assert f"With {name}" in found.picture.svg.replace("&#45;", "-")
    assert not mutation._on


def test_a_symptom_says_that_the_mistake_is_on(capsys: pytest.CaptureFixture[str]) -> None:
    lab.symptom("missing factor")
    out, err = capsys.readouterr()
    assert not out and err.index("BUG ON: missing factor") < err.index("BUG OFF: missing factor")


def test_the_symptoms_are_those_of_the_mistakes() -> None:
    found = lab.symptom("missing factor")
    y = np.tanh(0.75)
    np.testing.assert_allclose([found.right["dy/dx"], found.wrong["dy/dx"]], [1.5 * (1 - y * y), 1.5 * (1 - y)], 1e-6)
    assert (
        re.match(r"tanh of .* first derivative for x is 0.36485\d*, and 0.59658", found.gradcheck)
        and "1 - b" not in found.picture.svg
    )
    found = lab.symptom("= for +=")
    np.testing.assert_allclose([found.right["dy/dx"], found.wrong["dy/dx"]], [1 + np.cos(0.5), 0.5], 1e-6)
    found = lab.symptom("transposed product")
    np.testing.assert_allclose(found.wrong["dloss/dW"], found.right["dloss/dW"].T)
    assert "transpose of what it should" in found.gradcheck
    found = lab.symptom("forgotten broadcast sum")
    same = [key for key in found.wrong if np.allclose(found.right[key], found.wrong[key])]
    assert same == ["loss", "dloss/dx", "dloss/dW"]


def test_the_picture_has_the_mistake_in_it_after_it_is_gone() -> None:
    """The boxes are filled while the mistake is on, though they are laid out later."""
    node = next(n for n in lab.symptom("= for +=").picture.graph.nodes if n.name == "x")
    assert node.gradient is not None and node.gradient.numbers == (0.5,)
    edge = next(e for e in lab.symptom("missing factor").picture.graph.edges if e.name == "x")
    x = tg.tensor([0.5, 1.0], requires_grad=True, name="x")
    right = next(e for e in tg.draw(tg.tanh(x)).graph.edges if e.name == "x")
    assert edge.slope.count("y") < right.slope.count("y")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mistakes_are_on_every_backend_and_dtype(name: str, dtype: Any, backend: str) -> None:
    bug = lab.BUGS[name]

    def gradients() -> list[np.ndarray]:
        leaves = [tg.tensor(x, dtype=dtype, requires_grad=True) for x in bug.inputs.values()]
        y = bug.compute(*leaves)
        found = tg.pullback(y, leaves)
        assert all(d.dtype == dtype and d.shape == x.shape for d, x in zip(found, leaves, strict=True))
        return [np.asarray(each.to("numpy").numpy()) for each in (y, *found)]

    before = gradients()
    with lab.bug(name):
        wrong = gradients()
    assert any(not np.allclose(one, other, rtol=1e-3) for one, other in zip(before, wrong, strict=True))
    for one, other in zip(before, gradients(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_overwritten_sum_hurts_no_array_of_the_users() -> None:
    """Where the engine adds in place, the mistake has to leave alone what belongs to others."""
    x, grad = tg.tensor([1.0, 2.0], requires_grad=True), tg.tensor([1.0, 10.0])
    with lab.bug("= for +="):
        y = x + x
        (y + y + y + x[0] * x[1]).backward(grad)
    assert grad.tolist() == [1.0, 10.0]
    x.grad = None
    (x * 2.0).backward(grad)
    assert x.grad is not None and x.grad.tolist() == [2.0, 20.0]


def test_mistakes_of_one_function_exclude_each_other_and_others_do_not() -> None:
    with lab.bug("missing factor"), lab.bug("swapped gates"):
        with pytest.raises(LabError, match=r"^gru has a mistake already, 'swapped gates'"):
            lab.symptom("sign of the update gate")
        assert lab.symptom("transposed product").gradcheck
    lab.symptom("sign of the update gate")


def test_the_table_and_unknown_names() -> None:
    text = lab.bugs().text(200)
    assert all(name in text for name in [*NAMES, *CHECKS])
    assert lab.bugs().markdown.count("\n| ") == 1 + len(NAMES)
    with pytest.raises(LabError, match=r"no bug 'missing'; they are 'missing factor', '= for \+='"):
        lab.bug("missing")
    with pytest.raises(LabError, match=r"no bug \[\]"):
        lab.bug([])  # type: ignore[arg-type]
    with lab.bug("missing factor"), pytest.raises(LabError, match=r"^tanh has a mistake already"):
        lab.bug("missing factor").__enter__()
