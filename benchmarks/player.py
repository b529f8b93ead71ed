"""The page to step through: its size, and how soon a browser can take a step: `python -m benchmarks.player`.

Needs the extra `browser` and a Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.see.player import play
from tinygrad_rnn.see.show import computation

READY = """addEventListener("DOMContentLoaded", () => requestAnimationFrame(() => requestAnimationFrame(() => {
    window.ready = performance.now();
})));"""
"""The second frame after all scripts have run: what is seen by then answers to keys and clicks."""
STEP = """() => {
    const start = performance.now();
    step(at + 1);
    document.body.offsetWidth;  // so that the layout counts
    return performance.now() - start;
}"""
SIZES = [(3, 5, 2), (4, 8, 8), (8, 16, 4), (16, 32, 8), (64, 128, 16)]
"""Of a layer: inputs, units, and sequences side by side."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Prints a line for each length: making the page, its bytes, until it is ready, one step of it; medians.

    Then the bytes of pages of layers of 20 steps, op by op and fused layers unfolded, for each of `SIZES`.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.player", description=__doc__.partition(":")[0])
    parser.add_argument("--steps", nargs="+", type=int, default=[3, 20], help="time steps of the GRU (default 3 20)")
    parser.add_argument("--rounds", type=int, default=9, help="how often each page is opened (default 9)")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    print(f"{'GRU, T':>8} {'steps':>6} {'made in':>9} {'bytes':>9} {'ready in':>9} {'a step':>8}")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for T in options.steps:
            start = time.perf_counter()
            player = play(computation("gru", T), path := Path(folder) / f"{T}.html", timeout=60)
            made = time.perf_counter() - start
            ready, moved = [], []
            for _ in range(options.rounds):
                page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
                page.add_init_script(READY)
                page.goto(path.as_uri())
                page.wait_for_selector("html[data-ready]")
                while (seen := page.evaluate("window.ready")) is None:
                    pass
                ready.append(seen)
                moved += [page.evaluate(STEP) for _ in range(10)]
                page.context.close()
            size = path.stat().st_size
            print(
                f"{T:>8} {player.steps:>6} {made:>7.2f} s {size:>9,} {statistics.median(ready):>6.0f} ms "
                f"{statistics.median(moved):>5.1f} ms"
            )
        browser.close()
    print(f"\n{'I, H, N':>12} {'GRU':>9} {'unfolded':>9} {'LSTM':>9} {'unfolded':>9}")
    for size in SIZES:
        found = [f"{bytes_of(cell, *size, fused):>9,}" for cell in (nn.GRU, nn.LSTM) for fused in (False, True)]
        print(f"{', '.join(map(str, size)):>12} {' '.join(found)}")


def bytes_of(cell: type[nn.GRU] | type[nn.LSTM], inputs: int, units: int, batch: int, fused: bool) -> int:
    """How large the page of a layer of 20 steps is; one that is fused is unfolded."""
    rng = np.random.default_rng(0)
    layer = cell(inputs, units, fused=fused, rng=rng)
    output, _ = layer(tg.tensor(rng.standard_normal((20, batch, inputs)).astype(np.float32), name="x"))
    return len(play((output * output).sum(), expand=fused, timeout=60).html.encode())


if __name__ == "__main__":
    main()
