"""The last look at the site finds each kind of mistake, in a page made for it, and none in a good one."""

from __future__ import annotations

import pytest

pytest.importorskip("sphinx", reason="needs the extra docs: pip install -e '.[docs]'")

from building.inspection import complaints
from building.mathematics import is_set

from tinygrad_rnn.see.notation import mathml

GOOD = {
    "index.html": '<a href="deep/other.html#place">on</a><a href="https://example.org/x">out</a><a href="#top">up</a>'
    '<p id="top"></p><article><img src="a.svg" alt="an arrow"><svg><title>two boxes</title><g></g></svg>'
    '<iframe title="steps" srcdoc="&lt;p&gt;"></iframe><svg aria-hidden="true"></svg></article><svg></svg>',
    "deep/other.html": '<h1 id="place">here</h1><a href="../index.html">back</a><script src="../s.js"></script>',
    "a.svg": "<svg/>",
    "s.js": "",
}


def found_in(folder, **changed):
    for name, text in (GOOD | changed).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return list(complaints(folder))


def test_nothing_is_wrong_with_a_good_site(tmp_path):
    assert found_in(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("deep/other.html#place", "deep/others.html", "deep/others.html leads nowhere"),
        ("#place", "#palace", "leads to a page that has no such place"),
        ("#top", "#bottom", "#bottom leads to a page that has no such place"),
        ('src="a.svg"', 'src="b.svg"', "b.svg leads nowhere"),
        (' alt="an arrow"', "", "a picture without words: <img"),
        ('alt="an arrow"', 'alt=" "', "a picture without words: <img"),
        ("<title>two boxes</title>", "", "a picture without words: <svg>"),
        ("<title>two boxes</title>", "<title> </title>", "a picture without words: <svg>"),
        (' title="steps"', "", "a picture without words: <iframe"),
        ('src="a.svg"', 'src="https://example.org/a.svg"', "asks the network for https://example.org/a.svg"),
        ('src="a.svg"', 'src="//example.org/a.svg"', "asks the network for //example.org/a.svg"),
        (
            'src="a.svg"',
            'src="a.svg" srcset="a.svg, https://example.org/b.svg 2x"',
            "the network for https://example.org/b",
        ),
        ('alt="an arrow"', 'alt="_images/0a1b.png"', "a picture without words: <img"),
        ("<g></g>", "<image href='https://example.org/i.png'/>", "asks the network for https://example.org/i.png"),
        ("<g></g>", "<style>g{fill:url(https://example.org/f)}</style>", "asks the network for https://example.org/f"),
        (
            "&lt;p&gt;",
            "&lt;img src=&quot;https://example.org/p.png&quot; alt=&quot;p&quot;&gt;",
            "the network for https",
        ),
        ("&lt;p&gt;", "&lt;svg&gt;&lt;/svg&gt;", "a picture without words: <svg>"),
    ],
)
def test_a_mistake_is_named(tmp_path, old, new, said):
    assert old in GOOD["index.html"]
    (complaint,) = found_in(tmp_path, **{"index.html": GOOD["index.html"].replace(old, new)})
    assert said in complaint and complaint.startswith("index.html: ")


@pytest.mark.parametrize("latex", [r"\foo x", r"\frac{a}{b", "a & b", "a}"])
def test_a_formula_that_cannot_be_set_is_told(latex):
    assert not is_set(latex, mathml(latex))


@pytest.mark.parametrize("latex", [r"\frac{a}{b}", r"z \odot n", r"\{a\}", "a < b", r"\tilde{c}^{\langle t \rangle}"])
def test_a_formula_that_can_be_set_is_not(latex):
    assert is_set(latex, mathml(latex))
