"""Files that stand alone: pages of one file that load nothing and let nothing else run, and every file whole or not."""

from __future__ import annotations

import json
import os
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from ..errors import OptionError, OutputError
from .words import safe


def page(
    title: str, body: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """A whole page of HTML in one file: it needs no network, and its own policy forbids everything else.

    body: HTML. styles, scripts: names of files in `see/page/`, after the style sheet that all pages share.
    data: what the scripts read, by the id of the element that it stands in.
    """
    sheets = "".join(f"<style>{asset(name)}</style>\n" for name in ("page.css", *styles))
    stored = "".join(f'<script type="application/json" id="{name}">{_spelled(each)}</script>\n'
                     for name, each in (data or {}).items())  # fmt: skip
    code = "".join(f"<script>{asset(name)}</script>\n" for name in scripts)
    policy = "; ".join([
        "default-src 'none'",
        f"style-src {_hashes('style', sheets + body)}",
        f"script-src {_hashes('script', code) or chr(39) + 'none' + chr(39)}",
        *(["img-src data:"] if 'href="data:image/' in body else []),
        "base-uri 'none'",
        "form-action 'none'",
    ])  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{safe(title)}</title>\n{sheets}</head>\n<body>\n{body}\n{stored}{code}</body>\n</html>\n"
    )


def inlined(body: str, style: str) -> str:
    """A body without scripts inside of another page, such as a notebook, in the ink of that one.

    body: as of `page`; what there may be once in a page becomes a plain block. style: a file in `see/page/`, which
    here reaches this body only.
    """
    for once, plain in (("<main ", "<div "), ("</main>", "</div>"), ("<h1>", '<p class="title">'), ("</h1>", "</p>")):
        body = body.replace(once, plain)
    return f'<div class="tinygrad-rnn"><style>{asset("inlined.css")}.tinygrad-rnn{{{asset(style)}}}</style>{body}</div>'


def framed(document: str, title: str, height: str = "32rem") -> str:
    """A page inside of another one, such as a notebook, in a frame of its own that cannot reach out."""
    return (
        f'<iframe title="{safe(title)}" sandbox="allow-scripts" '
        f'style="width:100%;height:{height};border:0" srcdoc="{escape(document)}"></iframe>'
    )


@cache
def asset(name: str) -> str:
    """A style sheet or a script of the package, without the comments and spaces that only people read in a sheet."""
    text = (files(__package__) / "page" / name).read_text("utf-8")
    if name.endswith(".css"):
        text = re.sub(r"\s*([{};:,>])\s*", r"\1", re.sub(r"/\*.*?\*/|;(?=\s*\})", "", text, flags=re.S))
    return text.strip()


def _hashes(tag: str, text: str) -> str:
    """What a policy calls the inline elements of one kind, so that these and no others may act."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.S)
    return " ".join(dict.fromkeys(f"'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in found))


def _spelled(data: Any) -> str:
    """JSON that can stand in an element of a page: no "<" ends it early."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace").decode().replace("<", "\\u003c")


def save(path: str | PathLike[str], forms: Mapping[str, Callable[[], str | bytes]]) -> Path:
    """Write one of several forms of something, by the file's suffix; the file is there whole or not at all.

    forms: by suffix, what makes the content; only that of the suffix is called. Text is written as UTF-8.

    Raises: OptionError for a suffix that is not among them; OutputError, if the file cannot be written.
    """
    target = Path(path)
    form = forms.get(target.suffix.lower())
    if form is None:
        raise OptionError(f"cannot tell from {target.name!r} what to write; known suffixes are {', '.join(forms)}")
    content = form()
    try:
        write_atomically(target, content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {target}: {reason}; choose another folder or name") from error
    return target


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it and rename it: readers see the old one or the new one, whole."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        fresh.write_bytes(data)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


class Publication:
    """What is text in a terminal, a table in a notebook and a page in a file.

    It has a title, `text` and `markdown`, and `_body`, the HTML of its `main` element.
    """

    title: str

    def text(self, width: int = 80) -> str:
        """It in plain text, folded to a width."""
        raise NotImplementedError

    @property
    def markdown(self) -> str:
        """It in Markdown."""
        raise NotImplementedError

    def _body(self) -> str:
        raise NotImplementedError

    def __str__(self) -> str:
        return self.text(get_terminal_size((80, 24)).columns)

    @property
    def html(self) -> str:
        """It as a page of its own."""
        return page(self.title, self._body(), styles=["tables.css"])

    def _repr_html_(self) -> str:
        return inlined(self._body(), "tables.css")

    def _forms(self) -> dict[str, Callable[[], str | bytes]]:
        """By suffix, what makes the content of a file."""
        return {".txt": lambda: self.text(120) + "\n", ".md": lambda: self.markdown, ".html": lambda: self.html}

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it to a file, whole or not at all, in the form that the suffix names.

        Raises: OptionError for a suffix that none of its forms has; OutputError, if the file cannot be written.
        """
        return save(path, self._forms())
