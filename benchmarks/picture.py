"""Forward + backward as a picture: our time in parts of each peer's, below 1 where ours is shorter."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Measures
from benchmarks.layers import BOTH
from benchmarks.peers import OURS, PEERS


def draw(figures: dict[str, dict[str, Measures]], path: Path) -> None:
    """figures: of the section `layers`, by cell, peer and measure. A panel for each cell, a line for each peer."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style = {"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(
            1, len(figures), figsize=(2.2 * len(figures) + 1.4, 3.4), sharey=True, squeeze=False, layout="constrained"
        )
        for axis, (cell, peers) in zip(axes[0], figures.items()):
            ours = {name.removesuffix(f", {BOTH}"): t for name, t in peers[OURS].items() if name.endswith(BOTH)}
            axis.axhline(1, color="black", linewidth=1)
            for number, peer in enumerate(name for name in PEERS if name != OURS):
                times = {size: peers.get(peer, {}).get(f"{size}, {BOTH}") for size in ours}
                ratios = [ours[size] / time if time else None for size, time in times.items()]
                marks = {"color": f"C{number}", "marker": "osD^v<>*X"[number % 9], "markersize": 4}
                axis.plot(list(ours), [float("nan") if r is None else r for r in ratios], label=peer, **marks)
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.set_title(cell)
            axis.tick_params(axis="x", rotation=45)
            axis.grid(alpha=0.3)
        axes[0][0].set_ylabel(f"{OURS} / peer, {BOTH}")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
