"""Every tensor of a tape has a name of its own, and the shortest one that tells it from the others."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.see import naming
from tinygrad_rnn.see.notation import latex_name, mathml
from tinygrad_rnn.see.words import printable


def named(*results):
    """The names of a tape, oldest first."""
    found = naming.names(tg.tape(*results))
    return [found[age] for age in sorted(found)]


def leaf(name=None, shape=()):
    return tg.tensor(np.ones(shape), requires_grad=True, name=name)


def test_the_example_of_the_survey_numbers_what_has_no_name():
    x1, x2 = leaf("x1"), leaf("x2")
    y = tg.log(x1) + x1 * x2 - tg.sin(x2)
    assert named(y) == ["x1", "x2", "v1", "v2", "v3", "v4", "v5"]
    y.name = "y"
    assert named(y) == ["x1", "x2", "v1", "v2", "v3", "v4", "y"]


def test_leaves_without_a_name_are_numbered_and_no_number_is_used_twice():
    a, b = leaf(), leaf("v2")
    assert named((a + b) * a) == ["v1", "v2", "v3", "v4"]


def layer_names(layer, x):
    return named(layer(x)[0].sum())


def test_a_name_that_recurs_by_step_has_the_step():
    x = leaf("x", (3, 2, 4))
    found = layer_names(nn.GRU(4, 5, fused=False), x.astype("float32"))
    assert {"h[0]", "h[1]", "h[2]", "z[1]", "r[2]", "n[0]", "W_z", "U_r", "b_n", "h_0", "cells.0.U", "x", "x[1]"} <= {
        *found
    }
    assert not [name for name in found if "#" in name or "." in name.removeprefix("cells.0.")]


def test_inputs_that_are_no_result_have_the_step_that_reads_them():
    found = layer_names(nn.LSTM(4, 5, fused=False), tg.randn(3, 2, 4))
    assert {"x[0]", "x[1]", "x[2]", "c[1]", "h_0", "c_0"} <= {*found}
    assert not [name for name in found if "#" in name]


def test_where_the_step_is_not_enough_the_module_is_there_too():
    found = layer_names(nn.RNN(4, 5, 2, fused=False), tg.randn(3, 2, 4))
    assert {"cells.0.h[2]", "cells.1.h[2]", "h_0", "cells.0.W", "cells.1.x[1]"} <= {*found}
    assert not [name for name in found if "#" in name]


def test_two_calls_of_one_module_are_counted_and_all_steps_told_where_loops_are_nested():
    cell, h = nn.RNNCell(4, 5), tg.zeros((2, 5))
    for _ in range(3):
        h = cell(tg.randn(2, 4), h)
    found = named(h)
    assert [name for name in found if name.startswith("h")] == ["h", "h#2", "h#3"]
    a = leaf("a")
    for epoch in range(2):
        for t in range(2):
            with tg.scope(step=epoch), tg.scope("net"), tg.scope(step=t):
                a = a * 2.0
                a.name = "a"
    assert named(a)[0] == "a" and {"net.a[0,1]", "net.a[1,0]"} <= {*named(a)}


def test_a_mark_that_tells_nothing_apart_is_left_out():
    with tg.scope(step=4):
        a = leaf("a") * 2.0
        a.name = "b"
        twin = a * 3.0
        twin.name = "b"
    assert named(twin) == ["a", "b", "b#2"]
    other = leaf("h[1]")
    with tg.scope(step=1):
        h = other * 2.0
        h.name = "h"
    with tg.scope(step=2):
        h = h + other
        h.name = "h"
    assert named(h) == ["h[1]", "h[1]#2", "h[2]"]


@given(
    st.lists(st.sampled_from(["x", "x#2", "v1", "v3", "v2", "", " ", "a\nb", "a b", "h[1]", "h", None]), max_size=12)
)
def test_all_names_are_different_and_can_be_seen(given_names):
    y = leaf("y")
    for at, name in enumerate(given_names):
        with tg.scope(step=at % 2):
            y = y * 2.0
        y.name = name
    found = named(y)
    assert len({*found}) == len(found) == len(given_names) + 1
    assert all(name == printable(name) and name.strip() for name in found)


@pytest.mark.parametrize(
    ("name", "latex"),
    [("x1", "x_{1}"), ("h[2]", "h_{[2]}"), ("h_0", "h_{0}"), ("W_z[3]", "{W_{z}}_{[3]}"), ("v12", "v_{12}"),
     ("cells.0.h[2]", r"\text{cells.0.}h_{[2]}"), ("net.a[0,1]", r"\text{net.}a_{[0,1]}"), ("a[0,1]", "a_{[0,1]}"),
     ("a[", r"\text{a[}"), ("x1y", r"\text{x1y}")],
)  # fmt: skip
def test_numbered_names_have_subscripts_in_formulas(name, latex):
    assert latex_name(name) == latex
    assert "".join(ET.fromstring(mathml(latex)).itertext()) == name.replace("_", "")


def test_the_tape_of_a_long_sequence_is_named_in_one_pass():
    a = leaf("a")
    for t in range(3000):
        with tg.scope(step=t):
            a = a * 1.0
        a.name = "a"
    found = named(a)
    assert found[0] == "a" and found[1] == "a[0]" and found[-1] == "a[2999]"


def test_some_tensors_are_named_without_those_that_they_were_made_from():
    a, b = leaf("a"), leaf("b")
    found = naming.names([*tg.tape(a * 2.0), tg.tanh(b)])
    assert sorted(found.values()) == ["a", "v1", "v2"]


def test_a_freed_tape_still_has_names():
    y = leaf("x") * 2.0
    tape = tg.tape(y)
    y.backward(retain_graph=False)
    assert sorted(naming.names(tape).values()) == ["v1", "x"]


@pytest.mark.parametrize(
    ("function", "old", "new", "check"),
    [
        ("names", "while unique in taken", "while False", test_a_mark_that_tells_nothing_apart_is_left_out),
        ("names", 'f"v{number}" in taken', "False",
         test_leaves_without_a_name_are_numbered_and_no_number_is_used_twice),
        ("names", "| _readers(ordered, homes)", "", test_inputs_that_are_no_result_have_the_step_that_reads_them),
        ("_told_apart", "(-1, depth)", "(1, depth)",
         test_two_calls_of_one_module_are_counted_and_all_steps_told_where_loops_are_nested),
        ("_told_apart", "> len(set(best))", ">= len(set(best))", test_a_mark_that_tells_nothing_apart_is_left_out),
    ],
)  # fmt: skip
def test_names_that_break_a_promise_are_caught(function, old, new, check, monkeypatch):
    check()
    mutated(monkeypatch, naming, function, old, new)
    with pytest.raises(AssertionError):
        check()
