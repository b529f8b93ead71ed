"""The page to step through, without a browser: the steps as data against the engine, the pictures, and the page."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from xml.etree import ElementTree

import numpy as np
import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.errors import DrawError, GraphError, OptionError, OutputError
from tinygrad_rnn.see import player as player_module
from tinygrad_rnn.see.ledger import ledger
from tinygrad_rnn.see.look import LETTER, columns, lines
from tinygrad_rnn.see.player import pictures as parts_module
from tinygrad_rnn.see.player import templates as templates_module
from tinygrad_rnn.see.player import trace as trace_module
from tinygrad_rnn.see.show import LONGEST, computation
from tinygrad_rnn.see.summary import summary

HOSTILE = "</script><script>window.stolen=1</script>\"'\\ \n\u202e{\U0001f642}<img src=x onerror=alert(1)>שלום"
BUDGET = 1_000_000
"""How many bytes the page of a layer of 20 steps may have."""


def leaf(values, name):
    return tg.tensor(np.asarray(values, float), requires_grad=True, name=name)


def gru(steps, **options):
    layer = nn.GRU(3, 5, fused=False, rng=np.random.default_rng(0), **options)
    for parameter in layer.parameters():
        if parameter.ndim == 1:
            parameter.assign_(np.random.default_rng(3).standard_normal(parameter.shape))
    x = tg.tensor(np.random.default_rng(1).standard_normal((steps, 2, 3)).astype(np.float32), name="x")
    output, _ = layer(x)
    loss = (output * output).sum()
    loss.name = "loss"
    return loss, layer


def numbers(trace, array):
    """The numbers behind a place in the trace, in their shape."""
    _, shape, found, *corner = trace["arrays"][array]
    return np.array([float(n) for n in found]).reshape(corner[0] if corner else shape)


def rounded(array):
    return np.array([float(f"{n:.{trace_module.DIGITS}g}") for n in np.ravel(array)]).reshape(np.shape(array))


def cut(array):
    """What is shown of a matrix: its corner, if it has more than 64 numbers."""
    return array[:5, :5] if array.size > 64 else array


def agrees_with_the_engine(y):
    """Every number of the trace, against `pullback` for each tensor alone, and its sums against each other."""
    book = ledger([y])
    trace = trace_module.Trace(book)
    data, tensors = trace.data, {trace.ids[t.age]: t for t in book.tensors}
    assert [node["id"] for node in data["nodes"]] == [trace.ids[t.age] for t in book.tensors[::-1]]
    before: dict[str, object] = {}
    done: set[str] = set()
    for step in data["backward"]:
        t = tensors[step["node"]]
        assert set(step["waited"]) <= done, "a node had its turn before all that used it"
        wanted = tg.pullback(y, [t])[0].numpy()
        np.testing.assert_array_equal(numbers(data, step["gradient"]), rounded(cut(wanted)))
        if step["seed"]:
            before.setdefault(step["node"], step["gradient"])
        assert before.get(step["node"]) == step["gradient"], "the last sum is the gradient"
        for part in step["parts"]:
            assert part["before"] == before.get(part["to"])
            before[part["to"]] = part["after"]
            added, after = numbers(data, part["added"]), numbers(data, part["after"])
            start = 0 if part["before"] is None else numbers(data, part["before"])
            np.testing.assert_allclose(start + added, after, rtol=2e-3, atol=2e-3)
            if part["product"] is not None:
                product = numbers(data, part["product"]).sum(tuple(part["summed"]), keepdims=True)
                np.testing.assert_allclose(product.reshape(added.shape), added, rtol=5e-3, atol=5e-3)
            assert tensors[part["to"]] is t.inputs[part["place"]]
        done.add(step["node"])
    for node in data["nodes"]:
        np.testing.assert_array_equal(numbers(data, node["value"]), rounded(cut(tensors[node["id"]].numpy())))
        assert data["arrays"][node["value"]][0] == str(summary(tensors[node["id"]]._array))
    assert done == {trace.ids[t.age] for t in book.tensors if t.requires_grad}
    return trace


def test_the_steps_of_a_gru_are_what_the_engine_does():
    agrees_with_the_engine(gru(3)[0])


def test_the_steps_of_something_broadcast_and_used_often():
    w, b, s = leaf(np.arange(12.0).reshape(3, 4) / 7, "w"), leaf([0.1, -0.2, 0.3, 0.5], "b"), leaf(2.0, "s")
    column = leaf([[1.0], [2.0], [-1.0]], "column")
    trace = agrees_with_the_engine((tg.tanh(w * s + b) * column * w + w[1:2]).sum() * s)
    summed = {part["to"]: part["summed"] for step in trace.data["backward"] for part in step["parts"] if part["summed"]}
    names = {node["id"]: node["name"] for node in trace.data["nodes"]}
    assert {names[to]: axes for to, axes in summed.items() if not names[to].startswith("v")} == {
        "b": [0], "s": [0, 1], "column": [1],
    }  # fmt: skip


def test_a_result_on_the_way_to_another_starts_from_its_own_gradient():
    x = leaf([1.0, 2.0, 3.0], "x")
    y = x * x
    y.name = "y"
    trace = trace_module.Trace(ledger([y, (y * 5.0).sum()]))
    (step,) = [step for step in trace.data["backward"] if step["node"] == trace.ids[y.age]]
    (part,) = [part for step in trace.data["backward"] for part in step["parts"] if part["to"] == trace.ids[y.age]]
    assert step["seed"] and numbers(trace.data, step["gradient"]).tolist() == [6.0, 6.0, 6.0]
    assert numbers(trace.data, part["before"]).tolist() == [1.0, 1.0, 1.0]


def test_formulas_carry_the_names_of_what_they_are_made_of():
    x, w = leaf([3.0, 1.0], "x"), leaf([2.0, 4.0], "W_z")
    y = tg.sigmoid(x * w) - 1.0
    y.name = "y"
    trace = trace_module.Trace(ledger([y]))
    assert [trace.computed(node["id"]) for node in trace.data["nodes"]] == ["", "", "x ⊙ W_z", "σ(v1)", "v2 - 1"]
    rules = [trace.data["patterns"][part["rule"]] for step in trace.data["backward"] for part in step["parts"]]
    own = trace_module.OWN
    assert rules[:2] == [f"∇{own}", f"∇{own} ⊙ ({own} - {own} ⊙ {own})"]


def test_marks_for_what_has_no_gradient():
    x, c, w = leaf([1.0, 2.0], "x"), tg.tensor([3.0, 4.0], name="c"), leaf([5.0, 6.0], "w")
    cut = (x * 2.0).detach()
    cut.name = "cut"
    y = (x * c * cut + w * c).sum()
    w2 = tg.exp(w)
    y = y + (w2 * w).sum()
    w2_name = w2
    w.assign_(0.0)
    trace = trace_module.Trace(ledger([y]))
    node = {each["name"]: each for each in trace.data["nodes"]}
    assert node["c"]["state"] == "constant" and node["cut"]["stop"] == "detached"
    assert node["w"]["state"] == "" or node["w"]["state"].startswith("lost")
    lost = [part["lost"] for step in trace.data["backward"] for part in step["parts"] if "lost" in part]
    assert lost and all("changed" in why for why in lost) and w2_name.requires_grad


def test_who_was_computed_from_numbers_that_are_gone():
    v, w = leaf([3.0, 1.0], "v"), leaf([1.0, 2.0], "w")
    early = v * w
    w.assign_([5.0, 6.0])
    trace = trace_module.Trace(ledger([(early + early * w).sum()]))
    stale = {node["name"]: node["stale"] for node in trace.data["nodes"]}
    assert stale.pop("w") == [trace.ids[early.age]] and not any(stale.values())


def test_numbers_that_json_does_not_know_and_large_arrays():
    def shown(array, *detail):
        return trace_module.Excerpt(array).shown(*detail)

    big = tg.tensor(np.random.default_rng(0).standard_normal((20, 30)), requires_grad=True)
    text, shape, found, corner = shown(big._array)
    assert shape == [20, 30] and corner == [5, 5] and text == str(summary(big._array))
    assert found == rounded(big.numpy()[:5, :5]).ravel().tolist()
    assert shown(np.array([np.nan, np.inf, -np.inf, -0.0]))[2] == ["nan", "inf", "-inf", 0.0]
    assert shown(np.zeros((4, 5, 6)))[3] == [5, 5] and shown(np.zeros(65))[3] == [5]
    assert shown(np.ones(64))[1:] == [[64], [1.0] * 64]
    assert shown(np.array([True, False]))[2] == [True, False]
    coarse = shown(big._array, 36, 4, 3)
    assert coarse[3] == [4, 4] and coarse[2] == [float(f"{n:.3g}") for n in big.numpy()[:4, :4].ravel()]
    assert shown(np.ones((8, 8)), 36, 4, 3)[2:] == [[1.0] * 16, [4, 4]]
    assert shown(np.ones(36), 36, 4, 3)[1:] == [[36], [1.0] * 36]
    json.dumps(shown(np.array([1 + 2j, 3])), allow_nan=False)


def all_is_drawn_once(y):
    """Each operation stands in one picture as itself, with all that goes into it; stubs lead to what is drawn."""
    full = parts_module.graph([y])
    pictures = parts_module.parts([y], full)
    shown = [n.id for part in pictures for n in part.graph.nodes if not n.of and not n.listed and n.id[0] == "n"]
    wanted = {n.id for n in full.nodes if not (n.of or n.listed)}
    assert len(set(shown)) == len(shown) and wanted == set(shown)
    for part in pictures:
        assert any(n.op and not n.of for n in part.graph.nodes) or not part.id
        own = {n.id: n for n in part.graph.nodes}
        arrows = {e.id for e in part.graph.edges if e.target in own}
        for edge in full.edges:
            if edge.target in own and not own[edge.target].of and own[edge.target].id[0] == "n" and part.id:
                assert edge.id in arrows
        assert all(e.source in own and e.target in own for e in part.graph.edges)
        assert {n.group for n in part.graph.nodes} <= {g.id for g in part.graph.groups} | {""}
    return pictures


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["one", "two, both ways"])
@pytest.mark.parametrize("steps", [3, 9])
def test_every_operation_has_its_place_in_one_picture(steps, options):
    pictures = all_is_drawn_once(gru(steps, **options)[0])
    layers = 4 if options else 1
    assert len(pictures) == 1 + layers * (1 + steps)
    assert len({part.title for part in pictures}) == len(pictures)
    closed = [n for n in pictures[0].graph.nodes if n.role == "step"]
    assert len(closed) == layers * steps, "the overview shows every step of every layer, closed"


def test_masked_steps_and_inputs_with_gradients_have_a_place_too():
    layer = nn.LSTM(3, 5, fused=False, dtype=np.float64)
    all_is_drawn_once(layer(leaf(np.ones((4, 2, 3)), "x"), lengths=[4, 2])[0].sum())


def test_a_small_computation_is_one_picture():
    x = leaf(3.0, "x")
    assert [part.id for part in all_is_drawn_once(tg.tanh(x * x))] == [""]


def test_of_many_boxes_without_steps_whole_calls_are_closed():
    class Deep(nn.Module):
        def __init__(self):
            self.inner = [nn.Linear(4, 4, rng=np.random.default_rng(0)) for _ in range(50)]

        def forward(self, x):
            for layer in self.inner:
                x = tg.tanh(layer(x))
            return x

    pictures = all_is_drawn_once(Deep()(leaf(np.ones((2, 4)), "x")).sum())
    assert len(pictures) == 1 + 50 and pictures[1].path == "deep.inner.0"


def content(html, id):
    return json.loads(re.search(rf'<script type="application/json" id="{id}">(.*?)</script>', html, re.S)[1])


def hostile():
    x, w = leaf([1.0, 2.0, 3.0], HOSTILE), leaf([0.5, 0.25, 0.125], HOSTILE + "2")
    y = (x * w).sum()
    y.name = HOSTILE + "3"
    return y


def nothing_breaks_out(html):
    """Names are text everywhere: no element, no script and no attribute comes from them."""
    assert html.count("<script") == 3 and html.count("</script>") == 3
    assert "<img" not in html and "onerror=" not in re.sub(r"(?:&lt;|\\u003c)img src=x onerror=", "", html)
    names = [node["name"] for node in content(html, "data")["nodes"]]
    assert [name for name in names if not name.startswith("v")] == [printed(HOSTILE + end) for end in ("", "2", "3")]
    assert printed(HOSTILE) not in html and unescape(html).count(printed(HOSTILE)) >= 6


def printed(name):
    return player_module.printable(name)


def test_names_of_any_letters_are_shown_and_break_nothing():
    nothing_breaks_out(tg.play(hostile(), title=HOSTILE).html)


def test_the_page_allows_itself_and_loads_nothing():
    html = tg.play(gru(3)[0]).html
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    links = set(re.findall(r"https?://[^\"' <)]+", html))
    assert links == {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}, "names of languages only"
    assert not re.search(
        r"\s(?:src|href|action|style|on\w+)\s*=\s*[\"']", re.sub(r"<script.*?</script>", "", html, flags=re.S)
    )
    script = "".join(re.findall(r"<script>(.*?)</script>", html, re.S))
    assert not re.search(
        r"\b(eval|Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write|fetch|XMLHttp\w*)\b", script
    )


def test_the_data_of_the_page_are_those_of_the_trace():
    player = tg.play(gru(3)[0])
    found = content(player.html, "data")
    assert {key: found[key] for key in player.trace.data} == json.loads(json.dumps(player.trace.data))
    assert found["of"] == "loss" and repr(player) == f"<Player of {player.steps} steps>"
    templates = re.findall(r'<template id="part-(\w+)">', player.html)
    assert set(templates) == {part["like"] for part in found["parts"]}
    names, patterns = (
        re.search(rf'<template id="{id}">(.*?)</template>', player.html, re.S)[1].count("<math>")
        for id in ("names", "patterns")
    )
    assert names == len(found["ids"]) == len(found["nodes"]) and patterns == len(found["patterns"])


def test_pictures_of_one_structure_share_a_template_and_keep_their_own_texts():
    player = tg.play(gru(9)[0])
    drawn, made = player._drawn
    assert len(drawn) <= 4 and len(made) == len(player.parts) - 1 == 10
    for part in player.parts[1:]:
        own = iter(made[part.id].own)
        text = re.sub(templates_module.HOLE, lambda _, own=own: escape(next(own)), drawn[made[part.id].like])
        assert not list(own)
        picture = ElementTree.fromstring(text)
        found = {each.get("id"): each for each in picture.iter() if each.get("id")}
        graph = player._named(part.graph)
        assert picture[0].text == part.path and {f"-{edge.id}" for edge in graph.edges} < found.keys()
        for node in graph.nodes:
            if not node.listed:
                box, shown = found.pop(f"-{node.id}"), lines(node)
                assert [line.text for line in box.findall(".//{*}text")] == [printed(line.text) for line in shown]
                assert box.get("data-of") == (f"-{node.of}" if node.of else None)
                rectangles = [float(each.get("width")) for each in box.findall(".//{*}rect")]
                assert not rectangles or rectangles[0] > max(columns(line.text) for line in shown) * LETTER


def test_of_many_arrays_less_is_shown(monkeypatch):
    y = gru(3)[0]
    fine = trace_module.Trace(ledger([y])).data["arrays"]
    assert max(len(numbers) for _, _, numbers, *_ in fine) == 45
    monkeypatch.setattr(trace_module, "ROOM", len(json.dumps(fine)) // 2)
    coarse = trace_module.Trace(ledger([y])).data["arrays"]
    assert max(len(numbers) for _, _, numbers, *_ in coarse) <= 16 and len(coarse) == len(fine)
    assert any(corner == [[3, 3]] for _, shape, _, *corner in coarse if shape == [5, 5])


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize(("inputs", "units", "batch"), [(3, 5, 2), (4, 8, 7), (16, 32, 8)])
def test_twenty_steps_stay_within_the_budget(cell, inputs, units, batch):
    layer = getattr(nn, cell)(inputs, units, rng=np.random.default_rng(0))
    x = tg.tensor(np.random.default_rng(1).standard_normal((20, batch, inputs)).astype(np.float32), name="x")
    output, _ = layer(x)
    assert len(tg.play((output * output).sum(), expand=True).html.encode()) < BUDGET


def test_a_player_is_saved_and_shown_in_a_notebook(tmp_path):
    x = leaf(3.0, "x")
    player = tg.play(x * x, tmp_path / "page.html", title="A <title>")
    assert (tmp_path / "page.html").read_text("utf-8") == player.html
    assert "<title>A &lt;title&gt;</title>" in player.html
    frame = player._repr_html_()
    assert 'sandbox="allow-scripts"' in frame and unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]) == player.html
    with pytest.raises(OptionError, match="known suffixes"):
        player.save(tmp_path / "page.txt")
    with pytest.raises(OutputError):
        player.save(tmp_path / "nowhere" / "page.html")


def test_what_cannot_be_played_is_refused():
    x = leaf(3.0, "x")
    with pytest.raises(GraphError, match="play takes a tensor"):
        tg.play(3.0)
    with pytest.raises(GraphError):
        tg.play(x)
    with pytest.raises(DrawError, match="max_nodes=5"):
        tg.play(gru(3)[0], max_nodes=5)
    with pytest.raises(OptionError):
        tg.play(x * x, engine="crayon")


def test_fused_layers_play_as_one_step_or_unfolded():
    layer = nn.GRU(3, 5, rng=np.random.default_rng(0))
    y = layer(tg.tensor(np.ones((3, 2, 3), np.float32)))[0].sum()
    whole, opened = tg.play(y), tg.play(y, expand=True)
    assert "gru_layer" in {node["op"] for node in whole.trace.data["nodes"]}
    assert "gru_layer" not in {node["op"] for node in opened.trace.data["nodes"]} and opened.steps > 3 * whole.steps
    parts = [part for step in whole.trace.data["backward"] for part in step["parts"] if part["rule"] < 0]
    assert parts and all(part["added"] is not None for part in parts)


def test_an_operation_whose_notation_is_no_latex_plays_too():
    x, w = leaf([1.0, 2.0], "x"), leaf([3.0, 4.0], "w")

    @tg.primitive("elementwise", latex=r"\frac{{a}}{{b} \left( }}{", da=lambda g, b: g * b, db=lambda g, a: g * a)
    def unbalanced(xp, a, b):
        return a * b

    try:
        player = tg.play(unbalanced(x, w).sum())
        assert "unbalanced" in [node["op"] for node in player.trace.data["nodes"]] and "</html>" in player.html
    finally:
        del PRIMITIVES["unbalanced"]


def test_nobodys_gradient_is_touched():
    y, layer = gru(3)
    tg.play(y).html  # noqa: B018
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_what_the_commands_show():
    assert computation("lstm", 4).name == "loss"
    for wrong in (("tree", 3), ("gru", 0), ("gru", LONGEST + 1)):
        with pytest.raises(OptionError):
            computation(*wrong)


@pytest.mark.parametrize(
    ("owner", "function", "old", "new", "check"),
    [
        (trace_module.Trace, "_part", "self._array(c.added)", "self._array(c.product)",
         test_the_steps_of_something_broadcast_and_used_often),
        (trace_module.Trace, "_part", "None if before is None else self._array(before)", "None",
         test_the_steps_of_a_gru_are_what_the_engine_does),
        (trace_module, "changed_since", "x.modified > node.age", "x.modified",
         test_who_was_computed_from_numbers_that_are_gone),
        (templates_module, "_widest", "max(same", "min(same",
         test_pictures_of_one_structure_share_a_template_and_keep_their_own_texts),
        (templates_module, "_moved", 'arrows[each["id"]]', 'each["id"]',
         test_pictures_of_one_structure_share_a_template_and_keep_their_own_texts),
        (player_module, "drawings", "> 1 for column", "> 9 for column",
         test_pictures_of_one_structure_share_a_template_and_keep_their_own_texts),
        (trace_module.Excerpt, "shown", "_corner(self.numbers, corner)", "self.numbers",
         test_numbers_that_json_does_not_know_and_large_arrays),
        (trace_module, "_spelled", "if math.isfinite(n) else str(n)", "",
         test_numbers_that_json_does_not_know_and_large_arrays),
        (parts_module, "_homes", "node.of or not node.op or", "",
         test_masked_steps_and_inputs_with_gradients_have_a_place_too),
        (parts_module, "_calm", "leaves - open_too", "leaves", test_a_small_computation_is_one_picture),
        (player_module, "_explained", "safe(e.text)", "e.text",
         test_names_of_any_letters_are_shown_and_break_nothing),
    ],
)  # fmt: skip
def test_a_player_that_breaks_a_promise_is_caught(owner, function, old, new, check, monkeypatch):
    mutated(monkeypatch, owner, function, old, new)
    with pytest.raises((AssertionError, LookupError, ValueError, TypeError)):
        check()
