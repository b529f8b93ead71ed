"""Compiles CUDA kernels for real GPUs, none of which has to be there: NVIDIA's run-time compiler as a wheel.

The wheels are nvidia-cuda-nvrtc, nvidia-cuda-runtime and nvidia-cuda-cccl; the last two have the headers.
"""

from __future__ import annotations

import ctypes
import re
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shim import made

ARCHITECTURES = (75, 80, 90, 100, 120)
WHEELS = "nvidia-cuda-nvrtc, nvidia-cuda-runtime and nvidia-cuda-cccl, all of CUDA 13"


class CompileError(Exception):
    """The compiler's words about a source it refuses."""


@dataclass(frozen=True)
class Usage:
    """What one kernel needs on one architecture: registers of a thread, bytes that did not fit into them and are kept
    in memory (spilled, or arrays that are indexed by variables), bytes of declared shared memory."""

    registers: int
    spilled: int
    stack: int
    shared: int


@cache
def _home() -> Path | None:
    """The folder with lib/ and include/ of the wheels."""
    places = [Path(sysconfig.get_path(name)) / "nvidia" for name in ("platlib", "purelib")]
    found = [lib.parent.parent for place in places for lib in sorted(place.glob("*/lib/libnvrtc.so.1[3-9]"))]
    return found[-1] if found else None


def available() -> str | None:
    """Why nothing can be compiled here, or None if it can."""
    home = _home()
    if home is None:
        return f"NVRTC is not installed; its wheels are {WHEELS}"
    needed = ("cooperative_groups.h", "cccl/nv/target")
    missing = [name for name in needed if not (home / "include" / name).exists()]
    return f"{' and '.join(missing)} not found; the wheels are {WHEELS}" if missing else None


@cache
def _library() -> tuple[ctypes.CDLL, str]:
    """The compiler, and its version."""
    home = _home()
    assert home is not None
    builtins = next(home.glob("lib/libnvrtc-builtins.so.*"))
    ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)  # it would look for them in the system's folders only
    return ctypes.CDLL(str(next(home.glob("lib/libnvrtc.so.1[3-9]")))), builtins.name


def compiled_for(architecture: int, source: str, options: tuple[str, ...] = ()) -> dict[str, Usage]:
    """Compile a source as CuPy does, down to the machine code of an architecture; gives what each kernel needs.

    Raises: CompileError, with the compiler's words; RuntimeError, without a compiler.
    """
    if reason := available():
        raise RuntimeError(reason)
    own = (*options, f"-arch=sm_{architecture}", "-ftz=true", "--ptxas-options=-v")
    nvrtc, version = _library()
    include = (f"-I{_home()}/include", f"-I{_home()}/include/cccl")
    log = made((source, *own, version), ".log", lambda path: path.write_text(_log(nvrtc, source, (*own, *include))))
    return _usages(log.read_text())


def _log(nvrtc: ctypes.CDLL, source: str, options: tuple[str, ...]) -> str:
    program, size, given = ctypes.c_void_p(), ctypes.c_size_t(), [x.encode() for x in options]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode()
    if failed:
        raise CompileError(text)
    return text


def _usages(log: str) -> dict[str, Usage]:
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        numbers = {
            what: int(match[1]) if (match := re.search(pattern, part)) else 0
            for what, pattern in {
                "registers": r"Used (\d+) registers",
                "spilled": r"(\d+) bytes spill stores",
                "stack": r"(\d+) bytes stack frame",
                "shared": r"(\d+) bytes smem",
            }.items()
        }
        found[part.partition("'")[0]] = Usage(**numbers)
    return found
