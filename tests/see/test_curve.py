"""Curves: round ticks around the numbers, every point where it belongs, well-formed for any input."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from colours import contrast, luminance

from tinygrad_rnn.see.curve import BOTTOM, HEIGHT, LEFT, RIGHT, TONES, TOP, WIDTH, curve, style, ticks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0, 1500], [0, 250, 500, 750, 1000, 1250, 1500]),
        ([1.13, 3.94], [1, 1.5, 2, 2.5, 3, 3.5, 4]),
        ([0.0004], [0.0004, 0.0005]),
        ([0], [0, 0.2]),
        ([-1, 1], [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_enclose_the_numbers(values: list[float], wanted: list[float]) -> None:
    assert ticks(values) == wanted


def test_ticks_of_any_numbers_enclose_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        values = (rng.standard_normal(3) * 10.0 ** rng.integers(-8, 9)).tolist()
        found = ticks(values)
        steps = np.diff(found)
        assert found[0] <= min(values) <= max(values) <= found[-1] and 2 <= len(found) <= 9
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def lines(svg: str) -> list[list[tuple[float, float]]]:
    paths = [
        p.get("d", "") for p in ElementTree.fromstring(svg).iter(f"{SVG}path") if p.get("class", "").startswith("line")
    ]
    return [[(float(a), float(b)) for a, b in re.findall(r"([\d.]+) ([\d.]+)", path)] for path in paths]


def test_points_lie_where_they_belong() -> None:
    (line,) = lines(curve({"loss": [(0, 4), (750, 1), (1500, 2.5)]}))
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    assert line == [(left, top), ((left + right) / 2, bottom), (right, (top + bottom) / 2)]


def test_what_is_not_finite_breaks_the_line_and_a_lone_point_is_a_dot() -> None:
    svg = curve({"a": [(0, 1), (1, 2), (2, math.nan), (3, 1), (4, math.inf), (5, 2), (6, 3)], "b": []})
    assert [len(line) for line in lines(svg)] == [2, 2]
    assert len(list(ElementTree.fromstring(svg).iter(f"{SVG}circle"))) == 1


def test_names_are_escaped_and_keep_their_distance() -> None:
    svg = curve({"a<b": [(0, 1), (1, 2)], "c&d": [(0, 1), (1, 2.001)]}, title='"<x>"', x="steps", y="loss")
    texts = {t.text: float(t.get("y", 0)) for t in ElementTree.fromstring(svg).iter(f"{SVG}text")}
    assert {"a<b", "c&d", '"<x>"', "steps", "loss"} <= texts.keys()
    assert abs(texts["a<b"] - texts["c&d"]) >= 14
    ElementTree.fromstring(curve({}))


def test_it_has_a_title_for_who_cannot_see_it() -> None:
    for title, told in (("Learning & forgetting", "Learning & forgetting"), ("", "curve"), ("a\x00", r"a\x00")):
        first = ElementTree.fromstring(curve({"a": [(0, 1), (1, 2)]}, title=title))[0]
        assert (first.tag, first.text) == (f"{SVG}title", told)


def colours(sheet: str) -> dict[str, str]:
    """What fills or strokes each class, alone or as a text, a line or a dot."""
    rules = re.findall(r"([^{}]+)\{(?:fill|stroke):(#[0-9a-f]{6})", sheet)
    return {name.removeprefix(".tgr-curve "): tone for names, tone in rules for name in names.split(",")}


def test_it_is_light_or_dark_as_the_reader_has_it() -> None:
    """Nothing has a colour but by its class; and on either paper each word and each line stands out."""
    svg = curve({f"line {n}": [(n, 1), (1, 2 + n)] for n in range(4)} | {"lone": [(2, 3)]}, title="t", x="x", y="y")
    root = ElementTree.fromstring(svg)
    assert not [each for each in root.iter() if {"fill", "stroke", "style"} & set(each.keys())]
    sheet = root.findtext(f"{SVG}style")
    light, dark = (colours(each) for each in sheet.split("@media(prefers-color-scheme:dark)"))
    assert light.keys() == dark.keys() and {".paper", "text", ".grid", ".axis"} < light.keys()
    assert luminance(light[".paper"]) > 0.9 and luminance(dark[".paper"]) < 0.05
    for found in (light, dark):
        drawn = [tone for name, tone in found.items() if name == "text" or "tone" in name]
        assert len(drawn) == 1 + 3 * len(TONES)
        assert all(contrast(tone, found[".paper"]) > 4.5 for tone in drawn)
    named = {each.get("class") for each in root.iter() if "tone" in each.get("class", "")}
    assert {f"line tone{n}" for n in range(4)} | {f"tone{n}" for n in range(5)} | {"dot tone4"} == named
    assert sheet == style(), "a page with many has the same rules in each"


def test_what_xml_cannot_hold_is_shown_as_an_escape() -> None:
    svg = curve({"a\x00": [(0, 1), (1, 2)]}, title="\x1b[0m", x="\ud800", y="\ufffe")
    texts = [t.text for t in ElementTree.fromstring(svg.encode()).iter(f"{SVG}text")]
    assert {r"a\x00", r"\x1b[0m", r"\ud800", r"\ufffe"} <= set(texts)
