"""Reads LaTeX back into numbers: the second opinion on what a formula means, with a grammar of its own.

Products of two kinds side by side (a \\odot b c) have no agreed meaning and are refused; a number in front of a
product is a factor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES = ("sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log")
FUNCTIONS = {
    **{rf"\{name}": getattr(np, name) for name in NAMES},
    r"\sigma": lambda x: 1 / (1 + np.exp(-x)), r"\mathrm{sign}": np.sign, r"\mathrm{where}": np.where,
    r"\mathrm{relu}": lambda x: np.maximum(x, 0), r"\mathrm{erf}": np.vectorize(math.erf),
    r"\max": np.maximum, r"\min": np.minimum,
}  # fmt: skip
RELATIONS = {
    "=": np.equal,
    r"\neq": np.not_equal,
    "<": np.less,
    r"\leq": np.less_equal,
    ">": np.greater,
    r"\geq": np.greater_equal,
}
TOKEN = re.compile(r"\\mathrm\{[^}]*\}|\\bar\{y\}|\\[a-zA-Z]+|\d+(?:\.\d+)?|[A-Za-z]_(?:\{[^}]*\}|\w)|[A-Za-z]|\S")


def evaluate(text: str, values: Mapping[str, Any]) -> Any:
    """The number or array that a formula stands for when its symbols have these values."""
    reader = _Reader(TOKEN.findall(text), values)
    result = reader.sum()
    assert not reader.rest, f"cannot read {reader.rest} at the end of {text}"
    return result


class _Reader:
    def __init__(self, tokens: list[str], values: Mapping[str, Any]) -> None:
        self.rest, self.values = tokens, values

    def next(self) -> str:
        return self.rest[0] if self.rest else ""

    def take(self, expected: str | None = None) -> str:
        token = self.rest.pop(0)
        assert expected in (None, token), f"{expected} expected, {token} found before {self.rest}"
        return token

    def sum(self) -> Any:
        total = self.term()
        while self.next() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            assert self.next() != "-", "two signs in a row"
            total = total + sign * self.term()
        return total

    def term(self) -> Any:
        if self.next() == "-":
            self.take()
            return -self.term()
        result = self.power()
        kind = "factor" if np.ndim(result) == 0 else ""
        while self.next() not in ("", "+", "-", ")", "}", "]", ",", *RELATIONS):
            if self.next() == r"\cdot":
                self.take()
                result = result * self.power()
                assert kind == "factor" and np.ndim(result) == 0, "a dot stands between numbers"
                continue
            odot = self.next() == r"\odot" and bool(self.take())
            wanted = "odot" if odot else "" if kind == "factor" else "matrix"
            assert kind in ("", "factor", wanted), "two kinds of products side by side"
            right = self.power()
            result, kind = (result @ right if wanted == "matrix" else result * right), wanted
        return result

    def power(self) -> Any:
        base = self.atom()
        if self.next() != "^":
            return base
        self.take()
        self.take("{")
        if self.next() == r"\top":
            self.take()
            result = base.T
        else:
            result = base ** self.sum()
        self.take("}")
        assert self.next() != "^", "a power of a power needs parentheses"
        return result

    def braced(self) -> Any:
        self.take("{")
        result = self.sum()
        self.take("}")
        return result

    def atom(self) -> Any:
        token = self.take()
        if token in self.values:
            return self.values[token]
        if token[0].isdigit():
            return float(token)
        if token == r"\pi":
            return np.pi
        if token == r"\infty":
            return np.inf
        if token == "e":
            self.take("^")
            return np.exp(self.braced())
        if token == r"\frac":
            above = self.braced()
            return above / self.braced()
        if token == r"\sqrt":
            return np.sqrt(self.braced())
        if token in ("(", "["):
            result = self.sum()
            if self.next() in RELATIONS:
                result = RELATIONS[self.take()](result, self.sum())
            self.take({"(": ")", "[": "]"}[token])
            return result
        arguments = []
        self.take("(")
        while not arguments or self.next() == ",":
            arguments += [self.take() and self.sum()] if arguments else [self.sum()]
        self.take(")")
        return FUNCTIONS[token](*arguments)
