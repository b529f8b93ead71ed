"""Random numbers: the same on every backend, repeatable, and as random as they claim to be."""

from __future__ import annotations

import json

import fakecupy
import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.backend import random, resolve


@pytest.fixture(autouse=True)
def fresh() -> None:
    tg.seed(3)


def draw(backend: str, *shape: int, dtype: type = np.float32) -> np.ndarray:
    home, _ = resolve(backend)
    return home.to_host(random.uniform(home, shape, dtype))


@pytest.mark.parametrize("shape", [(), (1,), (3, 4, 5), (0, 2), (100_003,)])
def test_counted_numbers_are_equal_on_all_backends(backend: str, shape: tuple[int, ...]) -> None:
    here = draw(backend, *shape)
    tg.seed(3)
    np.testing.assert_array_equal(here, draw("numpy", *shape))
    assert here.shape == shape and here.dtype == np.float32


def test_host_numbers_are_equal_on_all_backends(backend: str) -> None:
    here = tg.randn(3, 4), tg.rand(5)
    assert here[0].backend == backend
    tg.seed(3)
    for have, want in zip(here, (tg.randn(3, 4, backend="numpy"), tg.rand(5, backend="numpy")), strict=True):
        np.testing.assert_array_equal(have.numpy(), want.numpy())


def test_on_a_gpu_they_are_made_there(gpu: str) -> None:
    with fakecupy.counting() as count:
        random.uniform(resolve(gpu)[0], (4, 5))
    assert (count["h2d"], count["d2h"], count["syncs"]) == (0, 0, 0)


def test_every_call_draws_anew_and_the_seed_starts_over(backend: str) -> None:
    first, second = draw(backend, 50), draw(backend, 50)
    assert (first != second).sum() > 45
    tg.seed(3)
    np.testing.assert_array_equal(draw(backend, 50), first)
    tg.seed(4)
    assert (draw(backend, 50) != first).sum() > 45


def test_the_state_survives_a_file_and_repeats_everything(backend: str) -> None:
    draw(backend, 5), tg.randn(3)
    saved = json.dumps(random.get_state())
    expected = draw(backend, 20), tg.randn(4).numpy(), random.host_generator().permutation(30)
    tg.seed(99)
    random.set_state(json.loads(saved))
    found = draw(backend, 20), tg.randn(4).numpy(), random.host_generator().permutation(30)
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(have, want)


def test_the_state_is_a_copy() -> None:
    state = random.get_state()
    before = json.dumps(state)
    draw("numpy", 5), tg.randn(3)
    assert json.dumps(state) == before


def test_numbers_lie_in_the_half_open_unit_interval_with_24_bits(backend: str) -> None:
    x = draw(backend, 200_000)
    assert x.min() >= 0 and x.max() < 1
    np.testing.assert_array_equal(x * 2**24, np.floor(x * 2**24))
    np.testing.assert_array_equal(x.astype(np.float64), (tg.seed(3), draw(backend, 200_000, dtype=np.float64))[1])


def flat(x: np.ndarray, bins: int = 64) -> float:
    """Chi square of the counts over equal bins, per degree of freedom: near 1 for uniform numbers."""
    counts = np.histogram(x, bins, (0, 1))[0]
    expected = x.size / bins
    return float(((counts - expected) ** 2 / expected).sum() / (bins - 1))


def correlation(x: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(x[:-lag], x[lag:])[0, 1])


def test_numbers_are_uniform_and_neighbours_unrelated() -> None:
    x = draw("numpy", 1 << 18).astype(np.float64)
    low_bits = (x * 2**24) % 256 / 256
    assert 0.5 < flat(x) < 1.6 and 0.5 < flat(low_bits) < 1.6
    for lag in (1, 2, 16, 64, 256, 4096):
        assert abs(correlation(x, lag)) < 0.01
    calls = np.array([draw("numpy", 4) for _ in range(4000)], np.float64)
    assert 0.4 < flat(calls[:, 0]) < 1.8 and abs(correlation(calls[:, 0], 1)) < 0.07


def test_a_bare_counter_would_be_noticed() -> None:
    ramp = np.arange(1 << 18) / (1 << 18)
    assert abs(correlation(ramp, 1)) > 0.9 and flat(ramp[: 1 << 17]) > 100
