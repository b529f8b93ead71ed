"""Text as numbers: read it, number its symbols, hold the last tenth back, and read it in parallel streams."""

from __future__ import annotations

import codecs
import hashlib
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import TextError

Ids = np.ndarray
"""Symbols by number: int64, on the host."""


def default_text() -> str:
    """The text that every Python carries: the topics of its `help()`, in alphabetical order (465,000 characters)."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise TextError("this Python lacks pydoc_data, the default text: name a UTF-8 file with --text") from None
    return "\n\n".join(topics[name] for name in sorted(topics))


def read_text(path: str | Path | None = None) -> str:
    """The text in a UTF-8 file, its line ends as \\n; None is `default_text()`.

    Raises: TextError, if the file is missing, unreadable, empty, binary or not UTF-8.
    """
    if path is None:
        return default_text()
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        gone = f"{path} is a link to {os.readlink(path)}, which is not there" if os.path.islink(path) else None
        raise TextError(f"{gone or f'there is no file {path}'}: check the name given with --text") from None
    except OSError as error:
        raise TextError(f"{path} cannot be read ({error.strerror}): name a readable text file with --text") from None
    if not raw.removeprefix(codecs.BOM_UTF8).strip():
        raise TextError(f"{path} is empty: name a file with some text in it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in raw:
            raise TextError(f"{path} is a binary file, not text: name a UTF-8 text file") from None
        raise TextError(
            f"{path} is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}; convert it first, "
            f"as in iconv -f latin1 -t utf-8 {shlex.quote(str(path))} > converted.txt"
        ) from None
    if "\0" in text:
        raise TextError(f"{path} is a binary file, not text: it has a zero byte at character {text.index(chr(0))}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def digest(text: str) -> str:
    """A fingerprint of a text, by which a resumed run knows that it reads the same one."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Vocabulary:
    """The symbols of a text and their numbers: characters (separator "") or words (separator " ").

    symbols: the distinct symbols; the place of each is its number.

    Raises: TextError for symbols that are no strings or come twice.
    """

    def __init__(self, symbols: Sequence[str], separator: str = "") -> None:
        if not all(isinstance(each, str) for each in (*symbols, separator)) or len(set(symbols)) < len(symbols):
            raise TextError(f"the {len(symbols)} symbols of a vocabulary must be strings, each of them another one")
        self.symbols, self.separator = tuple(symbols), separator
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The characters of a text in the order of their code points."""
        return cls(sorted(set(text)))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> Ids:
        """The symbols of a text as numbers, shape (length,). Between words, any white space does.

        Raises: TextError for a symbol that is not in the vocabulary.
        """
        parts = text.split() if self.separator else text
        try:
            return np.fromiter(map(self._numbers.__getitem__, parts), np.int64)
        except KeyError as error:
            kind = "word" if self.separator else "character"
            apart = "; what is no letter is a word too, with a space on either side" if self.separator else ""
            known = self.separator.join(self.symbols if self.separator else self.symbols[-60:])
            raise TextError(
                f"the {kind} {error.args[0]!r} never occurred in the text that the model learned; "
                f"use only what it knows, such as {known!r}{apart}"
            ) from None

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Numbers back as text."""
        return self.separator.join(self.symbols[int(i)] for i in ids)


def split(ids: Ids, batch: int, truncation: int) -> tuple[Ids, Ids]:
    """What to learn from, and the last tenth, held back.

    Raises: TextError, if the first part is too short for `batch` streams of `truncation` symbols.
    """
    held_back = len(ids) // 10
    needed = batch * truncation + 1
    if len(ids) - held_back < needed or held_back < 2:
        least = max(20, needed + (needed - 1) // 9)
        raise TextError(
            f"the text is too short: it has {len(ids):,} characters, and a batch of {batch} streams of {truncation} "
            f"needs at least {least:,}; take a longer text, or a smaller --batch or --truncation"
        )
    return ids[:-held_back], ids[-held_back:]


class Streams:
    """A text read endlessly by N readers at equal distances, who go round it as round a ring.

    `take(T)` gives the next inputs and targets, both (T, N): the targets are the inputs one symbol later. Each reader
    goes on where it stopped, so that the state of a recurrent layer can be carried over from one window to the next.
    batch: N. apart: from where one reader starts to where the next does.
    position: how far each reader has come; setting it takes the readers there.
    """

    def __init__(self, ids: Ids, batch: int, apart: int | None = None) -> None:
        self._ids, self._starts, self.position = ids, np.arange(batch) * (apart or len(ids) // batch), 0

    def take(self, length: int) -> tuple[Ids, Ids]:
        """The next `length` symbols of every reader, and those that follow them."""
        places = (self.position % len(self._ids) + np.arange(length + 1)[:, None] + self._starts) % len(self._ids)
        self.position += length
        window = self._ids[places]
        return window[:-1], window[1:]


def once_through(ids: Ids, batch: int, length: int) -> Iterator[tuple[Ids, Ids]]:
    """A text once from end to end in up to `batch` streams: inputs and targets, both (T, N) with T <= `length`."""
    batch = min(batch, len(ids) - 1)
    rest = (len(ids) - 1) // batch
    streams = Streams(ids, batch, apart=rest)
    while rest:
        yield streams.take(min(length, rest))
        rest -= min(length, rest)
