"""What is shown of a computation: open and closed modules, left out and rolled time steps; held against the whole."""

from __future__ import annotations

import numpy as np
import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import OptionError
from tinygrad_rnn.see import building as module
from tinygrad_rnn.see.dot import write
from tinygrad_rnn.see.graph import Graph
from tinygrad_rnn.see.view import LONG, View

N, I, H = 4, 3, 5  # noqa: E741
CELLS = [nn.RNN, nn.MinimalGRU, nn.GRU, nn.LSTM]


VIEWS = {
    "auto": View(), "first": View(steps=3), "ends": View(steps=[0, 8]),
    "middle": View(steps=slice(2, 5), collapse=True),
    "cells": View(depth=1), "one": View(collapse=lambda group: group.step == 4, steps="all"), "layers": View(depth=0),
    "rolled": View(roll=True),
}  # fmt: skip


def graph(*arguments, **options):
    return module.graph(*arguments, **options)


def unrolled(T, make=nn.GRU, lengths=None, learn_x=False, **options):
    x = tg.tensor(np.random.default_rng(1).standard_normal((T, N, I)), dtype=np.float32, name="x")
    x.requires_grad = learn_x
    layer = make(I, H, rng=np.random.default_rng(2), fused=False, **options)
    for name, parameter in layer.named_parameters():
        if name.endswith("b"):
            parameter.assign_(np.random.default_rng(3).standard_normal(parameter.shape))
    return layer(x, lengths=lengths)[0]


def steps(model: Graph) -> list[int]:
    return [g.step for g in model.groups if g.step is not None]


def closed(model: Graph) -> list[str]:
    return [n.text for n in model.nodes if n.role in ("step", "module")]


def whole_and_sound(model: Graph) -> None:
    """Arrows have ends that are drawn, boxes stand in frames that are there, ids are unique, nothing hangs loose."""
    ids = [n.id for n in model.nodes] + [e.id for e in model.edges] + [g.id for g in model.groups]
    assert len(ids) == len(set(ids))
    drawn = {n.id for n in model.nodes if not n.listed}
    assert {e.source for e in model.edges} | {e.target for e in model.edges} <= drawn
    frames = {g.id for g in model.groups}
    assert {n.group for n in model.nodes} | {g.parent for g in model.groups} <= frames | {""}
    leading = {e.source for e in model.edges}
    stubbed = {n.of for n in model.nodes}
    assert all(n.result or n.id in leading or n.id in stubbed or n.listed for n in model.nodes)
    assert {n.of for n in model.nodes if n.of} <= {n.id for n in model.nodes}


def lost_arrows(whole: Graph, folded: Graph) -> set[tuple[str, str]]:
    """The ways from box to box that the whole picture has and the folded one has not, worked out from the groups."""
    step_of = {n.id: whole.within(n.group) for n in whole.nodes}
    shown = {n.id for n in folded.nodes}
    boxes = {n.id: n for n in folded.nodes if n.role in ("step", "module")}
    frames = {g.id for g in folded.groups}

    def box(node: str) -> str | None:
        if node in shown:
            return node
        outermost = [g for g in step_of[node] if g not in frames]
        inside = [b for b in boxes if outermost and int(b[1:].split("_")[0]) <= int(outermost[-1][1:])
                  <= int(b[1:].split("_")[-1])]  # fmt: skip
        return inside[0] if inside else None

    stubs = {n.id: n.of for n in whole.nodes if n.of}
    have = {(stubs.get(e.source, e.source), e.target) for e in folded.edges}
    of = {n.id: n.of for n in folded.nodes if n.of}
    have |= {(of.get(e.source, e.source), e.target) for e in folded.edges}
    wanted = set()
    for e in whole.edges:
        source, target = box(stubs.get(e.source, e.source)), box(e.target)
        if source and target and source != target:
            wanted.add((source, target))
    return wanted - have


@pytest.mark.parametrize("make", CELLS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("options", [
    {}, {"lengths": [9, 4, 9, 1]}, {"bidirectional": True, "num_layers": 2}, {"learn_x": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("view", VIEWS)
def test_every_picture_is_sound(make, options, view):
    model = graph([unrolled(9, make, **options)], VIEWS[view])
    whole_and_sound(model)
    assert sum(n.result for n in model.nodes) == 1


@pytest.mark.parametrize("make", CELLS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("steps", ["auto", 3, [0, 8], [4]], ids=str)
def test_no_way_from_box_to_box_is_lost(make, steps):
    y = unrolled(9, make)
    whole, folded = graph([y]), graph([y], View(steps=steps, collapse=False))
    missing = lost_arrows(whole, folded)
    names = {n.id: n for n in folded.nodes}
    # what all steps share (the weights by gate) has stubs in open steps and is taken for granted in closed ones
    assert all(names[target].role == "step" and names[source].op == "index" for source, target in missing)


def test_up_to_six_steps_are_shown_and_of_more_the_two_ends():
    assert steps(graph([unrolled(LONG, nn.RNN)], View())) == list(range(LONG))
    model = graph([unrolled(100)], View())
    assert steps(model) == [0, 1, 98, 99] and closed(model) == ["\u2026 96 more steps \u2026"]
    (box,) = (n for n in model.nodes if n.role == "step")
    assert box.count == 96 * 20 and box.name == "h" and box.shape == (N, H)


@pytest.mark.parametrize(("chosen", "shown", "boxes"), [
    (2, [0, 1], ["\u2026 7 more steps \u2026"]),
    ([4], [4], ["\u2026 4 more steps \u2026", "\u2026 4 more steps \u2026"]),
    (slice(7, None), [7, 8], ["\u2026 7 more steps \u2026"]),
    ("all", list(range(9)), []),
    ([0, 2, 4, 6, 8], [0, 2, 4, 6, 8], ["t = 1", "t = 3", "t = 5", "t = 7"]),
    ([], [], ["\u2026 9 more steps \u2026"]),
    (np.int64(2), [0, 1], ["\u2026 7 more steps \u2026"]),
], ids=str)  # fmt: skip
def test_steps_can_be_chosen(chosen, shown, boxes):
    model = graph([unrolled(9)], View(steps=chosen))
    assert steps(model) == shown and closed(model) == boxes


def test_with_too_many_operations_the_first_step_stays_open_alone():
    model = graph([unrolled(6, nn.LSTM)], View())
    assert steps(model) == [0] and closed(model) == [f"t = {t}" for t in range(1, 6)]
    assert closed(graph([unrolled(6, nn.LSTM)], View(collapse=False))) == []
    assert closed(graph([unrolled(6, nn.LSTM)], View(steps="all"))) == []


def test_a_closed_step_shows_the_state_that_leaves_it():
    y = unrolled(9)
    model = graph([y], View(steps=[0]))
    states = [t for t in tg.tape(y) if t.name == "h"][::-1]
    (box,) = (n for n in model.nodes if n.role == "step")
    assert box.value.high == pytest.approx(float(states[8].numpy().max())) and box.part == "h"
    (gradient,) = tg.pullback(y, [states[8]], np.ones(y.shape, np.float32))
    assert box.gradient.norm == pytest.approx(float(np.linalg.norm(gradient.numpy())))


def test_modules_close_by_depth_name_kind_and_function():
    y = unrolled(3, num_layers=2)
    assert closed(graph([y], View(depth=0))) == ["GRU"]
    assert closed(graph([y], View(depth=1))) == ["GRUCell", "GRUCell"]
    for collapse in (
        ["GRUCell"],
        ["cells.0", "cells.1"],
        lambda group: group.kind == "GRUCell",
        ["gru.cells.0", "cells.1"],
    ):
        assert closed(graph([y], View(collapse=collapse))) == ["GRUCell", "GRUCell"]
    assert closed(graph([y], View(collapse=["cells.0"]))) == ["GRUCell"]
    assert closed(graph([y], View(collapse=True))) == ["GRU"]
    assert closed(graph([y], View(collapse=[]))) == []


def test_parameters_inside_of_closed_boxes_are_listed():
    model = graph([unrolled(9)], View(steps=[]))
    listed = {n.name: n for n in model.nodes if n.listed}
    assert set(listed) == {"cells.0.W", "cells.0.U", "cells.0.b"} and all(n.gradient for n in listed.values())
    assert not any(e.source in {n.id for n in listed.values()} for e in model.edges)


def test_a_longer_loop_has_no_larger_picture():
    sizes = {(len(m.nodes), len(m.edges)) for m in (graph([unrolled(T)], View()) for T in (20, 50, 300))}
    assert len(sizes) == 1


def test_equal_steps_are_rolled_into_one_with_a_loop():
    y = unrolled(7)
    once, model = graph([unrolled(1)]), graph([y], View(roll=True))
    inside = lambda m: sorted(n.text for n in m.nodes if n.op and m.within(n.group)[0:1] == (frame(m),))  # noqa: E731
    frame = lambda m: next(g.id for g in m.groups if g.step == 0)  # noqa: E731
    assert inside(model) == inside(once) and len(inside(model)) == 20
    (group,) = (g for g in model.groups if g.step is not None)
    assert (group.step, group.last) == (0, 6)
    loops = [e for e in model.edges if e.loop]
    named = {n.id: n for n in model.nodes}
    assert {named[e.source].name for e in loops} == {"h"} and {e.count for e in loops} == {6}
    assert sorted(named[e.target].op for e in loops) == ["matmul", "matmul", "mul", "mul"]
    assert not [n for n in model.nodes if n.of]


def test_a_rolled_box_shows_the_numbers_of_all_its_steps():
    y = unrolled(7)
    model = graph([y], View(roll=True))
    states = np.stack([t.numpy() for t in tg.tape(y) if t.name == "h"])
    (h,) = (n for n in model.nodes if n.name == "h")
    assert (h.value.low, h.value.high, h.count) == (pytest.approx(states.min()), pytest.approx(states.max()), 7)
    (x,) = (n for n in model.nodes if n.name == "x")
    assert x.count == 7 and x.value.size == 7 * N * I


def test_steps_that_differ_are_rolled_apart():
    model = graph([unrolled(7, lengths=[7, 3, 7, 5])], View(roll=True))
    assert [(g.step, g.last) for g in model.groups if g.step is not None] == [(0, 2), (3, 6)]
    single = graph([unrolled(7, lengths=[7, 6, 7, 6])], View(roll=True))
    assert [(g.step, g.last) for g in single.groups if g.step is not None] == [(0, 5), (6, None)]


@pytest.mark.parametrize("wrong", [
    {"depth": -1}, {"depth": True}, {"depth": "x"}, {"depth": 1.5}, {"collapse": "GRU"}, {"collapse": None},
    {"collapse": 5}, {"collapse": [1]}, {"steps": "some"}, {"steps": 3.5}, {"steps": None}, {"steps": -1},
    {"steps": True}, {"steps": ["a"]}, {"roll": "yes"},
], ids=str)  # fmt: skip
def test_settings_without_a_meaning_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(OptionError, match=name):
        tg.draw(unrolled(3), **wrong)


@pytest.mark.parametrize(
    ("owner", "function", "old", "new", "check"),
    [
        (module, "_tidied", "leaving[edge.source] -= 1", "pass", test_parameters_inside_of_closed_boxes_are_listed),
        (module, "_tidied", "listed = leaf and not node.result and", "listed = False and",
         test_parameters_inside_of_closed_boxes_are_listed),
        (module._Builder, "_edge", "loop=self._in_loop(x, t)", "loop=False",
         test_equal_steps_are_rolled_into_one_with_a_loop),
        (module._Builder, "_node", "[t, *self.members.get(t.age, [])]", "[t]",
         test_a_rolled_box_shows_the_numbers_of_all_its_steps),
        (module._Builder, "_module", "(leaving or box.tensors)[-1]", "box.tensors[0]",
         test_a_closed_step_shows_the_state_that_leaves_it),
    ],
)  # fmt: skip
def test_a_view_that_breaks_a_promise_is_caught(owner, function, old, new, check, monkeypatch):
    check()
    mutated(monkeypatch, owner, function, old, new)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("T", [4, 9])
def test_every_layer_shows_when_its_steps_are_closed(T):
    """Also where parameters are all that there is, as in a layer over an x that learns."""
    y = unrolled(T, num_layers=2, learn_x=True)
    model = graph([y], View(steps="all", collapse=lambda group: group.step is not None))
    assert closed(model).count("t = 0") == 2 and len(closed(model)) == 2 * T
    stacks = [n.id for n in model.nodes if n.op == "stack"]
    assert len(stacks) == 2 and any(e.source == stacks[0] and e.target.startswith("b") for e in model.edges)


@pytest.mark.parametrize("make", CELLS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("steps", [1, [0, 2], [1, 2], slice(-2, None), [1], []], ids=str)
def test_what_is_rolled_is_what_is_shown(make, steps):
    """Every step is in one box: those that are left out are counted there, and in no rolled one."""
    y = unrolled(3, make, num_layers=2)
    model = graph([y], View(roll=True, steps=steps))
    whole_and_sound(model)
    operations = sum(t.op is not None for t in tg.tape(y))
    shown = sum(n.count for n in model.nodes if (n.role == "operation" or n.closed) and not n.of)
    assert shown + model.hidden == operations


def test_a_leaf_that_is_still_used_is_drawn():
    model = graph([unrolled(3, num_layers=2, bidirectional=True)], View(collapse=["cells.0"]))
    whole_and_sound(model)
    drawn = {n.id for n in model.nodes if not n.listed}
    assert all(f"\t{name} [" in write(model) for name in drawn)
