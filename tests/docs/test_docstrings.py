"""Docstrings as the reference shows them: entries, errors, code and links, and what would break each."""

from __future__ import annotations

import inspect
import pkgutil
from itertools import pairwise
from typing import Any

import pytest
from pages import ROOT, documented

pytest.importorskip("sphinx", reason="only the site needs it")

from building.docstrings import ENTRY, Place, formulas, left_out, place_of, plain, rewritten, shortened

import tinygrad_rnn as tg

HERE = Place(tg.draw)


def shown(text: str, place: Place = HERE) -> list[str]:
    return [line for line in rewritten(text.splitlines(), place) if line]


def test_a_line_with_names_is_an_entry_with_its_continuation() -> None:
    found = rewritten(["Does it.", "", "x, y: what they are,", "    and more.", "z: the last."], HERE)
    assert found == [
        "Does it.", "", "``x``, ``y``", "    what they are,", "    and more.", "", "``z``", "    the last.", "",
    ]  # fmt: skip


def test_entries_may_follow_each_other_on_a_line_and_have_shapes() -> None:
    assert shown("a: one. b (T, N): two; c: three.") == [
        "``a``", "    one.", "``b`` (T, N)", "    two;", "``c``", "    three."
    ]  # fmt: skip
    assert shown("name: of x, which is `a: b`.") == ["``name``", "    of x, which is ``a: b``."]


@pytest.mark.parametrize(
    "text",
    [
        "Variance: the sum of squares.",  # a sentence that begins with its subject
        "what they were made\nfrom: a topological order.",  # a sentence that goes on
        "All else: as before.",
        "see https://example.org",
    ],
)
def test_what_is_no_entry(text: str) -> None:
    assert shown(text) == text.splitlines()


def test_raises_is_an_entry_whose_errors_lead_to_what_they_mean() -> None:
    shape, option = (f":py:class:`~tinygrad_rnn.errors.{name}`" for name in ("ShapeError", "OptionError"))
    assert shown("Raises: ShapeError, if x\n    is odd; OptionError.") == [
        "Raises", f"    {shape}, if x", f"    is odd; {option}."
    ]  # fmt: skip
    assert shown("Raises (when called): ShapeError.") == ["Raises (when called)", f"    {shape}."]
    assert plain("no ShapeErrors, MyShapeError or AxisError") == "no ShapeErrors, MyShapeError or AxisError"


def test_text_after_an_entry_is_no_part_of_it() -> None:
    assert rewritten(["x: it.", "Returns the same."], HERE) == ["``x``", "    it.", "", "Returns the same.", ""]


def test_an_indented_block_is_code_word_for_word() -> None:
    found = rewritten(["As in", "", "    a = b * c", "        `d`_", "", "and so on."], HERE)
    assert found == ["As in", "", "::", "", "        a = b * c", "            `d`_", "", "", "and so on.", ""]


def test_signs_of_markup_are_themselves() -> None:
    assert plain("2 * a_b |c| *x") == r"2 \* a\_b \|c\| \*x"
    assert plain("`x * y`") == "``x * y``"
    assert plain("V. And more") == r"\V. And more"  # else a list, numbered from V
    assert plain("V is") == "V is"


@pytest.mark.parametrize(
    "words, thing, owner, target",
    [
        ("draw", tg.play, "", "tinygrad_rnn.draw"),
        ("tg.seed", tg.randn, "", "tinygrad_rnn.seed"),
        ("nn.GRU", tg.randn, "", "tinygrad_rnn.nn.GRU"),
        ("Recurrent", tg.nn.GRU, "tinygrad_rnn.nn.GRU", "tinygrad_rnn.nn.Recurrent"),
        ("Cell.from_gates", tg.nn.GRUCell, "tinygrad_rnn.nn.GRUCell", "tinygrad_rnn.nn.Cell.from_gates"),
        ("backward", tg.draw, "", "tinygrad_rnn.Tensor.backward"),
        (".grad", tg.pullback, "", "tinygrad_rnn.Tensor.grad"),  # not tg.grad
        ("update", tg.optim.Optimizer, "tinygrad_rnn.optim.Optimizer", "tinygrad_rnn.optim.Optimizer.update"),
        ("Gates", tg.nn.Cell, "tinygrad_rnn.nn.Cell", "tinygrad_rnn.nn.Cell.Gates"),  # not those of see.flow
        ("grad", tg.pullback, "", None),  # its own parameter, not tg.grad
        ("nothing_of_the_kind", tg.draw, "", None),
        ("x + y", tg.draw, "", None),
        ("see.graph.Group", tg.draw, "", None),  # not in the reference
    ],
)
def test_code_leads_to_what_it_names(words: str, thing: Any, owner: str, target: str | None) -> None:
    assert Place(thing, owner).target(words) == target


def test_code_with_a_place_is_a_link_and_without_is_none() -> None:
    assert plain("`draw`", Place(tg.play)) == ":py:obj:`draw <tinygrad_rnn.draw>`"
    assert plain("`no_grad()`", Place(tg.play)) == ":py:obj:`no_grad() <tinygrad_rnn.no_grad>`"
    assert plain("`y`", Place(tg.play)) == "``y``"


def test_only_what_is_public_has_a_place() -> None:
    assert place_of(tg.nn.equations.gru) == "tinygrad_rnn.nn.equations.gru"
    assert place_of(tg.gradcheck) == "tinygrad_rnn.gradcheck"
    assert place_of(None) is None and place_of(tg.nn) is None and place_of(pytest) is None


def test_a_primitive_has_its_formulas() -> None:
    (line, _) = formulas(tg.tanh.primitive)  # type: ignore[attr-defined]
    assert line.startswith(r":math:`y = \tanh(x)`; :math:`\bar{x} = ")
    (line, _) = formulas(tg.matmul.primitive)  # type: ignore[attr-defined]
    assert line.count(":math:") == 3 and r"\bar{b}" in line
    (line, _) = formulas(tg.stack.primitive)  # type: ignore[attr-defined]
    assert r"\bar{{a}_{2}}" in line
    assert formulas(tg.less.primitive) == [":math:`[a < b]`, without a gradient", ""]  # type: ignore[attr-defined]


def test_defaults_are_called_by_their_names() -> None:
    def signature(text: str) -> str | None:
        return shortened(None, "", "", None, None, text, None)[0]  # type: ignore[arg-type]

    assert signature("(dtype=<class 'numpy.float32'>)") == "(dtype=float32)"
    assert signature("(f=<function tanh at 0x7f00>, m=<factory>)") == "(f=tanh, m={})"
    assert signature("(x=1)") == "(x=1)"


def test_plain_values_of_a_class_are_left_out() -> None:
    def out(thing: Any, what: str = "class") -> bool | None:
        return left_out(None, what, "", thing, False, None)  # type: ignore[arg-type]

    assert out(3) and out("text")
    assert out(tg.draw) is None and out(vars(tg.Tensor)["T"]) is None and out(vars(tg.Drawing)["svg"]) is None
    assert out(3, "module") is None


# -- the docstrings of the package ---------------------------------------------------------------------------


def broken(docstring: str) -> list[str]:
    """Entries whose sentence goes on in a line that is not indented, so that the rest would be lost to them."""
    lines = pairwise(docstring.splitlines())
    return [one for one, other in lines if ENTRY.fullmatch(one) and one[-1] not in ".;:" and other[:1].strip()]


def shown_docstrings() -> dict[str, str]:
    """What the directives of the reference show: of modules, functions and classes, with the methods of these."""
    found: dict[str, str] = {}
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for _, name in documented(page.read_text("utf-8")):
            thing = pkgutil.resolve_name(name)
            found[name] = inspect.getdoc(thing) or ""
            for key, member in vars(thing).items() if isinstance(thing, type) else ():
                if not isinstance(member, type) and key[:1] != "_":
                    found[f"{name}.{key}"] = inspect.getdoc(member) or ""
    return found


def test_no_entry_of_a_docstring_breaks_off() -> None:
    docstrings = shown_docstrings()
    assert len(docstrings) > 400 and "tinygrad_rnn.ops.shapes" in docstrings
    assert {name: found for name, docstring in docstrings.items() if (found := broken(docstring))} == {}


def test_an_entry_that_breaks_off_is_caught() -> None:
    assert broken("Does it.\n\nRaises, in all of them: ShapeError for an axis\nthat is not there.\n")
    assert broken("x: it. y: that,\nand more.\n")
    assert not broken("x: it,\n    and more.\nReturns it.\n") and not broken("x: it.\nMore.\n")
