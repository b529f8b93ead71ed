"""The site as its reader has it: built without a warning, then opened from the file system in a headless Chromium.

TINYGRAD_RNN_SITE names a site that is already built; else it is built here, which takes some minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, SITE

pytest.importorskip("sphinx", reason="needs the extra docs: pip install -e '.[docs]'")

from building.inspection import Page, complaints

pytestmark = pytest.mark.slow
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
NAMES = [str(page.relative_to(ROOT / "docs").with_suffix(".html")) for page in SITE] + ["gru_in_jupyter.html"]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    if built := os.environ.get("TINYGRAD_RNN_SITE"):
        return Path(built).resolve()
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(folder)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def test_every_page_is_there_and_nothing_is_wrong_with_any(site):
    assert all((site / name).exists() for name in NAMES)
    assert list(complaints(site)) == []


def test_pages_show_what_their_cells_made(site):
    """A site of pages that were not run would have no outputs."""
    for page in SITE:
        if "{code-cell}" in page.read_text("utf-8"):
            built = (site / page.relative_to(ROOT / "docs").with_suffix(".html")).read_text("utf-8")
            assert "cell_output" in built, page.name
    assert "Traceback" not in (site / "gru_in_jupyter.html").read_text("utf-8")


def test_pictures_on_the_site_are_not_few(site):
    pages = [(site / name).read_text("utf-8") for name in NAMES]
    assert sum(len(re.findall(r'<svg[^>]* class="tg|<iframe', text)) for text in pages) > 40
    assert not [silent for text in pages for silent in Page(text).silent]


@pytest.fixture
def opened(chromium, site):
    """Opens a page of the site; at the end, nothing but files was asked for, and no script complained."""
    asked, said, contexts = [], [], []

    def open_it(name, size=DESK, **options):
        contexts.append(chromium.new_context(viewport=size, reduced_motion="reduce", **options))
        tab = contexts[-1].new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(f"{site.as_uri()}/{name}", wait_until="load")
        return tab

    yield open_it
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "about:", "data:"))] == []
    assert said == []


LETTERS = """Math.min(99, ...[...document.querySelectorAll('article svg[role=img] text')].map(text => {
    const picture = text.ownerSVGElement
    const zoom = picture.getBoundingClientRect().width / picture.viewBox.baseVal.width
    return parseFloat(getComputedStyle(text).fontSize) * zoom
}))"""


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_a_desk_and_a_phone(name, opened, shots):
    for kind, size in (("desk", DESK), ("phone", PHONE)):
        tab = opened(name, size)
        tab.screenshot(path=shots / f"{name.replace('/', '-').removesuffix('.html')}-{kind}.png")
        assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"], kind
        assert tab.evaluate(LETTERS) >= 8.5, f"the smallest letter of a picture, in pixels, at a {kind}"


def test_light_and_dark(opened, shots):
    def luminance(scheme):
        tab = opened("gate_by_gate.html", color_scheme=scheme)
        tab.screenshot(path=shots / f"gate_by_gate-{scheme}.png")
        paints = tab.evaluate(
            """[getComputedStyle(document.body).backgroundColor,
                getComputedStyle(document.querySelector('.tg .paper')).fill]"""
        )
        return [sum(int(part) for part in paint[4:-1].split(",")[:3]) for paint in paints]

    assert all(bright > 600 for bright in luminance("light")) and all(dark < 150 for dark in luminance("dark"))


@pytest.mark.parametrize(("words", "page"), [("vanish", "through_time"), ("GRUCell", "reference/nn")])
def test_the_search_finds_pages_without_a_server(words, page, opened):
    tab = opened(f"search.html?q={words}")
    tab.wait_for_selector("#search-results li a", timeout=20_000)
    links = tab.query_selector_all("#search-results li a")
    assert page in " ".join(link.get_attribute("href") for link in links)
    links[0].click()
    tab.wait_for_selector("article h1")


def test_the_player_inside_a_page_takes_steps(opened):
    tab = opened("recurrent_cells.html")
    frames = tab.query_selector_all("iframe")
    assert len(frames) == 5, "each cell has one"
    for frame in frames:
        frame.evaluate("frame => { if (frame.closest('details')) frame.closest('details').open = true }")
        frame.scroll_into_view_if_needed()
        inside = frame.content_frame()
        before = inside.inner_text("body")
        inside.click("#next")
        tab.keyboard.press("ArrowRight")
        after = inside.inner_text("body")
        assert before != after
        tab.keyboard.press("ArrowLeft")
        assert inside.inner_text("body") != after, "who has clicked into it has its keys"


def test_curves_and_regions_are_dark_on_a_dark_page(opened, shots):
    tab = opened("examples.html", color_scheme="dark")
    tab.screenshot(path=shots / "examples-dark.png", full_page=True)
    papers = "document.querySelectorAll('.tgr-curve .paper, .tgr-plot #patch_1 path')"
    found = tab.evaluate(f"[...{papers}].map(paper => getComputedStyle(paper).fill)")
    assert len(found) == 5 and all(sum(map(int, re.findall(r"\d+", fill))) < 150 for fill in found)
    assert not tab.query_selector_all("article img")
