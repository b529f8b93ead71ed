"""Broken files at random, a few of the many that `fuzz.py` makes; and readers that stumble, which it has to notice."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("resource")  # as do forks, it stays away from Windows
from interop.fuzz import broken, end_of, format_of, fuzz

EXAMPLES = {"keras": 80, "onnx": 300, "safetensors": 400}


@pytest.fixture(params=EXAMPLES)
def name(request):
    return request.param


def test_files_are_read_before_they_are_broken(name):
    form = format_of(name)
    assert {end_of(form, whole) for whole in form.seeds()} == {"read"}


def test_broken_files_are_read_or_refused(name):
    form, ends = format_of(name), Counter()

    @settings(max_examples=EXAMPLES[name], deadline=None)
    @given(st.integers(0, 2**32))
    def check(number):
        ends[end_of(form, broken(form, number))] += 1

    check()
    assert ends["FileError"] > EXAMPLES[name] / 4 and ends["read"] > 2, ends
    assert not [each for each in form.counts if "signal" in each]


def stumbling(path):
    return json.loads(path.read_bytes()[8:])


def writing(path):
    (path.parent / "more").touch()


def changing(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("read, error", [
    (stumbling, (ValueError, RecursionError)), (writing, AssertionError), (changing, AssertionError),
])  # fmt: skip
def test_a_reader_that_stumbles_or_writes_is_noticed(read, error):
    form = format_of("safetensors")._replace(read=read)
    with pytest.raises(error):
        for number in range(50):
            end_of(form, broken(form, number))


def test_how_many_end_in_which_way_is_told(capsys):
    form = format_of("safetensors")
    assert fuzz(form, 20, 3)
    assert not fuzz(form._replace(read=lambda path: 1 / (path.read_bytes() in form.seeds())), 20)
    counts, slowest, *wrong, counts_of_wrong, _ = capsys.readouterr().out.splitlines()
    assert counts.startswith("20 files: ") and "FileError" in counts and slowest.startswith("the slowest, file ")
    assert wrong and all(line.endswith(": ZeroDivisionError: division by zero") for line in wrong)
    assert f"{len(wrong)} wrong" in counts_of_wrong
