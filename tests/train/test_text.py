"""Texts: every way a file can be wrong has its sentence; streams and windows lose and repeat nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinygrad_rnn.errors import TextError
from tinygrad_rnn.train.text import Streams, Vocabulary, default_text, once_through, read_text, split


def test_the_default_text_is_the_help_of_python_and_always_the_same() -> None:
    text = default_text()
    assert len(text) > 300_000 and "lambda" in text and text == read_text()


def test_line_ends_and_a_byte_order_mark_do_not_become_symbols(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes("\ufeffä\r\nb\rc\n".encode())
    assert read_text(tmp_path / "t") == "ä\nb\nc\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no file"),
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xef\xbb\xbf \n", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
        (b"some text\0more text", "zero byte at character 9"),
        ("Grüße".encode("latin-1"), "not UTF-8: byte 2 is 0xfc; convert it first, as in iconv"),
    ],
)
def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "input.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TextError, match=says) as refusal:
        read_text(path)
    assert str(path) in str(refusal.value)


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="cannot be read"):
        read_text(tmp_path)


def test_characters_go_to_numbers_and_back() -> None:
    vocabulary = Vocabulary.of("hello")
    assert vocabulary.symbols == ("e", "h", "l", "o")
    assert vocabulary.encode("hole").tolist() == [1, 3, 2, 0]
    assert vocabulary.decode(vocabulary.encode("hello")) == "hello"
    with pytest.raises(TextError, match="the character 'x' never occurred"):
        vocabulary.encode("hex")


def test_words_go_to_numbers_and_back() -> None:
    vocabulary = Vocabulary(["the", "cat", ","], separator=" ")
    assert vocabulary.decode(vocabulary.encode("the cat ,")) == "the cat ,"
    with pytest.raises(TextError, match=r"the word 'dog' never occurred .* 'the cat ,'"):
        vocabulary.encode("the dog")


def test_the_last_tenth_is_held_back_and_a_short_text_refused() -> None:
    learned, held_back = split(np.arange(210), 3, 20)
    assert learned.tolist() == list(range(189)) and held_back.tolist() == list(range(189, 210))
    for length in range(2, 80):
        if length < 67:  # 67 - 6 = 3 * 20 + 1
            with pytest.raises(TextError, match=rf"it has {length} characters, .* needs at least 67"):
                split(np.arange(length), 3, 20)
        else:
            split(np.arange(length), 3, 20)


def test_streams_go_on_where_they_stopped_round_the_whole_text() -> None:
    streams = Streams(np.arange(10), batch=3)  # at 0, 3 and 6
    x, y = streams.take(4)
    assert x.T.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert y.T.tolist() == [[1, 2, 3, 4], [4, 5, 6, 7], [7, 8, 9, 0]]
    x, _ = streams.take(2)
    assert x.T.tolist() == [[4, 5], [7, 8], [0, 1]]
    later = Streams(np.arange(10), batch=3)
    later.position = streams.position
    np.testing.assert_array_equal(later.take(5), streams.take(5))


@pytest.mark.parametrize(("length", "batch", "window"), [(23, 4, 3), (24, 4, 3), (9, 4, 256), (3, 7, 2), (2, 1, 1)])
def test_once_through_asks_for_every_symbol_of_every_stream_once(length: int, batch: int, window: int) -> None:
    pairs = list(once_through(np.arange(length), batch, window))
    x, y = (np.concatenate(part) for part in zip(*pairs))
    N = min(batch, length - 1)
    rest = (length - 1) // N
    np.testing.assert_array_equal(x.T.ravel(), np.arange(N * rest))
    np.testing.assert_array_equal(y, x + 1)
    assert max(len(x) for x, _ in pairs) <= window
