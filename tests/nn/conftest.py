"""Every test of this folder starts from the same random numbers, in whatever order they run."""

import pytest

import tinygrad_rnn as tg


@pytest.fixture(autouse=True)
def seeded():
    tg.seed(11)
