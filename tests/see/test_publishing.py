"""Pages and files: nothing is loaded, nothing foreign runs, everything is written whole or not at all."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn.errors import OptionError, OutputError
from tinygrad_rnn.see import publishing
from tinygrad_rnn.see.publishing import asset, framed, inlined, save


def page(*arguments, **options):
    return publishing.page(*arguments, **options)


class Elements(HTMLParser):
    """What a browser sees of a page: its elements with their attributes, and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


NASTY = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \u202e & \" ' \\ \n\U0001f642"


def policy(text: str) -> str:
    return next(a["content"] for tag, a in Elements(text).found if a.get("http-equiv") == "Content-Security-Policy")


def test_a_page_allows_its_own_style_and_script_and_nothing_else():
    text = page(
        "title", '<p>body</p><svg class="tg"><style>.a{fill:red}</style></svg>', scripts=["picture.js"], data={"d": 1}
    )
    rules = policy(text)
    assert "default-src 'none'" in rules and "unsafe" not in rules
    for kind, element in (("style-src", "style"), ("script-src", "script")):
        allowed = set(re.findall(r"'sha256-([^']+)'", rules.partition(kind)[2].partition(";")[0]))
        inside = [t for t in re.findall(rf"<{element}>(.*?)</{element}>", text, re.S)]
        assert allowed == {b64encode(sha256(t.encode()).digest()).decode() for t in inside} and inside
    assert not any(a.get("src") or a.get("href") or "style" in a or any(k.startswith("on") for k in a)
                   for _, a in Elements(text).found)  # fmt: skip
    assert "script-src 'none'" in policy(page("title", "body"))


def test_whatever_stands_in_data_or_title_is_data():
    text = page(NASTY, "", data={"d": {"name": NASTY, "half": "\ud800"}})
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 1
    assert not any("onerror" in attributes for _, attributes in elements.found)
    assert json.loads("".join(elements.texts["script"])) == {"name": NASTY, "half": "\ud800"}
    with pytest.raises(ValueError, match="JSON"):
        page("", "", data={"d": float("nan")})


def test_a_page_that_lets_data_out_is_caught(monkeypatch):
    mutated(monkeypatch, publishing, "_spelled", '.replace("<", "\\\\u003c")', "")
    with pytest.raises(AssertionError):
        test_whatever_stands_in_data_or_title_is_data()


def test_a_frame_holds_the_whole_page():
    text = page("t", f"<p>{'x' * 9}</p>", data={"d": NASTY})
    (attributes,) = [each for tag, each in Elements(framed(text, NASTY)).found if tag == "iframe"]
    assert attributes["srcdoc"] == text and attributes["sandbox"] == "allow-scripts" and "onerror" not in attributes


def test_inside_of_another_page_there_is_nothing_that_a_page_has_once():
    text = inlined('<main class="trace"><h1>&lt;h1&gt;</h1>\n<p>p</p></main>', "tables.css")
    elements = Elements(text)
    assert [tag for tag, _ in elements.found] == ["div", "style", "div", "p", "p"]
    assert elements.found[2][1] == {"class": "trace"} and "&lt;h1&gt;" in text
    (sheet,) = elements.texts["style"]
    inner = re.sub(r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}", "{}", sheet)  # what stands outside of all braces
    assert all(rule.startswith(".tinygrad-rnn") for rule in inner.replace("{}", "\n").splitlines()), (
        "it reaches what is not ours"
    )


def test_a_sheet_that_reaches_the_whole_page_is_caught(monkeypatch):
    mutated(monkeypatch, publishing, "inlined", ".tinygrad-rnn{{{asset(style)}}}", "{asset(style)}")
    monkeypatch.setitem(globals(), "inlined", publishing.inlined)
    with pytest.raises(AssertionError, match="reaches"):
        test_inside_of_another_page_there_is_nothing_that_a_page_has_once()


def test_style_sheets_lose_what_only_people_read():
    assert "/*" not in asset("picture.css") and "\n" not in asset("picture.css")
    assert "stroke-dasharray:4 2.5" in asset("picture.css") and "@media (prefers-color-scheme:dark)" in asset(
        "picture.css"
    )


def test_a_drawing_is_a_page_too(tmp_path):
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="<b>x</b>")
    drawing = tg.draw(x * x, title="<i>", engine="wasm")
    path = drawing.save(tmp_path / "p.html")
    text = path.read_text("utf-8")
    assert text == drawing.html and drawing.svg in text and "&lt;i&gt;" in text and "<b>" not in text
    assert "http" not in re.sub(r'xmlns="[^"]*"|http-equiv', "", text)
    assert drawing._repr_html_().count("<svg ") == 1 and "overflow" in drawing._repr_html_()


def test_files_are_written_by_suffix_and_whole_or_not_at_all(tmp_path):
    forms = {".a": lambda: b"one", ".b": lambda: 1 / 0}
    assert save(tmp_path / "x.A", forms).read_bytes() == b"one"
    with pytest.raises(OptionError, match=r"'x\.c'.*\.a, \.b"):
        save(tmp_path / "x.c", forms)
    (tmp_path / "y.b").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        save(tmp_path / "y.b", forms)
    with pytest.raises(OutputError, match="choose another folder"):
        save(tmp_path / "none" / "x.a", forms)
    assert {p.name for p in tmp_path.iterdir()} == {"x.A", "y.b"} and (tmp_path / "y.b").read_bytes() == b"old"
