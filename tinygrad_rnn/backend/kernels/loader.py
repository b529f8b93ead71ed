"""Finds the bodies of kernels, has them compiled for a dtype, and launches them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .gates import of_gates
from .training import of_training

FOLDER = Path(__file__).parent
FILES = ("gates", "losses", "optimizers")
"""The bodies that stand alone; `sequence` builds on those of the gates."""

REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
"""The dtypes that kernels exist for. Everything else goes operation by operation."""

THREADS = 256
ROOMS = 200
"""How many rooms a thread keeps on a stream before it forgets them."""


@cache
def text(name: str) -> str:
    """One file of kernels as it stands."""
    return (FOLDER / f"{name}.cuh").read_text()


def source(name: str) -> str:
    """What is compiled: the prelude, for a whole sequence the gates, and the file itself."""
    return "\n".join(text(part) for part in (["prelude", "gates", name] if name == "sequence" else ["prelude", name]))


@dataclass
class Here:
    """What belongs to one thread and one stream: room by name, captured graphs by their place, how often each kind of
    graph was captured since one was replayed, and the last column of ones, which is asked for at every step.
    """

    rooms: dict[Any, Any] = field(default_factory=dict)
    graphs: dict[Any, Any] = field(default_factory=dict)
    tries: dict[Any, int] = field(default_factory=dict)
    ones: Any = None


class Kernels:
    """The kernels of one CuPy, or of something with its names.

    gemm: `(a, b, out, add)`, which makes out (or, if `add`, adds to it) the product of two matrices, each the
        transpose of something or not, with any distance between rows.
    threads: of a block that takes all steps of a layer; a multiple of 32.
    """

    def __init__(self, cupy: Any, gemm: Callable[[Any, Any, Any, bool], None], threads: int = 512) -> None:
        self.cupy, self.gemm, self.threads = cupy, gemm, threads
        self.limit, self.function = cache(self._limit), cache(self._function)
        self.modules: dict[Any, Any] = {}
        self.fits: dict[Any, bool] = {}  # of `sequence.plan`
        self._own = threading.local()
        self.gates, self.training = of_gates(self), of_training(self)

    dtypes = frozenset(REALS)

    def _function(self, file: str, name: str, dtype: np.dtype[Any], *defines: str) -> Any:
        options = ("-std=c++17", f"-DREAL={REALS[dtype]}", *[f"-D{define}" for define in defines])
        together = "COOPERATIVE" in defines
        key = (file, options)
        if key not in self.modules:
            self.modules[key] = self.cupy.RawModule(
                code=source(file), options=options, enable_cooperative_groups=together
            )
        return self.modules[key].get_function(name)

    def launcher(self, file: str, name: str, like: Any) -> Callable[..., None]:
        """The function that launches a kernel with one thread for each element of an array; integers become int32."""
        kernel, size = self.function(file, name, like.dtype), like.size
        grid, block, int32 = ((size + THREADS - 1) // THREADS,), (THREADS,), np.int32

        def launch(*args: Any) -> None:
            if size:
                kernel(grid, block, tuple([int32(x) if type(x) is int else x for x in args]))

        return launch

    def _limit(self, device: int) -> tuple[int, int]:
        """How many multiprocessors a GPU has, and the most bytes of shared memory that a block may ask for."""
        found = self.cupy.cuda.Device(device).attributes
        return int(found["MultiProcessorCount"]), int(found["MaxSharedMemoryPerBlockOptin"])

    def here(self) -> Here:
        """What this thread keeps for the current stream of the current GPU."""
        place = self.cupy.cuda.Device().id, self.cupy.cuda.get_current_stream().ptr
        kept: dict[Any, Here] = self._own.__dict__
        if place not in kept:
            kept[place] = Here()
        return kept[place]

    def tidy(self) -> None:
        """Between two layers: forget the rooms if there are many; of so many shapes, most will not come again."""
        here = self.here()
        if max(len(here.rooms), len(here.tries)) >= ROOMS:
            here.rooms.clear()
            here.graphs.clear()  # they know the rooms by their addresses
            here.tries.clear()

    def ones(self, size: int, dtype: Any) -> Any:
        """A column of ones (size, 1)."""
        here = self.here()
        if here.ones is None or len(here.ones) != size or here.ones.dtype != dtype:
            here.ones = self.cupy.ones((size, 1), dtype)
        return here.ones

    def scratch(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Room that stays where it is from call to call, for what is used up before the next launch of its name."""
        here, key = self.here(), (name, shape, np.dtype(dtype))
        found = here.rooms.get(key)
        if found is None:
            found = here.rooms[key] = self.cupy.empty(shape, dtype)
        return found
