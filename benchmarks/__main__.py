"""The whole benchmark of the recurrent layers, in sections: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.embedding import embedding
from benchmarks.harness import about_run, is_present, version_of, write_json
from benchmarks.layers import growth, layers, threads
from benchmarks.memory import memory
from benchmarks.overhead import imports
from benchmarks.peers import CELLS, PEERS, SIZES
from benchmarks.picture import draw
from benchmarks.training import training

SECTIONS = {
    "layers": layers, "training": training, "memory": memory, "growth": growth, "threads": threads,
    "embedding": embedding, "import": imports,
}  # fmt: skip


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition(":")[0])

    def several(name: str, choices: Any, about: str, default: Any = None) -> None:
        default, every = list(choices) if default is None else default, "all" if default is None else " ".join(default)
        about = f"{about} (default: {every})"
        parser.add_argument(name, nargs="+", choices=choices, default=default, help=about, metavar=name[2:].upper())

    several("--section", SECTIONS, f"one or more of {', '.join(SECTIONS)}")
    several("--cells", CELLS, f"one or more of {', '.join(CELLS)}")
    several("--sizes", SIZES, "T, N, I, H = " + "; ".join(f"{name} {shape}" for name, shape in SIZES.items()))
    several("--peers", PEERS, f"in the section layers, one or more of {', '.join(PEERS)}")
    several("--compile", (*SIZES, "none"), "where torch.compile is tried, for minutes", PEERS["torch.compile"].sizes)
    parser.add_argument("--limit", type=float, default=300, help="seconds for a peer's turn (default 300)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which all peers take their turn (default 5)")
    parser.add_argument("--core", type=int, default=0, help="the processor core to run on (default 0)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--svg", type=Path, help="write the picture of the section layers to this file")
    options = parser.parse_args(arguments)
    if options.svg and "layers" not in options.section:
        parser.error("the picture shows the section layers, which was not asked for")
    if options.svg and not is_present("matplotlib"):
        parser.error("the picture needs matplotlib, which is not installed")
    return options


def main() -> None:
    options, console = parsed(), Console(width=150)
    packages = list(dict.fromkeys(peer.package for peer in PEERS.values()))
    versions = {name: version_of(name) for name in packages if is_present(name)}
    console.print(", ".join(f"{name} {number}" for name, number in versions.items()))
    if absent := [name for name in packages if name not in versions]:
        console.print("absent: " + ", ".join(absent))
    figures = {name: SECTIONS[name](options, console) for name in options.section}
    if options.json:
        write_json(options.json, {"about": about_run(options.rounds), "versions": versions, "sections": figures})
    if options.svg:
        draw(figures["layers"]["seconds"], options.svg)


if __name__ == "__main__":
    main()
