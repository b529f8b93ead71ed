"""Names that nobody has yet."""

from __future__ import annotations

from tinygrad_rnn.interop.names import Names


def test_each_name_is_given_once():
    names = Names(["input"], mark="#")
    wishes = ["a", "a", "a#2", "a", "input", "b"]
    assert [names.free(wish) for wish in wishes] == ["a", "a#2", "a#2#2", "a#3", "input#2", "b"]


def test_many_equal_wishes_take_little_time_each():
    names = Names()
    assert [names.free("x") for _ in range(20_000)][-1] == "x_20000"
