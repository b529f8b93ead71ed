"""What a picture says: values, gradients, formulas, marks, legend and colours, held against the numbers themselves."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import ModifiedError
from tinygrad_rnn.see import building as module
from tinygrad_rnn.see import look
from tinygrad_rnn.see.graph import Graph
from tinygrad_rnn.see.look import legend, lines
from tinygrad_rnn.see.notation import plain
from tinygrad_rnn.see.publishing import asset

SPACE = "{http://www.w3.org/2000/svg}"


def graph(*arguments, **options):
    return module.graph(*arguments, **options)


def leaf(values, name, **options):
    return tg.tensor(np.asarray(values), requires_grad=True, name=name, **options)


def said(model: Graph) -> dict[str, list[str]]:
    """The lines of each box by the name or the operation in it."""
    return {n.name or n.op or n.text: [line.text for line in lines(n)] for n in model.nodes if not n.of}


def classes(svg: str) -> dict[str, str]:
    """The class of every line of text."""
    return {e.text: e.get("class") for e in ET.fromstring(svg).iter(f"{SPACE}text")}


def example():
    a, b = leaf(2.0, "a"), leaf([1.0, 2.0, 3.0], "b")
    z = tg.tanh(a * b)
    z.name = "z"
    loss = (z * z).sum()
    loss.name = "loss"
    return a, b, z, loss


# -- numbers ---------------------------------------------------------------------------------------


def test_each_box_shows_operation_formula_shape_dtype_value_and_gradient():
    a, b, z, loss = example()
    boxes = said(graph([loss]))
    (gradient,) = tg.pullback(loss, [z])
    assert boxes["a"] == ["a", "scalar float64", "= 2", f"\u2207 {tg.pullback(loss, [a])[0].item():.3g}"]
    values, slopes = (", ".join(f"{x:.3g}" for x in t.numpy()) for t in (z, gradient))
    assert boxes["z"] == ["z", "tanh", "3 float64", f"= {values}", f"\u2207 {slopes}"]
    assert boxes["mul"][0] == "mul  a \u2299 b" and boxes["loss"][1] == "sum  \u2211 x"
    assert a.grad is b.grad is None


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("make", [nn.RNN, nn.MinimalGRU, nn.GRU, nn.LSTM], ids=lambda make: make.__name__)
def test_the_numbers_of_every_box_are_those_of_the_engine(make, fused):
    layer = make(3, 5, fused=fused, dtype=np.float64, rng=np.random.default_rng(2))
    x = leaf(np.random.default_rng(1).standard_normal((4, 2, 3)), "x")
    y = layer(x)[0]
    tape = tg.tape(y)[::-1]
    model = graph([y])
    by_id = {n.id: n for n in model.nodes if not n.of}
    wanted = [t for t in tape if t.requires_grad]
    gradients = dict(zip([t.age for t in wanted], tg.pullback(y, wanted, np.ones(y.shape)), strict=True))
    for i, t in enumerate(tape):
        node = by_id[f"n{i}"]
        assert node.value.norm == pytest.approx(float(np.linalg.norm(t.numpy()))), node
        if t.age in gradients:
            assert node.gradient.norm == pytest.approx(float(np.linalg.norm(gradients[t.age].numpy()))), node
            assert node.gradient.high == pytest.approx(float(gradients[t.age].numpy().max())), node
        else:
            assert node.gradient is None and node.state == "constant"


def test_a_picture_is_the_same_before_and_after_backward_but_for_what_grad_holds():
    a, _, _, loss = example()
    before = graph([loss])
    assert {n.grad for n in before.nodes if n.role == "parameter"} == {"not run"}
    assert any(".grad: not run" in tip.text for tip in ET.fromstring(tg.draw(loss).svg).iter(f"{SPACE}title"))
    loss.backward()
    after = graph([loss])
    assert [lines(n) for n in before.nodes] == [lines(n) for n in after.nodes]
    assert {n.name: n.grad for n in after.nodes if n.grad}["a"] == f"{a.grad.item():.3g}"


def test_the_incoming_gradient_can_be_given_and_is_ones_otherwise():
    b = leaf([1.0, 2.0, 3.0], "b")
    y = b * 2.0
    y.name = "y"
    assert said(graph([y]))["b"][-1] == "\u2207 2, 2, 2" and graph([y]).of == "the sum of y"
    assert said(graph([y], grad=[1.0, 0.0, 5.0]))["b"][-1] == "\u2207 2, 0, 10"
    assert said(tg.draw(y, grad=[1.0, 0.0, 5.0]).graph)["b"][-1] == "\u2207 2, 0, 10"
    assert said(tg.draw(y, grads=False, values=False).graph)["b"] == ["b", "3 float64"]
    assert graph([example()[-1]]).of == "loss"


def test_no_gradient_is_told_apart_from_zero():
    a, x = leaf([1.0, 2.0], "a"), leaf([3.0, 4.0], "x")
    y = (a * 0.0).sum() + tg.where(tg.floor(x) > 3.0, 1.0, 2.0).sum() + stairs(x).sum() + (x.detach() * a).sum()
    boxes = {n.name: n for n in graph([y]).nodes if n.role == "parameter"}
    assert boxes["a"].state == "" and boxes["a"].gradient.numbers == (3.0, 4.0)
    zero = graph([(a * 0.0).sum()])
    assert said(zero)["a"][-1] == "\u2207 0, 0"
    only = graph([(a * gate(a, x)).sum()])
    assert said(only)["x"][-1] == "\u2207 not reached"


@tg.primitive("elementwise")
def stairs(xp, x):
    return xp.floor(x)


@tg.primitive("elementwise", da=lambda g: g)
def gate(xp, a, b):
    """b has no derivative here, though a gradient flows to it."""
    return a + 0.0 * b


def test_what_was_changed_afterwards_says_so_and_the_rest_stays_true():
    x, w = leaf(2.0, "x"), leaf(3.0, "w")
    y = x * w + x
    w.assign_(100.0)
    boxes = said(graph([y]))
    assert boxes["w"][-1] == "changed since it was read" and boxes["w"][2] == "= 100"
    assert boxes["w"][3] == "\u2207 2" and boxes["x"][-1] == "\u2207 lost"
    svg = tg.draw(y).svg
    assert classes(svg)["\u2207 lost"] == "bad" and 'class="edge lost"' in svg
    assert "which was changed afterwards" in svg


def test_a_rule_that_fails_leaves_a_picture_without_gradients():
    @tg.primitive("elementwise", dx=lambda g, x: [g])
    def broken(xp, x):
        return x * 1.0

    x = leaf([1.0, 2.0], "x")
    assert said(graph([broken(x)]))["x"][-1] == "\u2207 not run"
    assert "not an array" in next(n.state for n in graph([broken(x)]).nodes if n.name == "x")


def test_what_is_not_finite_is_red_and_named():
    x = leaf([0.0, 1.0, 4.0, 9.0, 16.0], "x")
    y = (tg.sqrt(x) * 0.0).sum()
    svg = tg.draw(y).svg
    assert classes(svg)["\u2207 1 nan"] == "bad" and 'class="node parameter named broken"' in svg
    assert "#b00020" in tg.draw(y).dot
    assert "broken" not in tg.draw((x * 2.0).sum()).svg.partition("</style>")[2]


def test_json_is_json_even_with_numbers_that_are_none():
    x = leaf([np.nan, np.inf, -np.inf, 1.0], "x")
    with np.errstate(all="ignore"):
        model = graph([x * 2.0])
    refused = lambda word: pytest.fail(f"{word} is no JSON")  # noqa: E731
    data = json.loads(model.to_json(), parse_constant=refused)
    assert data["nodes"][0]["value"]["numbers"] == ["nan", "inf", "-inf", 1.0]
    again = Graph.from_json(model.to_json())
    assert again.to_json() == model.to_json()


# -- marks -----------------------------------------------------------------------------------------


def test_where_gradients_stop_there_is_a_mark():
    w, h = leaf([1.0, 2.0], "w"), leaf([0.5, 0.25], "h")
    with tg.no_grad():
        mask = w * 2.0
    mask.name = "mask"
    state = tg.tanh(h * w)
    state.name = "state"
    model = graph([(state.detach() * w + mask).sum()])
    boxes = said(model)
    assert boxes["state"][-1] == "\u2225 detached" and boxes["mask"][-1] == "\u2225 mul under no_grad()"
    assert ("\u2225  gradients stop here") in [entry.text for entry in legend(model)]
    assert not any(line.startswith("\u2225") for line in boxes["w"])


def test_truncated_back_propagation_shows_its_cut():
    layer = nn.GRU(3, 5, fused=False, rng=np.random.default_rng(2))
    x = tg.tensor(np.ones((3, 2, 3), np.float32), name="x")
    _, h = layer(x)
    output, _ = layer(x, h.detach())
    stops = [n.stop for n in graph([output]).nodes if n.stop]
    assert stops == ["detached"]


@pytest.mark.parametrize("f", [
    lambda a, b: a * b, lambda a, b: a + b, lambda a, b: tg.tanh(a) * 2.0 + b, lambda a, b: tg.exp(a) / b,
    lambda a, b: tg.stack([a, b]), lambda a, b: tg.where(a > 0.0, a, b), lambda a, b: (a @ b) * a,
    lambda a, b: a[0] * b, lambda a, b: tg.square(a).sum() + tg.maximum(a, b),
], ids=range(9))  # fmt: skip
def test_saved_is_what_cannot_be_changed_before_backward(f):
    """The other oracle: whoever writes to a leaf that the way back reads gets a ModifiedError."""
    for changed in (0, 1):
        pair = [leaf(np.random.default_rng(i).standard_normal((3, 3)), "ab"[i]) for i in (0, 1)]
        y = f(*pair).sum()
        saved = {n.name: n.saved for n in graph([y]).nodes if n.role == "parameter"}
        pair[changed].assign_(0.0)
        try:
            y.backward()
            assert not saved["ab"[changed]]
        except ModifiedError:
            assert saved["ab"[changed]]


def test_every_arrow_names_its_argument_and_tells_the_local_derivative():
    a, b, _, loss = example()
    model = graph([loss])
    named = {n.id: n for n in model.nodes}
    arrows = [e for e in model.edges if named[e.target].name != "loss"]
    found = {(named[e.source].name or named[e.source].op, e.name): e for e in arrows}
    assert plain(found["a", "a"].slope) == "\u0233 \u2299 b"
    assert plain(found["mul", "x"].slope) == "\u0233 - \u0233 \u2299 y \u2299 y"
    assert found["a", "a"].broadcast and not found["b", "b"].broadcast
    g = tg.pullback(loss, [next(t for t in tg.tape(loss) if t.op and t.op.name == "mul" and t.inputs[0] is a)])[0]
    assert found["a", "a"].contribution.numbers == pytest.approx(tuple((g.numpy() * b.numpy()).tolist()))
    svg = tg.draw(loss).svg
    tips = [e.text for e in ET.fromstring(svg).iter(f"{SPACE}title")]
    start = "a enters mul; local derivative 1, 2, 3; adds \u0233 \u2299 b, with \u0233 the gradient of mul: "
    assert any(tip.startswith(start)
               and tip.endswith(", summed to scalar") for tip in tips)  # fmt: skip
    assert {"a \u2211", "b", "x"} <= set(classes(svg))


# -- title, legend, colours ------------------------------------------------------------------------


def test_the_title_counts_operations_and_parameters():
    assert look.headline(graph([example()[-1]]), "") == "4 operations, 2 parameters (4 numbers)"
    cell = nn.GRUCell(3, 5)
    y = cell(tg.zeros((2, 3)))
    assert look.headline(graph([y]), "A step") == f"A step: {sum(t.op is not None for t in tg.tape(y))} operations, " \
        f"3 parameters ({sum(p.size for p in cell.parameters())} numbers)"  # fmt: skip
    layer = nn.GRU(3, 5, fused=False)
    y = layer(tg.zeros((30, 2, 3)))[0]
    count = sum(t.op is not None for t in tg.tape(y))
    for options in ({}, {"roll": True}, {"depth": 0}, {"steps": [3]}):
        assert look.headline(tg.draw(y, **options).graph, "").startswith(
            f"{count} operations, 3 parameters (135 numbers)"
        )


def test_the_legend_explains_what_there_is_and_nothing_else():
    words = [entry.text for entry in legend(graph([example()[-1]]))]
    assert "operation, with its result" in words and "parameter: has a gradient" in words
    assert not any("gate" in word or "constant" in word or "no gradient" in word for word in words)
    gru = [entry.text for entry in legend(tg.draw(nn.GRU(3, 5, fused=False)(tg.zeros((9, 2, 3)))[0]).graph)]
    assert {"z: update gate", "r: reset gate", "n: candidate", "h: state"} <= set(gru)
    assert any(word.startswith("cells.0.W 3\u00d715, used 3 times, \u2207 \u2016") for word in gru) is False
    lstm = [entry.text for entry in legend(graph([nn.LSTMCell(3, 5)(tg.zeros((2, 3)))[0]]))]
    assert {"i: input gate", "f: forget gate", "g: candidate", "o: output gate", "c: cell state"} <= set(lstm)
    closed = legend(tg.draw(nn.GRU(3, 5, fused=False)(tg.zeros((9, 2, 3)))[0], steps=[]).graph)
    assert any(entry.text.startswith("cells.0.W 3\u00d715, used 3 times, \u2207 \u2016") for entry in closed)
    assert "legend" not in tg.draw(example()[-1], legend=False).dot


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = digits if len(digits) == 6 else "".join(c * 2 for c in digits)
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """As WCAG 2.1 defines it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def fills(css: str, pattern: str) -> set[str]:
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", css)
    return {m[1] for selector, body in rules if re.search(pattern, selector)
            if (m := re.search(r"fill:(#[0-9a-f]+)", body))}  # fmt: skip


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_on_every_box(dark):
    """At least 4.5 to 1, in light and in dark."""
    light, _, night = asset("picture.css").partition("@media")
    css = night.partition("{")[2] if dark else light
    texts = fills(css, r"text|\.facts|\.value|\.grad|\.bad")
    papers = fills(css, r"\.box|\.paper|\.frame\.step")
    assert len(texts) >= 4 and len(papers) >= 9
    assert min(contrast(text, paper) for text in texts for paper in papers) >= 4.5
    for name, tint in look.TINTS.items():
        rule = re.search(rf"\.t-{name}>\.box[^{{]*\{{fill:(#[0-9a-f]+);stroke:(#[0-9a-f]+)\}}", css)
        assert rule and (dark or (rule[1], rule[2]) == tint)


def test_text_fits_into_its_box():
    """On any machine: a letter of a fixed-width font is 0.6 of its size wide."""
    svg = tg.draw(nn.LSTM(3, 5, fused=False)(tg.zeros((3, 2, 3)))[0], engine="wasm").svg
    for group in ET.fromstring(svg).iter(f"{SPACE}g"):
        if "node" in group.get("class", "").split():
            frame = next(e for e in group if "box" in e.get("class", "") and e.tag != f"{SPACE}title")
            width = float(frame.get("width") or 2 * float(frame.get("rx", 0)) or 1e9)
            texts = [e for e in group if e.tag == f"{SPACE}text"]
            assert all(len(e.text) * 6.65 <= width for e in texts), [e.text for e in texts]
            if frame.get("y"):
                top, height = float(frame.get("y")), float(frame.get("height"))
                assert all(top + 8 <= float(e.get("y")) <= top + height - 2 for e in texts)


def test_stubs_of_one_tensor_can_be_found_together():
    svg = tg.draw(nn.GRU(3, 5, fused=False)(tg.zeros((3, 2, 3)))[0]).svg
    of = re.findall(r'data-of="(p[0-9a-f]+-n\d+)"', svg)
    assert len(of) == 3 * len(set(of)) > 0 and all(f'id="{name}"' in svg for name in of)


@pytest.mark.parametrize(
    ("owner", "function", "old", "new", "check"),
    [
        (module, "_read_again", "- shapes", "", lambda: test_saved_is_what_cannot_be_changed_before_backward(
            lambda a, b: tg.stack([a, b]))),
        (module._Builder, "_numbers", "if gradients and not state", "if gradients", None),
        (module._Builder, "_edge", "broadcast=given is not None and given.broadcast", "broadcast=False",
         test_every_arrow_names_its_argument_and_tells_the_local_derivative),
        (look, "_numbers", '"bad" if found.broken else kind', "kind", test_what_is_not_finite_is_red_and_named),
        (look, "counts", "graph.hidden + sum(node.count for", "graph.hidden + sum(1 for",
         test_the_title_counts_operations_and_parameters),
    ],
)  # fmt: skip
def test_a_picture_that_lies_is_caught(owner, function, old, new, check, monkeypatch):
    if check is None:
        check = test_what_was_changed_afterwards_says_so_and_the_rest_stays_true
        old, new = "self.book.state(tensors[-1])", '""'
    check()
    if function == "_read_again":
        module._read_again.cache_clear()
        monkeypatch.setattr(module, "_read_again", lambda op: frozenset({*op.arrays, "y"}))
    else:
        mutated(monkeypatch, owner, function, old, new)
    with pytest.raises((AssertionError, KeyError, pytest.fail.Exception)):
        check()


def test_numbers_of_the_contrast_are_those_of_the_standard():
    assert contrast("#000", "#fff") == pytest.approx(21.0) and math.isclose(
        contrast("#777", "#fff"), 4.478, abs_tol=1e-3
    )


def test_an_arrow_tells_the_numbers_of_the_local_derivative_and_of_the_contribution():
    x = leaf([1.0, 2.0], "x")
    (edge,) = graph([x * 3.0], grad=[5.0, 7.0]).edges
    assert edge.local.numbers == (3.0, 3.0) and edge.contribution.numbers == (15.0, 21.0)
    tips = [e.text for e in ET.fromstring(tg.draw(x * 3.0).svg).iter(f"{SPACE}title")]
    assert any("local derivative 3, 3; adds 3 \u0233" in tip for tip in tips)
    assert graph([x @ leaf([1.0, 1.0], "w")]).edges[0].local is None  # a product has no such numbers


def test_a_rule_of_a_users_own_that_raises_is_named():
    @tg.primitive("elementwise", latex=r"\frac{{x}", dx=lambda g: 1 / 0)
    def hopeless(xp, x):
        return x * 1.0

    y = hopeless(leaf([1.0, 2.0], "x")).sum()
    assert said(tg.draw(y).graph)["x"][-1] == "\u2207 not run"
    for show in (tg.trace_table, tg.play, lambda y: tg.explain(tg.tape(y)[-1], of=y)):
        with pytest.raises(tg.errors.PrimitiveError, match="a rule of hopeless failed: ZeroDivisionError"):
            show(y)


def test_a_notation_that_is_no_latex_is_shown_as_text():
    @tg.primitive("elementwise", latex=r"\frac{{x}", dx=lambda g: g)
    def odd(xp, x):
        return x * 1.0

    y = odd(leaf([1.0, 2.0], "x")).sum()
    assert "<svg" in tg.draw(y).svg and "<math" in tg.play(y).html and "<math" in tg.trace_table(y).html


def test_names_are_no_markup_in_markdown():
    y = leaf([1.0, 2.0], "<script>`x`</script>") * 2.0
    for text in (tg.trace_table(y).markdown, tg.explain(tg.tape(y)[-1], of=y).markdown):
        assert not re.search(r"(?<!\\)[<`]", text)


def test_dot_has_signs_for_the_legend_and_marks_what_is_saved():
    dot = tg.draw(nn.GRUCell(3, 5)(tg.zeros((2, 3)))).dot
    for words in (
        "rounded box: operation",
        "dashed box: parameter",
        "blue: z: update gate",
        "dashed arrow: no gradient",
    ):
        assert words in dot
    assert "z \u2022\\nsigmoid" in dot


def test_constants_are_laid_out_as_the_ellipses_that_they_are():
    x = leaf([1.0, 2.0, 3.0], "x")
    drawing = tg.draw(tg.where(x > 1.5, x, 0.0 * x))
    (constant,) = (n for n in drawing.graph.nodes if n.role == "constant")
    assert next(o for o in drawing._laid_out["objects"] if o["name"] == constant.id)["shape"] == "ellipse"


def test_argument_names_stand_before_the_box_they_lead_to():
    logits = leaf([[1.0, 2.0, 3.0]], "scores")
    svg = tg.draw(nn.cross_entropy(logits * 2.0, np.array([1])), engine="wasm").svg
    root = ET.fromstring(svg)
    boxes = [r for g in root.iter(f"{SPACE}g") if "node" in g.get("class", "").split() for r in g.iter(f"{SPACE}rect")]
    for edge in (g for g in root.iter(f"{SPACE}g") if "edge" in g.get("class", "").split()):
        for text in edge.iter(f"{SPACE}text"):
            right, y = float(text.get("x")), float(text.get("y")) - 3
            left = right - 5.5 * len(text.text)
            for box in boxes:
                x, top = float(box.get("x")), float(box.get("y"))
                inside = top < y < top + float(box.get("height"))
                assert not inside or right <= x or left >= x + float(box.get("width")), text.text
