"""Strips, pages and plots: every number in its place, whatever the symbols are, light or dark, on any terminal."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from colours import contrast, luminance
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import mutated
from rich.cells import cell_len
from rich.console import Console

from tinygrad_rnn import nn
from tinygrad_rnn.errors import DrawError, OptionError, OutputError
from tinygrad_rnn.see import flow, publishing
from tinygrad_rnn.see.flow import heat, plots, terminal
from tinygrad_rnn.see.flow import picture as picture_module
from tinygrad_rnn.see.flow.heat import LEFT, LEVELS, LONGEST_LINE, ROW, Strip
from tinygrad_rnn.see.flow.terminal import BLOCKS, DIGITS, plain

SVG = "{http://www.w3.org/2000/svg}"
ODD = ["<script>alert(1)</script>", '"', "'", "\\", "&", "\n", "\t", " ", "\u202e", "\ud800", "\x00", "🐈", "אב", ""]


def strip(values: object, columns: str | list[str] = "abc", **options: object) -> Strip:
    values = np.array(values, float)
    return Strip("z", "a note", values, [f"unit {n}" for n in range(len(values))], list(columns), **options)


def root(svg: str) -> ElementTree.Element:
    found = ElementTree.fromstring(svg.encode())
    assert found.tag == f"{SVG}svg" and found.get("role") == "img"
    return found


def cells(svg: str) -> dict[tuple[float, float], tuple[str, str]]:
    """The class and the tooltip of each cell, by its place."""
    found = {}
    for rect in root(svg).iter(f"{SVG}rect"):
        kind = rect.get("class", "")
        if re.fullmatch(r"[sd]\d+", kind) and (tip := rect.find(f"{SVG}title")) is not None:
            found[float(rect.get("x")), float(rect.get("y"))] = kind, tip.text
    return found


def measured() -> dict[str, flow.Gates | flow.Decay]:
    """One of each kind of picture."""
    layer = nn.GRU(3, 4, dtype="float64", rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((12, 2, 3))
    return {
        "gates": flow.gates(layer, x, labels=[*"The cat sat."])[0],
        "words": flow.gates(layer, x[:3], labels=["the", "cat", ","])[0].show("z"),
        "matrix": flow.gradient_through_time(layer, x),
        "decay": flow.decay({"GRU": layer, "<b>$x$\\": layer}, x),
        "shares": flow.shares(layer, x),
        "truncation": flow.truncation(layer, x, 3),
    }


@pytest.fixture(scope="module")
def pictures() -> dict[str, flow.Gates | flow.Decay]:
    return measured()


# -- SVG -------------------------------------------------------------------------------------------------------------


def test_every_cell_has_its_place() -> None:
    svg = heat.svg("title", [strip([[0, 0.5, 1], [0.25, np.nan, 2]])])
    found = cells(svg)
    assert len(found) == 5, "nothing is drawn where there is no number"
    (first, *_), rows = sorted(found), sorted({y for _, y in found})
    assert first == (LEFT, rows[0]) and rows[1] - rows[0] == ROW
    kinds = [found[place][0] for place in sorted(found, key=lambda p: (p[1], p[0]))]
    assert kinds == ["s0", f"s{(LEVELS - 1) // 2}", f"s{LEVELS - 1}", f"s{(LEVELS - 1) // 4}", f"s{LEVELS - 1}"]
    tips = {tip for _, tip in found.values()}
    assert {"a (t = 0), unit 0: 0", "b (t = 1), unit 0: 0.5", "c (t = 2), unit 1: 2"} <= tips


def test_each_picture_has_a_title_of_its_own_for_who_cannot_see_it(pictures: dict) -> None:
    for picture in pictures.values():
        first = root(picture.svg)[0]
        assert (first.tag, first.text) == (f"{SVG}title", picture.title)
    titles = [picture.title for picture in pictures.values()]
    assert len(set(titles)) == len(titles)
    titles = [pictures["gates"].show(*names, units=2).title for names in ("z", "r", "zr")]
    assert (
        titles[2].endswith(": z, r in 2 of 4 units (those that move most), sequence 0 of 2") and len(set(titles)) == 3
    )
    named = dataclasses.replace(pictures["decay"], name="New layers")
    assert root(named.svg)[0].text == "New layers: what is left of the gradient, with distance"


def test_the_ends_of_the_scale_are_printed() -> None:
    texts = [t.text for t in root(heat.svg("title", [strip([[-1, 0, 0.5]], low=-1, signed=True)])).iter(f"{SVG}text")]
    assert {"-1", "1", "unit 0", "a", "b", "c", "title"} <= set(texts)


def marks(values: object) -> int:
    """How many cells are marked, beside those of the legend."""
    picture = root(heat.svg("", [strip(values, low=-1, signed=True)]))
    count = sum(p.get("d").count("M") for p in picture.iter(f"{SVG}path") if p.get("class", "").startswith("minus"))
    return count - LEVELS // 2


def test_the_marks_are_as_many_as_the_negative_cells() -> None:
    assert marks([[-1, 0, 0.5], [-0.2, 1, -0.9]]) == 3
    assert marks([[1, 0, 0.5]]) == 0 and marks([[-1, -0.3, -0.5]]) == 3


def test_the_mean_is_a_line() -> None:
    line = np.array([0.2, 0.9, np.nan, 0.4, 0.3])
    svg = heat.svg("", [strip([[0.1] * 5], "abcde", line=line, line_name="mean of 9")])
    paths = [p.get("d") for p in root(svg).iter(f"{SVG}path") if p.get("class") == "line"]
    points = [re.findall(r"([\d.]+) ([\d.]+)", d) for d in paths[1:]]  # the first one is the legend's
    assert [len(p) for p in points] == [2, 2]
    heights = [float(y) for p in points for _, y in p]
    assert heights[1] < heights[2] < heights[3] < heights[0], "higher is up"
    texts = [t.text for t in root(svg).iter(f"{SVG}text")]
    assert {"0.90", "0.20", "mean of 9"} <= set(texts)
    assert "b (t = 1), mean of 9: 0.9" in svg


def test_the_picture_is_as_wide_as_its_words() -> None:
    wide = root(heat.svg("t" * 60, [strip([[0.5]], "a")]))
    assert float(wide.get("width")) >= 12 + 60 * 15 * 0.602, "a letter of a monospaced font is that wide"
    noted = Strip("z", "n" * 90, np.ones((1, 1)), ["a"], ["b"])
    assert float(root(heat.svg("", [noted])).get("width")) >= 12 + 14 + 91 * 12 * 0.602


def test_a_long_text_goes_on_below() -> None:
    count = LONGEST_LINE + 7
    found = cells(heat.svg("", [strip(np.linspace(0, 1, count)[None], "x" * count)]))
    rows = sorted({y for _, y in found})
    assert len(found) == count and len(rows) == 2
    lengths = [sum(y == row for _, y in found) for row in rows]
    assert max(lengths) <= LONGEST_LINE and abs(lengths[0] - lengths[1]) <= 1


def test_words_stand_upright_and_steps_are_numbered_now_and_then() -> None:
    words = heat.svg("", [strip([[0, 1]], ["the", "children"])])
    turned = [t.text for t in root(words).iter(f"{SVG}text") if "rotate(-90)" in t.get("transform", "")]
    assert turned == ["the", "children"]
    steps = heat.svg("", [strip([[0.5] * 12], [*map(str, range(12))])])
    texts = [t.text for t in root(steps).iter(f"{SVG}text")]
    assert {"5", "10"} <= set(texts) and "7" not in texts and "rotate" not in steps


@given(st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=5)), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_any_symbols_are_shown(symbols: list[str]) -> None:
    values = np.linspace(0, 1, len(symbols))[None]
    one = Strip(symbols[0], symbols[-1], values, [symbols[0]], symbols, line=values[0], line_name="mean")
    svg = heat.svg(symbols[0], [one], symbols[-1])
    allowed = {"svg", "title", "desc", "style", "rect", "text", "tspan", "path", "circle"}
    assert {element.tag.removeprefix(SVG) for element in root(svg).iter()} <= allowed
    assert all(line.isprintable() for line in plain(one).splitlines())
    assert "<script" not in svg


def test_the_scales_are_read_without_colour_and_words_stand_out() -> None:
    for scales, inks in ((heat.SCALES, heat.INKS), (heat.DARK_SCALES, heat.DARK_INKS)):
        lightness = [luminance(heat.colour(scales["s"], n / (LEVELS - 1))) for n in range(LEVELS)]
        steps = np.diff(lightness)
        assert (steps < 0).all() or (steps > 0).all(), "from light to dark without a turn"
        both = [luminance(heat.colour(scales["d"], n / (LEVELS - 1))) for n in range(LEVELS)]
        middle = LEVELS // 2
        for half in (both[: middle + 1], both[middle:]):
            assert (np.diff(half) < 0).all() or (np.diff(half) > 0).all()
        assert contrast(inks["ink"], inks["paper"]) > 7 and contrast(inks["faint"], inks["paper"]) > 4.5
    for tone, _, _ in plots.LINES:
        assert contrast(tone, "#ffffff") > 4.5 and contrast(plots.DARK[tone], plots.DARK[plots.PAPER]) > 4.5
    for tones in terminal.COLOURS.values():
        assert all(contrast(tone, back) > 2.2 for tone in tones for back in ("#000000", "#ffffff"))


def test_a_dark_page_gets_dark_colours(pictures: dict) -> None:
    for picture in pictures.values():
        assert picture.svg.count("@media(prefers-color-scheme:dark)") == 1


# -- terminals -------------------------------------------------------------------------------------------------------


def test_blocks_rise_with_the_numbers() -> None:
    text = plain(strip([[0, 0.5, 1], [1, np.nan, 0]], line=np.array([0.5, 0.5, 0.5]), line_name="mean")).splitlines()
    assert text == [
        "z  a note", "        abc", "mean    ▅▅▅", "unit 0  ▁▅█", "unit 1  █ ▁", "scale: 0 ▁▂▃▄▅▆▇█ 1",
    ]  # fmt: skip
    assert "unit 0  047" in plain(strip([[0, 0.5, 1]]), blocks=DIGITS)


def test_in_a_scale_of_both_signs_zero_is_a_line() -> None:
    text = plain(strip([[-1, 0.01, 1]], low=-1, signed=True)).splitlines()
    assert text[2:] == ["unit 0  ▁─█", "scale: -1 ▁▂▃─▅▆█ 1"]
    assert len(set(terminal.SIGNED[BLOCKS])) == len(set(terminal.SIGNED[DIGITS])) == 7


def test_words_get_a_line_each() -> None:
    one = strip(
        [[0, 1, 0.5], [1, 0.5, 0]], ["the", "cat", "猫"], line=np.array([0.5, 0.75, 0.25]), line_name="mean of 2"
    )
    text = plain(one).splitlines()
    assert text[1].split() == ["mean", "of", "2", "01"]
    rows = [line.split() for line in text[2:-1]]
    assert rows == [["the", "0.50", "▅", "▁█"], ["cat", "0.75", "▆", "█▅"], ["猫", "0.25", "▃", "▅▁"]]
    places = {cell_len(line[: line.rindex(line.split()[-1])]) for line in text[1:-1]}
    assert len(places) == 1, "wide letters shift nothing"


def test_wide_letters_have_wide_columns() -> None:
    lines = plain(strip([[0, 1, 0.5]], "a猫b")).splitlines()
    assert lines[1].strip() == "a 猫b" and lines[2].split()[-1] == "▁▁██▅▅"


@pytest.mark.parametrize("width", [24, 40, 80])
def test_no_line_is_wider_than_asked_for(width: int) -> None:
    for columns in ("abcdefghij" * 9, [*map(str, range(90))]):
        text = plain(strip(np.random.default_rng(0).random((3, 90)), columns), width).splitlines()[1:-1]
        assert max(map(len, text)) <= width and len("".join(t for t in text if t.startswith("unit 0"))) >= 90


def test_steps_have_a_ruler() -> None:
    lines = plain(strip([[0.5] * 25], [*map(str, range(25))]), 8 + 14).splitlines()
    assert lines[1] == "        0         10" and lines[3] == "              20"
    assert lines[2] == "unit 0  " + "▅" * 14 and lines[4] == "unit 0  " + "▅" * 11


def shown(picture: object, **options: object) -> str:
    console = Console(file=io.StringIO(), width=70, **options)
    console.print(picture)
    return console.file.getvalue()


def test_colours_are_an_addition(pictures: dict) -> None:
    for picture in pictures.values():
        with_colours = shown(picture, force_terminal=True, color_system="truecolor")
        assert "\x1b[38;2;" in with_colours
        bare = shown(picture, force_terminal=False)
        assert "\x1b" not in bare
        assert re.sub(r"\x1b\[[\d;]*m", "", with_colours) == bare
        words = [line.rstrip() for line in bare.splitlines()]
        assert [line for line in picture.text(70).splitlines() if len(line) <= 70 and "█" in line] == [
            line for line in words if "█" in line
        ]


def test_a_terminal_of_letters_alone(pictures: dict) -> None:
    class Letters(io.StringIO):
        encoding = "ascii"

    for picture in pictures.values():
        console = Console(file=Letters(), width=70)
        console.print(picture)
        console.file.getvalue().encode("ascii")


# -- pages and files -------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_page_needs_no_network_and_runs_nothing(pictures: dict) -> None:
    for name, picture in pictures.items():
        page = Page(picture.html)
        policy = next(value for _, value in page.attributes if value and "default" in value)
        assert "default-src 'none'" in policy and "script-src 'none'" in policy and "unsafe" not in policy
        assert ("img-src data:" in policy) == (name == "matrix"), "its cells are an image inside the page"
        assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
        assert not [k for k, v in page.attributes if k.startswith("on") or k in ("style", "src")]
        links = [v for k, v in page.attributes if k in ("href", "xlink:href") and v]
        assert all(v.startswith(("#", "data:image/png;base64,")) for v in links)
        assert page.tags.count("svg") == page.tags.count("h1") == 1
        assert all(sentence in page.words for sentence in picture.sentences())


def test_the_page_has_the_numbers(pictures: dict) -> None:
    gates = pictures["gates"]
    heads, rows = gates.numbers()
    assert heads == ["t", "", *[f"{name}: mean of 4" for name in "zrnh"]] and len(rows) == 12
    assert rows[3][:3] == ["3", "␣", f"{gates.mean('z')[3]:.3g}"]
    assert rows[3][2] in Page(gates.html).words
    heads, rows = pictures["matrix"].numbers()
    assert rows[5][3] == f"{pictures['matrix'].norms[5, 2]:.3g}" and heads[3] == "k = 2"
    heads, rows = pictures["decay"].numbers()
    assert heads[:2] == ["distance", "GRU"] and [row[0] for row in rows] == ["0", "1", "2", "3", "4", "5", "10", "11"]


def test_the_suffix_says_what_is_written(pictures: dict, tmp_path: Path) -> None:
    for name, picture in pictures.items():
        for suffix, starts in ((".svg", "<svg"), (".html", "<!doctype html>"), (".TXT", picture.title[:5])):
            path = picture.save(tmp_path / f"{name}{suffix}")
            assert path.read_text("utf-8").startswith(starts) and path.parent == tmp_path
        with pytest.raises(OptionError, match=r"what to write; known suffixes are \.svg, \.html, \.txt"):
            picture.save(tmp_path / "x.gif")
        with pytest.raises(OutputError, match="choose another folder"):
            picture.save(tmp_path / "nowhere" / "x.svg")
    assert pictures["decay"].save(tmp_path / "x.png").read_bytes()[1:4] == b"PNG"
    assert pictures["matrix"].save(tmp_path / "x.pdf").read_bytes()[:4] == b"%PDF"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_notebook_shows_the_picture(pictures: dict) -> None:
    for picture in pictures.values():
        assert picture._repr_svg_() == picture.svg and len(repr(picture)) < 200
        assert picture.svg in picture._repr_html_() and "overflow" in picture._repr_html_()


# -- plots -----------------------------------------------------------------------------------------------------------


def test_a_plot_names_its_lines_and_its_axes(pictures: dict) -> None:
    texts = [t.text for t in root(pictures["decay"].svg).iter(f"{SVG}text")]
    assert "GRU" in texts and "<b>$x$\\" in texts and "What is left of the gradient, with distance" in texts
    about = root(pictures["decay"].svg).find(f"{SVG}desc")
    assert about is not None and "GRU: what is left of 1 is" in about.text


def test_a_plot_is_the_same_each_time(pictures: dict) -> None:
    for name in ("decay", "matrix"):
        assert pictures[name].svg == measured()[name].svg


def test_a_plot_shows_what_was_measured(pictures: dict) -> None:
    (axes,) = pictures["decay"].figure().axes
    assert axes.get_yscale() == "log"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), pictures["decay"].curves["GRU"])
    dashes = {str(line.get_linestyle()) + str(line.get_marker()) for line in axes.lines}
    assert len(dashes) == len(axes.lines), "lines differ in more than colour"
    axes, _ = pictures["matrix"].figure().axes
    shown = axes.collections[0].get_array()
    assert shown.mask[0, 1] and shown[5, 2] == pictures["matrix"].norms[5, 2]
    assert axes.yaxis_inverted(), "time runs downward, as in the table"


@pytest.mark.parametrize("name", ODD)
def test_any_names_can_be_plotted(name: str) -> None:
    curves = {name: np.array([1.0, 0.5, 0.25]), "other": np.array([1.0, 0.1, 1e-20])}
    found = flow.Decay(curves)
    texts = [t.text for t in root(found.svg).iter(f"{SVG}text")]
    assert not name.strip() or heat.printable(name) in texts
    assert Page(found.html).tags.count("script") == 0 and all(line.isprintable() for line in str(found).splitlines())
    root(flow.GradientThroughTime(np.eye(3), name, labels=(name, "x", name)).svg)


def test_a_matrix_has_the_symbols_at_its_sides() -> None:
    layer, x = nn.GRU(3, 4, dtype="float64"), np.ones((3, 1, 3))
    found = flow.gradient_through_time(layer, x, labels=["the", "$x$", "birds"])
    texts = [t.text for t in root(found.svg).iter(f"{SVG}text")]
    assert texts.count("birds") == texts.count("$x$") == 2 and "\nbirds  " in str(found)


def test_what_hardly_fades_looks_like_it() -> None:
    assert heat.powers_of_ten(np.array([1.0, 0.5, 0, np.nan]), 8) == (0.001, 1.0)
    assert heat.powers_of_ten(np.array([1e-5, 100]), 8) == (1e-5, 100)
    assert heat.powers_of_ten(np.array([1e-30, 100]), 8) == (pytest.approx(1e-6), 100)
    assert heat.powers_of_ten(np.zeros(3), 8) == (0.001, 1.0)
    assert plain(heat.logarithmic("", "", np.array([[1, 0.9, 1e-3, 0]]), ["a"], "wxyz")).splitlines()[2] == "a  ██▁"


def test_zeros_overflow_and_single_steps_can_be_plotted() -> None:
    for norms in (np.zeros((3, 3)), np.ones((1, 1)), np.diag([1e-300, 1.0]), np.full((2, 2), np.nan)):
        found = flow.GradientThroughTime(norms, "made up")
        root(found.svg)
        assert str(found) and found.html
        root(flow.Decay({"made up": found.decay}).svg)


def test_without_matplotlib_one_sentence_says_what_to_install(
    pictures: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("decay", "matrix"):
        with pytest.raises(DrawError, match=r'pip install "tinygrad_rnn\[plot\]"'):
            pictures[name].save(tmp_path / "x.svg")
        assert not os.listdir(tmp_path)
        assert "█" in str(pictures[name]) and pictures[name].save(tmp_path / "x.txt").exists()
        (tmp_path / "x.txt").unlink()
    assert pictures["gates"].svg and pictures["shares"].html, "strips are made by hand"


def test_the_names_at_the_ends_of_lines_keep_their_distance() -> None:
    curves = {f"line {n}": np.array([1.0, 0.5 + n / 1000]) for n in range(6)}
    figure = flow.Decay(curves).figure()
    figure.canvas.draw()
    (axes,) = figure.axes
    heights = sorted(text.xyann[1] * axes.bbox.height for text in axes.texts)
    line = axes.texts[0].get_fontsize() * figure.dpi / 72
    assert len(heights) == 6 and all(above - below >= line for below, above in pairwise(heights))


# -- the tests, tested -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "function", "old", "new", "check"),
    [
        (heat, "_line_of", "strip.values[r, c]", "strip.values[-1 - r, c]", test_every_cell_has_its_place),
        (Strip, "level", "(value - self.low)", "value", test_the_marks_are_as_many_as_the_negative_cells),
        (heat, "_curve", "(1 - share)", "share", test_the_mean_is_a_line),
        (heat, "_runs", "pair[1] - pair[0]", "0", test_the_mean_is_a_line),
        (heat, "safe", "escape(printable(line))", "printable(line)", test_any_symbols_are_shown),
        (heat, "seen", "SEEN.get(c) or printable(c)", "c", test_any_symbols_are_shown),
        (heat, "powers_of_ten", "top / 1000", "top", test_what_hardly_fades_looks_like_it),
        (terminal, "_upright", "strip.values):", "strip.values[::-1]):", test_blocks_rise_with_the_numbers),
        (terminal, "_cells", "strip.level(value, len(blocks))", "0", test_blocks_rise_with_the_numbers),
        (terminal, "_padded", "cell_len(words)", "len(words)", test_words_get_a_line_each),
        (plots.Curve, "_name", "above + 0.06", "above", test_the_names_at_the_ends_of_lines_keep_their_distance),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_check_notices(
    monkeypatch: pytest.MonkeyPatch, owner: Any, function: str, old: str, new: str, check: Callable[[], None]
) -> None:
    mutated(monkeypatch, owner, function, old, new)
    for other in (terminal, plots):
        if hasattr(other, function) and owner is heat:
            monkeypatch.setattr(other, function, getattr(heat, function))
    with pytest.raises(Exception):  # noqa: B017 (whatever a picture that is broken raises)
        check()


@pytest.mark.parametrize(
    ("old", "new"),
    [("default-src 'none'; ", ""), ("</head>", "<script></script></head>"), ("<p>", '<p style="color:red">')],
)
def test_the_check_of_pages_notices(monkeypatch: pytest.MonkeyPatch, pictures: dict, old: str, new: str) -> None:
    def page(*arguments: Any, **options: Any) -> str:
        made = publishing.page(*arguments, **options)
        assert old in made
        return made.replace(old, new)

    monkeypatch.setattr(picture_module, "page", page)
    with pytest.raises((AssertionError, StopIteration)):
        test_a_page_needs_no_network_and_runs_nothing(pictures)


def test_the_check_of_plots_notices(monkeypatch: pytest.MonkeyPatch, pictures: dict) -> None:
    mutated(monkeypatch, plots.Matrix, "put", "axes.invert_yaxis()", "pass")
    with pytest.raises(AssertionError):
        test_a_plot_shows_what_was_measured(pictures)
