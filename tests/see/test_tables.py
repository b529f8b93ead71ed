"""Trace tables: the survey's own numbers, tangents and adjoints by other ways, and four scripts that break nowhere."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latex import evaluate
from markup import Reader
from mutants import mutated
from rich.cells import cell_len

import tinygrad_rnn as tg
from tinygrad_rnn import nn, transforms
from tinygrad_rnn.errors import GraphError, OptionError, OutputError, ShapeError
from tinygrad_rnn.see import formula, tables
from tinygrad_rnn.see.words import printable

SURVEY = """\
Trace of y

 Forward primal trace ↓    Forward tangent trace ↓    Reverse adjoint trace ↑
──────────────────────────────────────────────────────────────────────────────────
 x1 = 2                    ẋ1 = 1                     x̄1 = v̄2 ⊙ x2 + v̄1/x1 = 5.5
 x2 = 5                    ẋ2 = 0                     x̄2 = v̄4 cos(x2) + v̄2 ⊙ x1 = 1.716
 v1 = log(x1) = 0.6931     v̇1 = ẋ1/x1 = 0.5           v̄1 = v̄3 = 1
 v2 = x1 ⊙ x2 = 10         v̇2 = ẋ1 ⊙ x2 = 5           v̄2 = v̄3 = 1
 v3 = v1 + v2 = 10.69      v̇3 = v̇1 + v̇2 = 5.5         v̄3 = ȳ = 1
 v4 = sin(x2) = -0.9589    v̇4 = 0                     v̄4 = -ȳ = -1
 y = v3 - v4 = 11.65       ẏ = v̇3 - 0 = 5.5           ȳ = 1
Tangents: x1 moves with 1, all else stands still. Adjoint of y: 1.
Both ways agree: adjoint times tangent is 5.5 at y, 5.5 at what moves."""


def drawn(*shape, seed=0, name=None, grad=True):
    return tg.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=grad, name=name)


def survey():
    x1, x2 = (tg.tensor(np.float64(v), requires_grad=True, name=name) for v, name in ((2, "x1"), (5, "x2")))
    y = tg.log(x1) + x1 * x2 - tg.sin(x2)
    y.name = "y"
    return x1, x2, y


def squeezed(text):
    return re.sub(r"[ ─]+", " ", text)


def test_the_example_of_the_survey():
    x1, x2, y = survey()
    table = tables.trace_table(y, wrt=x1)
    assert squeezed(table.text(100)) == squeezed(SURVEY)
    expected = {"x1": (2, 1, 5.5), "x2": (5, 0, 1.716), "v1": (0.693, 0.5, 1), "v2": (10, 5, 1), "v4": (-0.959, 0, -1),
                "v3": (10.693, 5.5, 1), "y": (11.652, 5.5, 1)}  # fmt: skip
    for name, numbers in expected.items():
        for cell, number in zip(table[name].cells, numbers, strict=True):
            assert (cell.value.low if cell.value else float(cell.formula)) == pytest.approx(number, abs=6e-4)
    assert tables.trace_table(y, wrt=x2)["y"].tangent.value.low == pytest.approx(1.716, abs=5e-4)
    assert tables.trace_table(y)["y"].tangent.value.low == pytest.approx(5.5 + 2 - math.cos(5))
    both = tables.trace_table(y, wrt=[x1, x2], tangents=[2.0, -3.0])
    assert both["y"].tangent.value.low == pytest.approx(2 * 5.5 - 3 * (2 - math.cos(5)))
    assert x1.grad is None


def test_the_formulas_of_the_table_give_its_numbers():
    """Each formula, read back by a grammar of its own, is the number beside it."""
    x1, x2 = (tg.tensor(np.float64(v), requires_grad=True, name=name) for v, name in ((2, "x1"), (5, "x2")))
    u = tg.exp(-x1)
    z = tg.tanh((tg.log(x1) + x1 * x2 - tg.sin(x2)) / 9.0) ** 2.0 + u * tg.sigmoid(x2)
    rows = tables.trace_table(z).rows
    values = {cell.latex_name: cell.value.low for row in rows for cell in row.cells}
    letters = {name: f"a_{{{i}}}" for i, name in enumerate(sorted(values, key=len, reverse=True))}  # the reader's names
    checked = 0
    for cell in [cell for row in rows for cell in row.cells if cell.latex]:
        formula_read = cell.latex
        for name, letter in letters.items():
            formula_read = formula_read.replace(name, letter)
        found = evaluate(formula_read, {letters[name]: value for name, value in values.items()})
        assert found == pytest.approx(cell.value.low, rel=1e-12), (cell.latex_name, cell.latex)
        checked += 1
    assert len(values) == 3 * len(rows) and checked == 3 * len(rows) - 5  # without the leaves and the adjoint of z


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("make", [nn.RNN, nn.MinimalGRU, nn.GRU, nn.LSTM], ids=lambda make: make.__name__)
def test_every_tangent_and_adjoint_of_a_recurrent_layer(make, expand):
    layer = make(3, 5, dtype=np.float64, rng=np.random.default_rng(2))
    x = drawn(4, 2, 3, seed=1, name="x")
    y = (layer(x)[0] ** 2.0).sum()
    table = tables.trace_table(y, wrt=x, tangents=drawn(4, 2, 3, seed=7), expand=expand, max_rows=1000)
    named = {row.name: row for row in table}
    for name, parameter in [*layer.named_parameters(), ("x", x)]:
        (g,) = tg.pullback(y, [parameter])
        assert named[name].adjoint.value.norm == pytest.approx(np.linalg.norm(g.numpy()), rel=1e-12)
    step, way = 1e-6, drawn(4, 2, 3, seed=7).numpy()
    up, down = ((layer(tg.tensor(x.numpy() + s * step * way))[0] ** 2.0).sum().item() for s in (1, -1))
    assert table.rows[-1].tangent.value.low == pytest.approx((up - down) / (2 * step), rel=1e-7)
    assert any(note.startswith("Both ways agree") for note in table.notes)
    if not expand:
        fused = next(row for row in table if row.op.endswith("_layer"))
        assert fused.primal.formula == fused.op.replace("_", " ") and "∂" in fused.tangent.formula
    else:
        assert {"h[0]", "h[3]"} <= named.keys() and named["h[2]"].where.endswith("[t=2]")


def test_arrays_are_summed_up_or_shown_at_one_index():
    a, b = drawn(3, 4, name="a"), drawn(4, seed=1, name="b")
    y = (a * b).sum()
    table = tables.trace_table(y)
    assert table["a"].primal.number.startswith("(3, 4): ") and table["a"].tangent.number == "all 1"
    assert table["b"].adjoint.formula == "sum_0(v̄1 ⊙ a)"
    at = tables.trace_table(y, index=(2, 1))
    assert at["a"].primal.value.numbers == (a.numpy()[2, 1],)
    assert at["a"].adjoint.value.numbers == (b.numpy()[1],)
    assert at["b"].primal.value.numbers == tuple(b.numpy()) and any("[2, 1]" in note for note in at.notes)
    assert tables.trace_table(y, index=-1)["b"].primal.value.numbers == (b.numpy()[-1],)
    with pytest.raises(OptionError, match="no array"):
        tables.trace_table(y, index=(3, 1))


def test_what_has_no_tangent_or_adjoint_says_why():
    x, c, w = drawn(3, name="x"), tg.tensor([1.0, 2.0, 3.0], name="c"), drawn(3, seed=2, name="w")
    u = x * w
    y = (u + c.astype("float64")).sum() + tg.where(w > 0.0, 1.0, 2.0).sum()
    table = tables.trace_table(y)
    assert [row.adjoint.why for row in table if row.adjoint.why] == ["constant"] * 2
    w.assign_(0.0)
    lost = tables.trace_table(y)
    assert lost["x"].adjoint.why.startswith("lost: mul used w") and lost["w"].adjoint.value is not None
    assert any(note.startswith("Tangents are incomplete, lost: mul used w") for note in lost.notes)
    assert lost.rows[-1].tangent.why.startswith("lost") and "lost" in lost.html and "lost" in lost.markdown


def test_numbers_that_the_tape_has_not_read_are_marked():
    w = tg.tensor([1.0, 2.0], requires_grad=True, name="w")
    y = (w + 1.0).sum()
    assert tables.trace_table(y)["w"].primal.said == "1, 2"
    w.assign_([5.0, 6.0])
    table = tables.trace_table(y)
    assert table["w"].primal.value.numbers == (5.0, 6.0) and table["v1"].primal.value.numbers == (2.0, 3.0)
    assert table["w"].primal.said == "5, 6 (now; the tape read others)" and table["v1"].primal.said == "2, 3"
    for text in (table.text(200), table.markdown, table.latex, table.html):
        assert "now; the tape read others" in text and "w has other numbers now than the tape read" in text
        assert "agree" not in text
    y = y + (w * 2.0).sum()  # it read the new numbers, and the first sum did not
    assert "now;" in tables.trace_table(y)["w"].primal.said
    assert "now;" not in tables.trace_table((w * 2.0).sum())["w"].primal.said


def test_nan_and_infinity_are_shown_and_marked():
    x = tg.tensor([0.0, 1.0, 2.0, 3.0, 4.0], requires_grad=True, name="x")
    with np.errstate(all="ignore"):
        y = (tg.sqrt(x) * 0.0 + tg.log(x)).sum()
    table = tables.trace_table(y)
    assert table["x"].adjoint.value.broken and "nan" in table.text() and 'class="number bad"' in table.html
    assert any("Both ways agree" in note for note in table.notes)


def test_a_hook_is_named_and_a_wrong_rule_is_noticed():
    x = drawn(3, name="x")
    u = tg.tanh(x)
    u.register_hook(lambda g: g * 2.0)
    table = tables.trace_table(u.sum())
    assert table["v1"].adjoint.formula.startswith("hook(")
    assert any(note.startswith("The two ways differ") for note in table.notes)


def chain(length):
    y = tg.tensor(1.0, requires_grad=True, name="x")
    for _ in range(length):
        y = y * 1.0
    return y


def test_of_a_long_computation_the_ends_are_shown_and_the_gap_is_said():
    table = tables.trace_table(chain(3000), max_rows=7)
    assert [row.name for row in table] == ["x", "v1", "v2", "v2997", "v2998", "v2999", "v3000"]
    for text in (table.text(), table.markdown, table.latex, table.html):
        assert "2994 of the 3001 rows" in text
    assert tables.trace_table(chain(6), max_rows=7).gap is None
    with pytest.raises(OptionError, match="max_rows"):
        tables.trace_table(chain(3), max_rows=1)


def test_many_contributions_are_shortened():
    x = tg.tensor(2.0, requires_grad=True, name="x")
    y = x * 1.0
    for _ in range(9):
        y = y + x * 3.0
    cell = tables.trace_table(y)["x"].adjoint
    assert "…" in cell.formula and "(10 terms)" in cell.formula and cell.value.low == 28.0


HOSTILE = [
    "<script>alert(1)</script>", 'say "hi" & bye', "back\\slash", "two\nlines", "重み🙂", "\u202eabc", "a|b",
    "{x}$#%~^_",
    "`code`",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_literal_in_every_script(name):
    x, scope = tg.tensor([1.0, 2.0], requires_grad=True, name=name), tg.scope(name)
    with scope:
        table = tables.trace_table((x * x).sum(), title=name)
    shown = printable(name)
    page = Reader()
    page.feed(table.html)
    assert shown in page.words and not page.tags & {"script", "img", "link", "iframe"}
    assert shown in re.sub(r"\s+", " ", table.text(400))
    body = re.search(r"<table>.*</table>", table.html, re.S)[0]
    ET.fromstring(body)
    assert table.latex.count("{") - table.latex.count("\\{") == table.latex.count("}") - table.latex.count("\\}")
    rows = [line for line in table.markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_the_page_loads_nothing_and_allows_nothing():
    _, _, y = survey()
    page = tables.trace_table(y).html
    assert "default-src 'none'" in page and "unsafe" not in page and "prefers-color-scheme:dark" in page
    assert not re.search(r"(src|href|url)\s*[=(]", page) and "width=device-width" in page


def test_a_notebook_shows_the_table_in_its_own_page():
    _, _, y = survey()
    shown = tables.trace_table(y)._repr_html_()
    assert shown.startswith('<div class="tinygrad-rnn">') and shown.count("<table>") == 1 and "<script" not in shown
    assert all(f'data-of="{head}"' in shown for head in tables.COLUMNS)


def test_printing_in_a_notebook_prints(monkeypatch):
    """There, rich would rather show a table of its own, and leave nothing to print."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    _, _, y = survey()
    assert "v1 = log(x1)" in str(tables.trace_table(y))


def test_saved_by_suffix_whole_or_not_at_all(tmp_path):
    _, _, y = survey()
    table = tables.trace_table(y)
    starts = {".txt": "Trace of y", ".md": "**Trace of y**", ".tex": "% \\usepackage", ".html": "<!doctype html>"}
    for suffix, start in starts.items():
        assert table.save(tmp_path / f"trace{suffix}").read_text("utf-8").startswith(start)
    with pytest.raises(OptionError, match=r"\.txt, \.md, \.html, \.tex"):
        table.save(tmp_path / "trace.pdf")
    with pytest.raises(OutputError):
        table.save(tmp_path / "nowhere" / "trace.md")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trace.html", "trace.md", "trace.tex", "trace.txt"]


def test_text_fits_its_width():
    layer = nn.GRU(3, 5, 2, fused=False, rng=np.random.default_rng(0))
    table = tables.trace_table(layer(tg.randn(3, 2, 3, rng=np.random.default_rng(1)))[0].sum(), max_rows=40)
    for width in (60, 80, 120):
        assert max(map(len, re.sub("[\u0300-\u036f]", "", table.text(width)).splitlines())) <= width


WIDE = "重み_予測_勾配🙂🙂_とても長い名前"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_wide_letters_are_folded_and_not_cut(width):
    """What stands in a column, put together again, is the whole entry."""
    x, y = (tg.tensor([1.0, 2.0], requires_grad=True, name=f"{WIDE}{i}") for i in range(2))
    table = tables.trace_table((x * y).sum())
    text = table.text(width)
    assert "…" not in text and max(map(cell_len, text.splitlines())) <= width
    for row in table:
        for cell in row.cells:
            lines = tables._folded(cell, (width - tables.EDGES) // 3).splitlines()
            assert max(map(cell_len, lines)) <= (width - tables.EDGES) // 3
            assert "".join("".join(lines).split()) == "".join(tables._line(cell).split())


@given(st.text(st.sampled_from("ab 重🙂\u0304"), max_size=60), st.integers(8, 30))
def test_folded_words_lose_nothing_and_fit(words, width):
    lines = tables.folded(words, width, "  ", "    ")
    assert "".join("".join(lines).split()) == "".join(words.split())
    assert max(map(cell_len, lines), default=0) <= width


def test_the_title_stands_above_the_latex_table_and_is_escaped():
    _, _, y = survey()
    latex = tables.trace_table(y, title="50% of a_b & c").latex
    title, head = latex.index(r"\multicolumn{3}{l}{\textbf{50\% of a\_b \& c}} \\[4pt]"), latex.index("Forward primal")
    assert latex.index(r"\begin{longtable}") < title < head < latex.index(r"\endfirsthead") < latex.index(r"\endhead")
    assert latex.count("textbf") == 1 and latex.count("Forward primal") == 2
    assert r"\textbf{Trace of y}" in tables.trace_table(y).latex


def test_what_does_not_fit_is_refused():
    x1, _, y = survey()
    with pytest.raises(GraphError, match="no part"):
        tables.trace_table(y, wrt=drawn(3, name="other"))
    with pytest.raises(ShapeError, match="shapes must be equal"):
        tables.trace_table(y, wrt=x1, tangents=[1.0, 2.0])
    with pytest.raises(ShapeError, match="2 tangents for 1"):
        tables.trace_table(y, wrt=[x1], tangents=[1.0, 2.0])
    with pytest.raises(OptionError, match=r"wrt names x1 \(\) float64 twice"):
        tables.trace_table(y, wrt=[x1, x1], tangents=[1.0, 2.0])
    with pytest.raises(GraphError, match="no graph"):
        tables.trace_table(tg.tensor(1.0))
    with pytest.raises(KeyError, match="no row is called"):
        tables.trace_table(y)["z"]


def test_on_every_backend(backend):
    layer = nn.GRU(3, 5, fused=False)
    table = tables.trace_table(layer(tg.randn(3, 2, 3))[0].sum(), index=(0, 1))
    assert len(table.text().splitlines()) > 40 and "Both ways agree" in table.text()


def test_a_tangent_formula_of_a_users_primitive_that_takes_no_symbols_is_its_jacobian():
    @tg.primitive("elementwise", dx=lambda g, x: g * (x if hasattr(x, "numpy") or isinstance(x, np.ndarray) else x.no))
    def odd(xp, x):
        return x * x / 2

    try:
        row = tables.trace_table(odd(drawn(3, name="x")).sum())["v1"]
        assert row.tangent.formula == "∂odd/∂x · ẋ"
    finally:
        del tg.core.primitive.PRIMITIVES["odd"]


def test_what_stands_still_has_its_place_in_a_linear_tangent():
    x, c = drawn(3, name="x"), drawn(3, seed=1, name="c", grad=False)
    table = tables.trace_table(tg.concatenate([c, x]).sum() - tg.stack([x, c]).sum())
    assert table["v1"].tangent.formula == "concatenate(0, ẋ)" and table["v3"].tangent.formula == "stack(ẋ, 0)"


def test_what_was_a_constant_when_it_was_read_does_not_move_nor_does_what_has_no_rule():
    x, w = drawn(3, name="x"), drawn(3, seed=1, name="w", grad=False)
    y = (x * w).sum()
    w.requires_grad = True
    y = y + (w * 2.0).sum()
    table = tables.trace_table(y, wrt=w)
    assert table["v1"].tangent.formula == "0" and table["v5"].tangent.value.low == 6.0
    assert any(note.startswith("Both ways agree") for note in table.notes)

    @tg.primitive("elementwise", dx=lambda g, scale: g * scale)
    def scaled_up(xp, x, scale):
        return x * scale

    try:
        y = scaled_up(x, w).sum()
        assert tables.trace_table(y, wrt=x)["v1"].tangent.formula == "ẋ ⊙ w"
        assert tables.trace_table(y + w.sum(), wrt=w)["v1"].tangent.formula == "0"
    finally:
        del tg.core.primitive.PRIMITIVES["scaled_up"]


@pytest.mark.parametrize(
    ("owner", "function", "old", "new", "check"),
    [
        (tables._Builder, "_adjoint", "self.book.gradients[t.age]", "t._array", test_the_example_of_the_survey),
        (tables._Builder, "_sum", 'startswith("-")', 'startswith("+")',
         test_the_formulas_of_the_table_give_its_numbers),
        (tables._Builder, "_sum", "if use.broadcast", "if False", test_arrays_are_summed_up_or_shown_at_one_index),
        (tables._Builder, "_carries", "x.age in self.moved and", "", test_the_example_of_the_survey),
        (tables._Builder, "table", "max_rows - first", "max_rows",
         test_of_a_long_computation_the_ends_are_shown_and_the_gap_is_said),
        (formula, "moving", "in places}", "in places[:1]}", test_the_formulas_of_the_table_give_its_numbers),
        (transforms, "_moves", "x.age < node.age", "True",
         test_what_was_a_constant_when_it_was_read_does_not_move_nor_does_what_has_no_rule),
        (tables._Builder, "_primal", "CHANGED if", "'' if", test_numbers_that_the_tape_has_not_read_are_marked),
        (tables._Builder, "_notes", "if self.changed:", "if False:",
         test_numbers_that_the_tape_has_not_read_are_marked),
        (tables, "folded", "cell_len(line + gap + word) > width:", "len(line + gap + word) > width:",
         partial(test_wide_letters_are_folded_and_not_cut, 40)),
        (tables, "_has", "t.ndim == len(index) and ", "", test_arrays_are_summed_up_or_shown_at_one_index),
    ],
)  # fmt: skip
def test_a_table_that_lies_is_caught(owner, function, old, new, check, monkeypatch):
    check()
    mutated(monkeypatch, owner, function, old, new)
    if owner is formula:
        monkeypatch.setattr(tables, function, getattr(formula, function))
    with pytest.raises((AssertionError, KeyError, IndexError)):
        check()


@pytest.mark.parametrize("seed", range(8))
def test_terms_that_cancel_are_no_disagreement(seed):
    """The tangent of what sums to a constant is 0 up to rounding, either way."""
    rng = np.random.default_rng(seed)
    w = tg.tensor(rng.standard_normal((3, 5)).astype(np.float32), requires_grad=True, name="w")
    x = tg.tensor(rng.standard_normal((4, 3)).astype(np.float32), name="x")
    centred = tg.tensor(np.array([1.0, -3.0, 2.0], np.float32), name="centred")
    for y in (
        tg.softmax(x @ w).sum(),
        tg.nn.cross_entropy(x @ w, np.array([0, 4, 2, 1]), reduction="sum"),
        (centred @ w).sum(),
    ):
        assert any("Both ways agree" in note for note in tables.trace_table(y).notes)


@pytest.mark.parametrize(("options", "error"), [
    ({"index": "a"}, "whole number for each"), ({"index": 1.0}, "whole number"), ({"index": slice(2)}, "whole number"),
    ({"max_rows": 2.5}, "max_rows"), ({"max_rows": True}, "max_rows"), ({"max_rows": 1}, "max_rows"),
], ids=str)  # fmt: skip
def test_settings_without_a_meaning_are_refused(options, error):
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(tg.errors.OptionError, match=error):
        tables.trace_table(x * 2.0, **options)


def test_only_a_tensor_has_a_table_and_a_lone_tangent_is_one():
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
    for wrong in ((x * 2.0, x), 3.0, [x]):
        with pytest.raises(tg.errors.GraphError, match="takes one tensor"):
            tables.trace_table(wrong)
    assert tables.trace_table(x * 3.0, tangents=tg.tensor([1.0, 10.0])).rows[-1].tangent.value.numbers == (3.0, 30.0)
