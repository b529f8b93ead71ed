"""What a browser would find in a page: its elements, and the words in it."""

from __future__ import annotations

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Reads a fragment of a page, and refuses what loads something or runs by itself."""

    def __init__(self, page: str = "") -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(key.startswith("on") or key in ("src", "href", "style") for key, _ in attrs)

    def handle_data(self, data):
        self.words += data
