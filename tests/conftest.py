"""What tests share: the backends that are there, and the rule that no test leaves settings behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from devices import GPU_BACKENDS, no_traces, register_fake

import tinygrad_rnn as tg
from tinygrad_rnn.backend import unregister


@pytest.fixture(scope="session", autouse=True)
def fake_gpu() -> Iterator[None]:
    """The strict fake of CuPy, as a backend of its own name; with the kernels, where there is a compiler for them."""
    register_fake()
    yield
    unregister("fakecupy")


@pytest.fixture(params=["numpy", "fakecupy", *GPU_BACKENDS])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of each backend that is there, which is also the default backend while the test runs."""
    with tg.use_backend(request.param):
        yield request.param


@pytest.fixture(params=["fakecupy", *GPU_BACKENDS])
def gpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same without NumPy: for what is true of GPUs only."""
    with tg.use_backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def tidy(fake_gpu: None) -> Iterator[None]:
    """A test that leaves the default backend, the mode, the scope or a backend behind fails."""
    with no_traces():
        yield
