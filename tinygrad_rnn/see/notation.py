"""Names and formulas in three scripts: LaTeX for documents, MathML for pages, plain text for boxes and terminals."""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from unicodedata import normalize

from .words import printable

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "mu": "μ", "sigma": "σ", "rho": "ρ",
         "tau": "τ"}  # fmt: skip
SPECIAL = {c: f"\\{c}" for c in "{}$#%&_"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",  # which Markdown would take for a tag, and the next for code
    ">": r"\textgreater{}",
    "`": r"\textasciigrave{}",
}
LITERAL = {latex: c for c, latex in SPECIAL.items()}
SIGNS = GREEK | {
    "odot": "⊙", "cdot": "·", "sum": "∑", "pi": "π", "infty": "∞", "Phi": "Φ", "neg": "¬", "neq": "≠", "leq": "≤",
    "geq": "≥", "lVert": "‖", "rVert": "‖", "lvert": "|", "rvert": "|", "lfloor": "⌊", "rfloor": "⌋", "top": "ᵀ",
    "backslash": "\\", "sim": "~", "bar": "\u0304", "dot": "\u0307", "hat": "^", "partial": "∂", "ldots": "…",
}  # fmt: skip
LETTERS = r"\\text\{(?:\\[^A-Za-z]|\\[a-z]+\{\}|[^{}\\])*\}"
"""Words as they are, as `literal` writes them."""
TOKEN = re.compile(rf"{LETTERS}|\\[A-Za-z]+|\\.|[\s\S]")
OPENING, CLOSING = (r"\lVert", r"\lvert", r"\lfloor"), (r"\rVert", r"\rvert", r"\rfloor")
SPACED = {"⊙", "·", "≠", "≤", "≥", "=", "<", ">", "+"}
HELD = "\ue000"
RAISED = dict(zip("0123456789-ᵀ", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻ᵀ"))


def identifier(name: str) -> str:
    """An identifier in LaTeX: single letters and Greek ones as they are, words upright."""
    if name in GREEK:
        return f"\\{name}"
    return name if len(name) == 1 or not name.isidentifier() or "_" in name else rf"\mathrm{{{name}}}"


def subscripted(name: str, below: str) -> str:
    """A name in LaTeX with something below it, in braces where that is more than a letter."""
    return f"{identifier(name)}_{below}" if len(below) == 1 else f"{identifier(name)}_{{{below}}}"


def latex_name(name: str) -> str:
    """Any name of a tensor in LaTeX: a letter or a word, with a subscript if it looks like one, else its own letters.

    Subscripts are those of W_z, x1 and h[2], which is h at step 2; whatever stands before a dot is literal.
    """
    word = re.fullmatch(r"(.*\.)?([A-Za-z]+)(?:_([A-Za-z0-9]+)|([0-9]+))?(\[[0-9,]+\])?", name)
    if word is None:
        return literal(name)
    below, step = word[3] or word[4], word[5]
    found = identifier(word[2]) + (f"_{{{below}}}" if below else "")
    found = found if not step else f"{{{found}}}_{{{step}}}" if below else f"{found}_{{{step}}}"
    return (literal(word[1]) if word[1] else "") + found


def literal(name: str) -> str:
    """The letters of a name in LaTeX, and nothing else: `plain` gives them back."""
    return rf"\text{{{escaped(name)}}}"


def escaped(words: str) -> str:
    """Words for LaTeX, in which no letter has a meaning."""
    return "".join(SPECIAL.get(c, c) for c in printable(words))


def accented(mark: str, latex: str) -> str:
    r"""A name with a mark such as \bar or \dot on its letter: not on its subscript, nor on what stands before a dot."""
    prefix = ""
    if words := re.fullmatch(LETTERS, latex):  # a literal name
        before, dot, last = words[0][6:-1].rpartition(".")
        prefix, latex = (rf"\text{{{before}.}}", rf"\text{{{last}}}") if dot and last else ("", latex)
    elif words := re.match(LETTERS, latex):
        prefix, latex = words[0], latex[words.end() :]
    letter = re.match(r"\{?([A-Za-z]|\\[A-Za-z]+)(?=_|$)", latex)
    marked = f"\\{mark}{{{latex}}}" if letter is None else latex.replace(letter[1], f"\\{mark}{{{letter[1]}}}", 1)
    return prefix + marked


@lru_cache(4096)
def plain(latex: str) -> str:
    """A formula in one line of text, of the LaTeX that `see.formula` writes: fractions with a stroke, powers raised."""
    return normalize("NFC", _plain(TOKEN.findall(latex)).strip())


def _plain(tokens: list[str]) -> str:
    """Use up the tokens to the end of their group."""
    out = token = ""
    while tokens:
        before, token = token, tokens.pop(0)
        if token == "}":
            break
        if token.startswith(r"\text{"):
            out += _literal(token)
        elif token == "{":
            out += _plain(tokens)
        elif token == r"\frac":
            out += f"{_enclosed(_group(tokens))}/{_enclosed(_group(tokens), tight=True)}"
        elif token == r"\sqrt":
            out += f"√{_enclosed(_group(tokens), tight=True)}"
        elif token == r"\mathrm":
            out += _group(tokens)
        elif token in (r"\bar", r"\dot"):
            over = _group(tokens)
            out += over[:1] + SIGNS[token[1:]] + over[1:]
        elif token == "^":
            power = _group(tokens)
            raised = "".join(RAISED.get(c, "?") for c in power)
            out = out.rstrip() + (raised if "?" not in raised else f"^{_enclosed(power, tight=True)}")
        elif token == "_":
            below = _group(tokens)
            out += f"_{below}" if re.fullmatch(r"\w+", below) else below if below[:1] == "[" else f"[{below}]"
        elif token == " ":
            out += "" if out.endswith((" ", "∂")) or before in OPENING else " "
        else:
            sign = token[1:] if token[0] == "\\" else token
            sign = SIGNS.get(sign, sign) if token[0] == "\\" else sign
            out = out.rstrip() if token in CLOSING else out
            out += f" {sign} " if sign in SPACED and not out.endswith(" ") else sign
            out += " " if sign in SPACED and not out.endswith(" ") else ""
            if sign == "∑":
                out += " "
    return re.sub(r" +", " ", out)


def _literal(token: str) -> str:
    """The letters of a name as they were before `latex_name` wrote them."""
    return re.sub(r"\\[a-z]+\{\}|\\.", lambda m: LITERAL.get(m[0], m[0]), token[6:-1])


def _group(tokens: list[str]) -> str:
    """The next group in braces, or the next token alone."""
    while tokens and tokens[0] == " ":
        tokens.pop(0)
    if tokens and tokens[0] == "{":
        tokens.pop(0)
        return _plain(tokens).strip()
    return _plain([tokens.pop(0)]) if tokens else ""


def _enclosed(text: str, tight: bool = False) -> str:
    """In parentheses, unless it holds together by itself; tight: a product does not."""
    depth, loose = 0, False
    for at, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        loose |= depth == 0 and (c in "+/=<>" or (c == "-" and at > 0) or (tight and c in " ⊙·"))
    return f"({text})" if loose else text


@lru_cache(4096)
def mathml(latex: str) -> str:
    """A formula as MathML, which browsers show by themselves; its plain text is there for those that do not."""
    from latex2mathml.converter import convert  # loaded when a page is made

    texts: list[str] = []

    def held(match: re.Match[str]) -> str:  # names of any letters are no business of a converter
        texts.append(f"<mtext>{escape(_literal(match[0]))}</mtext>")
        return rf"\mathrm{{{HELD}{len(texts) - 1}{HELD}}}"

    try:
        found = str(convert(re.sub(TOKEN, lambda m: held(m) if m[0].startswith(r"\text{") else m[0], latex)))
    except Exception:  # the notation of a user's primitive may be no LaTeX
        return f"<math><mtext>{escape(plain(latex))}</mtext></math>"
    found = found.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "").replace(' display="inline"', "")
    found = re.sub(r'(?:<m[in](?: mathvariant="normal")?>[^<]*</m[in]>){2,}', _joined, found)
    return re.sub(rf"<mi>{HELD}(\d+){HELD}</mi>", lambda m: texts[int(m[1])], found)


def _joined(letters: re.Match[str]) -> str:
    """A word that came as single upright letters, as one identifier, which is upright by itself."""
    if 'mathvariant="normal"' not in letters[0]:
        return letters[0]
    return f"<mi>{re.sub('<[^>]*>', '', letters[0])}</mi>"
