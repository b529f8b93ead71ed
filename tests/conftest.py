"""What tests share: the backends that are there, a browser, and the rule that no test leaves settings behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser. Needs the extra `browser`, and a Chromium on the PATH."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[browser]'")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs a Chromium on the PATH: apt install chromium")
    flags = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --no-first-run"
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=flags.split())
        yield browser
        browser.close()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go: TINYGRAD_RNN_SCREENSHOTS names a folder that keeps them."""
    folder = Path(os.environ.get("TINYGRAD_RNN_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
