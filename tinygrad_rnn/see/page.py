"""Pages that stand alone: HTML of one file, with its style inside, that loads nothing and lets nothing else run."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape

from .words import printable

COLOURS = """
:root, .tg { --ink: #1c1c1c; --soft: #5c5c5c; --line: #d8d8d8; --sheet: #ffffff; --lit: #f4f6f9; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root, .tg { --ink: #e8e8e8; --soft: #a8a8a8; --line: #444; --sheet: #181a1d; --lit: #22262b; --bad: #ff8a80; }
}
"""
BODY = """
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--sheet); }
"""


def page(title: str, body: str, style: str) -> str:
    """A whole page. body: HTML. style: the rules for it, beside the colours `--ink`, `--soft`, `--line` and so on."""
    rules = COLOURS + BODY + style
    known = b64encode(sha256(rules.encode()).digest()).decode()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"""<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{known}'">\n"""
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(printable(title))}</title>\n<style>{rules}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def fragment(body: str, style: str) -> str:
    """The same as a part of a page, such as a notebook: the rules have to name the class `tg` or one inside it."""
    return f"<style>{COLOURS.replace(':root, ', '')}{style}</style>\n{body}\n"
