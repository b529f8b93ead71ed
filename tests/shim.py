"""Runs CUDA kernels without a GPU: g++ compiles their source behind `shim.h`, NumPy's buffers are the device's memory.

Arguments are held to the C signature as the compiler sees it, since a GPU takes whatever bytes it gets: an array of
exactly that dtype for a pointer, NumPy's scalar of exactly that type for a number (CuPy passes Python's as 64 bits),
None for a null pointer, and for a structure an array or scalar of a dtype with its fields at their places.
"""

from __future__ import annotations

import ctypes
import getpass
import hashlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEADER = Path(__file__).with_name("shim.h")
COMMON = ["-std=c++20", "-Wno-unknown-pragmas", "-Wno-ignored-attributes", "-U_FORTIFY_SOURCE", "-pthread"]
CHECKED = ["-Werror=return-type", "-Werror=frame-larger-than=65536"]  # a fiber's stack has twice that
PLAIN = ["-O1", "-fPIC", "-shared", "-fno-gnu-unique"]  # the last: no library shares variables with another
SANITIZERS = {
    "thread": ["-fsanitize=thread"],
    "address": [
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-sanitize=pointer-overflow",  # a null pointer that is moved, but not used, does no harm
    ],
}
SANITIZED = ["-O1", "-g", "-fno-omit-frame-pointer", "-DSHIM_THREADS", "-DSHIM_MAIN"]
MOST_THREADS = 1024  # of a block
LOOP, BLOCK, GRID = range(3)  # the ways to run a kernel, as in the header
MEETING = r"__syncthreads|__syncwarp|__shared__|DYN_SHARED|__shfl\w*|__ballot_sync|__any_sync|__all_sync|GRID_SYNC"

FUNCTION = re.compile(r"\b(?!(?:if|for|while|switch|catch)\b)([A-Za-z_]\w*)\s*\((?:[^(){};]|\([^()]*\))*\)\s*\{")
BOUNDS = r"(?:__launch_bounds__\s*\(\s*(\d*)[^()]*\)\s*)?"
KERNEL = re.compile(rf"__global__\s+{BOUNDS}void\s+{BOUNDS}(\w+)\s*\(([^()]*)\)\s*\{{")
SHARED = re.compile(
    r"(?:static\s+)?__shared__\s+(?:__align__\s*\(\d+\)\s*)?([^;=,{}]+?)\b(\w+)\s*((?:\[[^\]]*\]\s*)*);"
)
STRUCTURE = re.compile(r"\bstruct\s+(\w+)\s*\{([^{}()]*)\}\s*;")
TEMPLATE = re.compile(r"template\s*<[^{};]*$")


class CompileError(Exception):
    """The compiler's words about a source it refuses."""


def available() -> str | None:
    """Why nothing can be compiled here, or None if it can."""
    if os.name != "posix":
        return "kernels run without a GPU on Linux only"
    return None if shutil.which("g++") else "there is no g++ (Debian has it in the package g++)"


# -- reading the source ---------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What a source says about one of its kernels."""

    names: tuple[str, ...]
    way: int
    most_threads: int


def _body(text: str, start: int) -> str:
    """From the brace that opens just before `start` to the one that closes it."""
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return text[start : start + brace.end()]
    return text[start:]


def _kernels(text: str) -> dict[str, Found]:
    """The kernels of a source without comments and macros."""
    bodies: dict[str, str] = {}
    for match in FUNCTION.finditer(text):
        bodies[match[1]] = bodies.get(match[1], "") + _body(text, match.end())
    words = {name: set(re.findall(r"\w+", body)) for name, body in bodies.items()}
    found = {}
    for match in KERNEL.finditer(text):
        before, name = text[: match.start()], match[3]
        if not re.search(r'extern\s+"C"\s*(static\s+)?$', before) and not re.search(r'extern\s+"C"\s*\{', before):
            if TEMPLATE.search(before):
                continue
            raise CompileError(f'the kernel {name} is not extern "C", so that CuPy would not find it')
        reached, left = set(), {name}
        while left:
            reached |= left
            left = {other for each in left for other in words[each] & words.keys()} - reached
        meetings = {word for each in reached for word in words[each] if re.fullmatch(MEETING, word)}
        way = GRID if "GRID_SYNC" in meetings else BLOCK if meetings else LOOP
        names = tuple(re.findall(r"(\w+)\s*$", part)[0] for part in match[4].split(",") if part.strip(" \nvoid"))
        found[name] = Found(names, way, int(match[1] or match[2] or MOST_THREADS))
    return found


def _shared(text: str) -> str:
    """The source with its declared shared memory as references to what the block of the thread has."""
    count = iter(range(10**6))
    changed = SHARED.sub(lambda m: f"auto& {m[2]} = shim::fixed<{m[1].strip()}{m[3].strip()}>({next(count)});", text)
    if left := re.search(r".*__shared__.*", changed):
        raise CompileError(f"one array or number for each __shared__, DYN_SHARED for extern: {left[0].strip()}")
    return changed


def _fields(text: str) -> str:
    """What the header cannot find out by itself: the fields of the simple structures."""
    made = []
    for match in STRUCTURE.finditer(text):
        if TEMPLATE.search(text[: match.start()]):
            continue
        name, declarations = match[1], [part for part in match[2].split(";") if part.strip()]
        fields = [re.findall(r"(\w+)\s*(?:\[[^\]]*\]\s*)*$", d)[0] for part in declarations for d in part.split(",")]
        told = " text += ',';".join(
            f'tell_field<decltype({name}::{f})>(text, "{f}", offsetof({name}, {f}));' for f in fields
        )
        made.append(
            f"template <> struct shim::Fields<{name}> {{ static void tell(std::string& text) "
            f'{{ text += "{{"; {told} text += "}}"; }} }};'
        )
    return "\n".join(made)


# -- compiling ------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where compiled kernels are kept; the processes of a test run share it."""
    path = Path(tempfile.gettempdir()) / f"tinygrad_rnn-kernels-{getpass.getuser()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to somebody else")
    return path


def _run(command: list[str], text: str) -> str:
    ran = subprocess.run(command, input=text, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    if ran.returncode:
        raise CompileError(ran.stderr)
    return ran.stdout


@cache
def _compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


def made(key: tuple[str, ...], suffix: str, make: Callable[[Path], Any]) -> Path:
    """What `make` puts at the path that it gets, unless an earlier call did; for all processes together."""
    import fcntl  # not everywhere where `available` can be asked

    path = folder() / (hashlib.sha256("\0".join(key).encode()).hexdigest()[:24] + suffix)
    if not path.exists():
        with open(f"{path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # who wants the same at the same time had better wait
            if not path.exists():
                with tempfile.TemporaryDirectory(dir=folder()) as place:
                    make(Path(place) / "made")
                    (Path(place) / "made").rename(path)
    return path


def _header(key: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    """The header in a folder of its own, with what the compiler makes of it once for all sources."""

    def make(path: Path) -> None:
        path.mkdir()
        shutil.copy(HEADER, path)
        _run(
            ["g++", *COMMON, *flags, "-x", "c++-header", str(path / HEADER.name), "-o", f"{path / HEADER.name}.gch"], ""
        )

    return made(key, ".headers", make) / HEADER.name


@cache
def _built(source: str, options: tuple[str, ...], flags: tuple[str, ...]) -> tuple[Path, dict[str, Found]]:
    """The library or program of a source, made unless it is there, and the kernels in it.

    Raises: CompileError, RuntimeError without a compiler.
    """
    if reason := available():
        raise RuntimeError(reason)
    own = [option for option in options if re.match(r"-[DUI]", option)]
    clean = _run(["g++", "-E", "-x", "c++", "-std=c++20", "-DSHIM=1", *own, "-"], f'#line 1 "kernels.cu"\n{source}\n')
    kernels = _kernels(clean)
    known = "\n".join(f'static shim::Known<&{name}> shim_{name}("{name}");' for name in kernels)
    whole = f'{_shared(clean)}\n#line 1 "shim.py"\n{_fields(clean)}\n{known}\n'
    key = (HEADER.read_text(), _compiler(), *COMMON, *flags)
    command = ["g++", "-x", "c++", "-", *COMMON, *flags]

    def make(path: Path) -> None:
        header = _header(key, flags) if flags[: len(PLAIN)] == tuple(PLAIN) else HEADER
        _run([*command, "-include", str(header), "-o", str(path)], whole)

    return made((whole, *key), "", make), kernels


class Module:
    """The kernels of one source, by name."""

    def __init__(self, source: str, options: tuple[str, ...]) -> None:
        path, found = _built(source, options, (*PLAIN, *CHECKED))
        library = ctypes.CDLL(str(path))
        library.shim_signature.restype = library.shim_launch.restype = ctypes.c_char_p
        library.shim_launch.argtypes = [
            ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t,
        ]  # fmt: skip
        lock = threading.Lock()
        self.kernels = {name: Kernel(name, each, library, lock) for name, each in found.items()}

    def __getitem__(self, name: str) -> Kernel:
        return self.kernels[name]

    def __contains__(self, name: str) -> bool:
        return name in self.kernels


@cache
def compiled(source: str, options: tuple[str, ...] = ()) -> Module:
    """Compile a source; of the options, -D, -U and -I count.

    Raises: CompileError, with the compiler's words; RuntimeError, without a compiler.
    """
    return Module(source, options)


# -- arguments ------------------------------------------------------------------------------------------------------


class Kernel:
    """One kernel, to be called as CuPy's are, but on arrays of NumPy.

    names: of its parameters. codes: their types, as "*const f4" for `const float*`. way: LOOP, BLOCK or GRID.
    """

    def __init__(self, name: str, found: Found, library: ctypes.CDLL, lock: threading.Lock) -> None:
        self.name, self.names, self.way, self.most_threads = name, found.names, found.way, found.most_threads
        self.codes = tuple(library.shim_signature(name.encode()).decode().split(";")[:-1])
        self._library, self._lock = library, lock

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], shared_mem: int = 0
    ) -> None:
        """Run it. Raises: TypeError for a wrong argument; ValueError for wrong sizes; RuntimeError, what went wrong."""
        sizes = self._sizes(grid, block)
        values = self._checked(args)
        pointers = [np.array(_address(x), np.uintp) if code[0] == "*" else x for code, x in zip(self.codes, values)]
        places = (ctypes.c_void_p * max(len(args), 1))(*[x.ctypes.data for x in pointers])
        with self._lock:
            error = self._library.shim_launch(
                self.name.encode(), places, self.way, (ctypes.c_uint * 6)(*sizes), shared_mem
            )
        if error:
            raise RuntimeError(f"{self.name}: {error.decode()}")

    def _sizes(self, grid: tuple[int, ...], block: tuple[int, ...]) -> list[int]:
        for what, size in (("grid", grid), ("block", block)):
            if not isinstance(size, tuple) or not 1 <= len(size) <= 3 or any(x < 1 for x in size):
                raise ValueError(f"{self.name}: the {what} is {size!r}, not a tuple of one to three sizes")
        sizes = [int(x) for size in (grid, block) for x in (*size, 1, 1)[:3]]
        if (threads := sizes[3] * sizes[4] * sizes[5]) > self.most_threads:
            raise ValueError(f"{self.name}: a block of {threads} threads, but it can have {self.most_threads} at most")
        return sizes

    def _checked(self, args: tuple[Any, ...]) -> list[Any]:
        """The arguments as arrays, or None for null.

        Raises: TypeError.
        """
        if len(args) != len(self.codes):
            raise TypeError(f"{self.name} takes {len(self.codes)} arguments ({', '.join(self.names)}), not {len(args)}")
        checked = []
        for name, code, x in zip(self.names, self.codes, args):
            if wrong := _unfit(code, x):
                raise TypeError(f"{self.name}: {name} is {wrong}")
            checked.append(x if x is None or isinstance(x, np.ndarray) else np.array(x))
        return checked


def _address(x: np.ndarray | None) -> int:
    """Of the first element; as on a GPU, an array without elements has none."""
    return x.ctypes.data if x is not None and x.size else 0


def _told(code: str) -> str:
    if code.startswith("V"):
        return f"a structure of {re.findall(r'[0-9]+', code)[0]} bytes"
    return np.dtype(code).name


def _unfit(code: str, x: Any) -> str | None:
    """How an argument is not what a parameter of this code takes, or None."""
    given = f"{x!r} ({type(x).__name__})" if np.isscalar(x) or x is None else type(x).__name__
    if code.startswith("*"):
        kind = code.removeprefix("*").removeprefix("const ")
        what = "a pointer" if kind == "void" else f"a pointer to {_told(kind)}"
        if x is None:
            return None
        if not isinstance(x, np.ndarray):
            return f"{what}, which takes an array or None, not {given}"
        fits = kind == "void" or (_fits(kind, x.dtype) if kind[0] == "V" else x.dtype == np.dtype(kind))
        if not fits:
            return f"{what}, not to {x.dtype}"
        return (
            f"{what} that is written to, but the array is read-only" if "const" not in code and not _open(x) else None
        )
    if code.startswith("V"):
        value = isinstance(x, np.void) or (isinstance(x, np.ndarray) and x.size == 1)
        if not value:
            return f"{_told(code)}, which takes an array of one element or a scalar of a structured dtype, not {given}"
        return None if _fits(code, x.dtype) else f"{_told(code)} {code.partition('{')[2][:-1]}, not {x.dtype}"
    kind = _told(code)
    if not isinstance(x, np.generic):
        return f"{kind}, which takes np.{kind}, not {given}"
    return None if x.dtype == np.dtype(code) else f"{kind}, not {given}"


def _open(x: np.ndarray) -> bool:
    return bool(x.flags.writeable) or not x.size


def _fits(code: str, dtype: np.dtype[Any]) -> bool:
    """Whether a dtype lays out its fields as a structure does; a pointer in it is np.uintp."""
    size, _, fields = code.removeprefix("V").removesuffix("}").partition("{")
    if dtype.itemsize != int(size):
        return False
    if not fields:  # a structure that is not so simple: only its size is known
        return True
    if "{" in fields:  # a structure of structures: its size has to do
        return True
    if dtype.fields is None:
        return False
    have = {name: (dtype.fields[name][0], dtype.fields[name][1]) for name in dtype.names or ()}
    want = {}
    for field in fields.split(","):
        name, of, at = re.fullmatch(r"(\w+):(.+)@(\d+)", field).groups()  # type: ignore[union-attr]
        base, *extents = re.split(r"[\[\]]+", "u8" if of[0] == "*" else of)
        want[name] = (np.dtype((base, tuple(int(n) for n in extents if n)) if any(extents) else base), int(at))
    return have == want


# -- under a sanitizer ----------------------------------------------------------------------------------------------


def sanitized(
    source: str, options: tuple[str, ...], kind: str, name: str, grid: tuple[int, ...], block: tuple[int, ...],
    args: tuple[Any, ...], shared_mem: int = 0, timeout: float = 120,
) -> str:  # fmt: skip
    """Run one launch in a process of its own, under a sanitizer; gives its report, "" if it saw nothing.

    kind: "thread" finds what is missing between threads: barriers, atomic functions. "address" finds what lies outside
        of arrays and shared memory, and what C++ does not define. All blocks run at once, each thread as one of the
        system: take small sizes.

    The arrays have the results afterwards, if the launch came to its end. Raises: as `compiled` and a kernel.
    """
    checker = compiled(source, options)[name]
    sizes, values = checker._sizes(grid, block), checker._checked(args)
    program, _ = _built(source, options, (*SANITIZERS[kind], *SANITIZED))
    pieces = _pieces([x for x, code in zip(values, checker.codes) if code[0] == "*" and x is not None and x.size])
    head, tail = [*sizes, len(pieces), *[high - low for low, high in pieces], len(values)], b""
    for code, x in zip(checker.codes, values):
        if code[0] != "*":
            tail += x.tobytes()
            head += [-2, x.nbytes]
        elif not (address := _address(x)):
            head += [-1, 0]
        else:
            k = next(k for k, (low, high) in enumerate(pieces) if low <= address < high)
            head += [k, address - pieces[k][0]]
    begin = struct.pack(f"{len(head)}q", *head)
    memory = b"".join(ctypes.string_at(low, high - low) for low, high in pieces)
    with tempfile.TemporaryDirectory(dir=folder()) as place:
        path = Path(place) / "launch"
        path.write_bytes(begin + memory + tail)
        command = [str(program), name, str(checker.way), str(shared_mem), str(path)]
        if still := shutil.which("setarch"):  # sanitizers want their addresses free
            command = [still, "-R", *command]
        quiet = {"TSAN_OPTIONS": "exitcode=66", "ASAN_OPTIONS": "detect_leaks=0"}
        try:
            ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet, timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"the threads wait for ever: no end after {timeout} seconds"
        if not ran.returncode:
            after, at = path.read_bytes(), len(begin)
            for low, high in pieces:
                ctypes.memmove(low, after[at : at + high - low], high - low)
                at += high - low
    return ran.stderr.strip() or (f"it ended with {ran.returncode}" if ran.returncode else "")


def _pieces(arrays: list[np.ndarray]) -> list[tuple[int, int]]:
    """The memory that each array is a part of, since a kernel may walk from its first element; each piece once."""

    def owner(x: np.ndarray) -> np.ndarray:
        return owner(x.base) if isinstance(x.base, np.ndarray) else x

    pieces: list[tuple[int, int]] = []
    for low, high in sorted(np.lib.array_utils.byte_bounds(owner(x)) for x in arrays):
        if pieces and low < pieces[-1][1]:
            pieces[-1] = (pieces[-1][0], max(high, pieces[-1][1]))
        else:
            pieces.append((low, high))
    return pieces
