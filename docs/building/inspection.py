"""The last look at a finished site: links that lead nowhere, pictures without words, anything that asks the network.

What it finds are warnings, so that `sphinx-build -W` fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

LOADED = {
    ("img", "src"), ("img", "srcset"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"),
    ("source", "srcset"), ("object", "data"), ("video", "src"), ("audio", "src"), ("image", "href"),
    ("image", "xlink:href"),
}  # fmt: skip
"""What a browser fetches without being asked."""
FROM_SHEETS = re.compile(r"url\(\s*[\"']?(?P<address>(?:https?:)?//[^)\"']*)")
FILE_NAME = re.compile(r"\S+\.(png|svg|jpe?g|gif|webp)")
"""What Sphinx gives for words where a picture has none."""


class Page(HTMLParser):
    """What there is to check in a page: its links and anchors, what it loads, and pictures that say nothing."""

    def __init__(self, text: str, in_article: bool = False) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = [found["address"] for found in FROM_SHEETS.finditer(text)]
        self.silent: list[str] = []
        self.titles: list[str | None] = []  # of the pictures that are open: "" until something says what they show
        self.in_title, self.in_article = False, in_article
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        for name, value in given.items():
            if (tag, name) in LOADED:
                self.loaded += (
                    [each.split()[0] for each in value.split(",") if each.strip()] if name == "srcset" else [value]
                )
            elif name == "href":
                self.links.append(value)
        words = [given.get(name, "").strip() for name in ("alt", "title", "aria-label", "aria-labelledby")]
        named = any(word and not FILE_NAME.fullmatch(word) for word in words)
        hidden = given.get("aria-hidden") == "true" or "hidden" in given
        silent = self.in_article and not (named or hidden)  # around the article, icons of buttons that have names
        if tag == "svg":
            self.titles.append("" if silent else None)
        elif tag in ("img", "iframe") and silent:
            self.silent.append(self.get_starttag_text() or tag)
        if "srcdoc" in given:  # a page inside of this one, whose links and anchors are its own
            inside = Page(given["srcdoc"], in_article=True)
            self.loaded += inside.loaded
            self.silent += inside.silent
        self.in_title = tag == "title"
        self.in_article = self.in_article or tag == "article"

    def handle_data(self, data: str) -> None:
        if self.in_title and self.titles and data.strip():
            self.titles[-1] = None

    def handle_endtag(self, tag: str) -> None:
        self.in_title = False
        self.in_article = self.in_article and tag != "article"
        if tag == "svg" and self.titles and self.titles.pop() == "":
            self.silent.append(f"<svg> that ends at line {self.getpos()[0]}")


def complaints(site: Path) -> Iterator[str]:
    """What is wrong with the pages of a built site, one sentence each."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site)
        yield from (f"{where}: a picture without words: {each[:160]}" for each in page.silent)
        yield from (f"{where}: asks the network for {each}" for each in page.loaded if urlsplit(each).netloc)
        for link in dict.fromkeys([*page.links, *page.loaded]):
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            file = (path.parent / unquote(target.path)).resolve() if target.path else path
            if not file.exists():
                yield f"{where}: {link} leads nowhere"
            elif target.fragment and file in pages and unquote(target.fragment) not in pages[file].anchors:
                yield f"{where}: {link} leads to a page that has no such place"


def inspect(app: Sphinx, exception: Exception | None) -> None:
    """Warn of everything that is wrong."""
    if exception is None and app.builder.format == "html":
        for complaint in complaints(Path(app.outdir)):
            logging.getLogger(__name__).warning(complaint)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", inspect)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
