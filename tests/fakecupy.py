"""A stand-in for CuPy that computes with NumPy and refuses what CuPy refuses; for tests, never for results.

Names and signatures come from `cupy_names.pyi`; what CuPy lacks, this lacks. Arrays keep a NumPy buffer to
themselves: no implicit conversion, no mixing with NumPy arrays, no `__index__`, results without axes stay arrays,
indices out of range wrap around in silence. `counting()` counts kernel launches (at least one for each call that
makes new numbers), copies to and from the device, and waits for it. Where CuPy is silently lenient (its functions
on NumPy arrays), this raises; `tests/backend/test_conformance.py` holds it to the real CuPy wherever there is one.
Kernels of CUDA run through `shim`, one launch a call.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import shim

from tinygrad_rnn.backend import numpy_

__version__ = "14.2.0"
DEVICES = 2
MULTIPROCESSORS = 8
SHARED_MEMORY = 232448  # bytes that a block can have at most
SHARED_MEMORY_UNASKED = 49152  # and as long as nobody has set `max_dynamic_shared_size_bytes`
NAMES = Path(__file__).with_name("cupy_names.pyi")
NUMBERS = (bool, int, float, complex, np.generic)
READS = {"nonzero", "flatnonzero", "argwhere", "unique", "extract", "bincount"}  # their sizes depend on numbers
REDUCTIONS = {"sum", "prod", "mean", "max", "min", "cumsum", "argmax", "argmin"}  # where a scalar has no axis 0
ARRAYS_ONLY = {"a", "b", "array", "arr", "m", "ary"}  # parameters that take neither lists nor arrays of NumPy
ADDABLE = {"int32", "int64", "uint32", "uint64", "float16", "float32", "float64"}  # what atomicAdd can do

totals: Counter[str] = Counter()


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts "launches", "h2d", "d2h" (copies) and "syncs" of the block; the counter is filled when it ends."""
    before, seen = Counter(totals), Counter()
    try:
        yield seen
    finally:
        seen.update({name: totals[name] - before[name] for name in totals})


class PerformanceWarning(UserWarning):
    """CuPy's category for arrays that lie on another GPU."""


# -- the table of names ---------------------------------------------------------------------------------


def _table() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the module and of ndarray: a Signature for a function, else the word that the table has."""

    def entries(body: list[ast.stmt]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for node in body:
            if isinstance(node, ast.FunctionDef):
                scope: dict[str, Any] = {}
                exec(ast.unparse(node), scope)
                found[node.name] = inspect.signature(scope[node.name])
            elif isinstance(node, ast.AnnAssign):
                found[ast.unparse(node.target)] = ast.unparse(node.annotation)
        return found

    tree = ast.parse(NAMES.read_text())
    own = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    return entries(tree.body), entries(own.body)


FUNCTIONS, METHODS = _table()


# -- between the device and us ----------------------------------------------------------------------------


def _refused(x: Any) -> TypeError:
    return TypeError(f"Unsupported type {type(x)}")


def _inside(x: Any) -> Any:
    """The buffer behind an argument; arrays of NumPy are refused, also inside of lists."""
    if isinstance(x, ndarray):
        if x._device != cuda.Device().id:
            warnings.warn(
                f"The device where the array resides ({x._device}) is different from the current device "
                f"({cuda.Device().id}). Peer access has been activated automatically.",
                PerformanceWarning,
                stacklevel=4,
            )
        return x._buffer
    if isinstance(x, np.ndarray):
        raise _refused(x)
    if isinstance(x, (list, tuple)):
        return type(x)(_inside(each) for each in x)
    return x


def _operand(x: Any) -> Any:
    if not isinstance(x, (ndarray, *NUMBERS)):
        raise _refused(x)
    return _inside(x)


def _outside(result: Any, sources: tuple[Any, ...] = (), view: bool = False) -> Any:
    """Results as arrays, those of NumPy's scalars too; whoever does not lie in a source's memory cost a launch."""
    if isinstance(result, (list, tuple)):
        return type(result)(_outside(each, sources, view) for each in result)
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    buffer = np.asarray(result)
    if (
        buffer.size
        and not view
        and not any(isinstance(x, np.ndarray) and np.may_share_memory(buffer, x) for x in sources)
    ):
        totals["launches"] += 1
    return ndarray._around(buffer)


def _computed(function: Any, *args: Any, **keywords: Any) -> Any:
    """A GPU divides by zero without a word."""
    with np.errstate(all="ignore"):
        return function(*args, **keywords)


def _buffers(*values: Any) -> tuple[Any, ...]:
    return tuple(y for x in values for y in (_buffers(*x) if isinstance(x, (list, tuple)) else (x,)))


def _is_mask(part: Any) -> bool:
    return isinstance(part, ndarray) and part.dtype == bool


class ndarray:
    """The array type: a NumPy buffer that nobody else gets to see."""

    __slots__ = ("__weakref__", "_buffer", "_device")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float) -> None:
        self._buffer, self._device = np.full(shape, np.nan).astype(dtype), cuda.Device().id

    @classmethod
    def _around(cls, buffer: np.ndarray, device: int | None = None) -> ndarray:
        new = object.__new__(cls)
        new._buffer, new._device = buffer, cuda.Device().id if device is None else device
        return new

    shape = property(lambda self: self._buffer.shape)
    dtype = property(lambda self: self._buffer.dtype)
    ndim = property(lambda self: self._buffer.ndim)
    size = property(lambda self: self._buffer.size)
    nbytes = property(lambda self: self._buffer.nbytes)
    itemsize = property(lambda self: self._buffer.itemsize)
    strides = property(lambda self: self._buffer.strides)
    flags = property(lambda self: self._buffer.flags)
    device = property(lambda self: cuda.Device(self._device))
    base = property(lambda self: None if self._buffer.base is None else ndarray._around(self._buffer.base))
    data = property(lambda self: SimpleNamespace(ptr=self._buffer.ctypes.data if self.size else 0))
    T = property(lambda self: self.transpose())
    real = property(lambda self: ndarray._around(self._buffer.real))
    imag = property(lambda self: ndarray._around(self._buffer.imag))

    def __getattr__(self, name: str) -> Any:
        signature = METHODS.get(name)
        if signature is None:
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        if not isinstance(signature, inspect.Signature):
            raise NotImplementedError(f"the fake does not imitate ndarray.{name}")

        def method(*args: Any, **keywords: Any) -> Any:
            signature.bind(self, *args, **keywords)
            if name == "take":
                return take(self, *args, **keywords)
            if name in READS:
                totals.update(d2h=1, syncs=1)
            inner = [_inside(x) for x in args], {k: _inside(v) for k, v in keywords.items()}
            result = _computed(getattr(_inside(self), name), *inner[0], **inner[1])
            return _outside(result, _buffers(self._buffer, *inner[0], *inner[1].values()))

        return method

    # -- the way out, each a wait for the device --------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        totals.update(d2h=1, syncs=int(blocking))
        if out is not None:
            np.copyto(out, self._buffer)
            return out
        return self._buffer.copy(order)

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __bool__(self) -> bool:
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. Use a.any() or a.all()"
            )
        return bool(self.get()) if self.size else False

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __reduce__(self) -> Any:
        return array, (self.get(),)

    # -- axes and elements ------------------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return len(self._buffer)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def copy(self, order: str = "C") -> ndarray:
        totals["launches"] += 1
        return ndarray._around(self._buffer.copy(order))  # also from another GPU, as CuPy does

    def astype(
        self, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        if casting is not None or subok is not None:
            raise TypeError(f"{'casting' if casting is not None else 'subok'} is not supported yet")
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return _outside(_computed(_inside(self).astype, _supported(dtype), order))  # type: ignore[no-any-return]

    def fill(self, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        totals["launches"] += 1
        self._buffer.fill(value.item() if isinstance(value, (ndarray, np.ndarray)) else value)

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        totals["h2d"] += 1
        self._buffer[...] = arr

    def nonzero(self) -> tuple[ndarray, ...]:
        if not self.ndim:
            raise ValueError("Calling nonzero on 0d arrays is not allowed.")
        totals.update(d2h=1, syncs=1)
        return _outside(self._buffer.nonzero())  # type: ignore[no-any-return]

    def _key(self, key: Any) -> tuple[Any, bool]:
        """The key for the buffer, with arrays of integers wrapped into range, and whether it makes a view."""
        parts = [self._part(part) for part in (key if isinstance(key, tuple) else (key,))]
        widths = [0 if p is None or p is Ellipsis else p.ndim if _is_mask(p) else 1 for p in parts]
        if sum(map(_is_mask, parts)) > 1:
            raise NotImplementedError("more than one boolean array in an index")
        if any(map(_is_mask, parts)):
            totals.update(d2h=1, syncs=1)  # the number of elements decides the shape
        axis = 0
        for i, (part, width) in enumerate(zip(parts, widths, strict=True)):
            if isinstance(part, ndarray):
                inner = parts[i] = _inside(part)
                if part.dtype.kind not in "iub":
                    raise IndexError(f"arrays used as indices must be of integer or boolean type, not {part.dtype}")
                if part.dtype.kind != "b" and axis < self.ndim and self.shape[axis]:
                    parts[i] = inner % self.shape[axis]
            axis += self.ndim - sum(widths) if part is Ellipsis else width
        views = not any(isinstance(part, np.ndarray) for part in parts)
        if views and Ellipsis not in parts:
            parts.append(Ellipsis)  # so that one element is a view without axes, not a number
        return tuple(parts), views

    @staticmethod
    def _part(part: Any) -> Any:
        if isinstance(part, (list, tuple, np.ndarray, np.bool, bool)):
            totals["h2d"] += 1  # copied to the device at every call, in silence
            host = np.asarray(part)
            return ndarray._around(host if host.size else host.astype(np.int32))
        if part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice, ndarray)):
            return part
        raise IndexError("only integers, slices, `...`, None and integer or boolean arrays are valid indices")

    def __getitem__(self, key: Any) -> ndarray:
        inner, views = self._key(key)
        return _outside(_inside(self)[inner], view=views)  # type: ignore[no-any-return]

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        inner, views = self._key(key)
        value, buffer = _operand(value), _inside(self)
        if views and isinstance(value, np.ndarray):
            target = buffer[inner]
            if (target.ctypes.data, target.shape, target.strides) == (value.ctypes.data, value.shape, value.strides):
                return  # the end of `x[key] += y`
        if not views and not isinstance(value, np.ndarray):
            totals["h2d"] += 1  # the number becomes an array first
        totals["launches"] += 1
        places = np.arange(self.size).reshape(self.shape)[inner].ravel()
        values = np.broadcast_to(value, buffer[inner].shape).ravel() if isinstance(value, np.ndarray) else None
        if values is None:
            buffer[inner] = value
        else:  # when an element is named twice, here the first wins; on a GPU anybody may
            buffer.flat[places[::-1]] = values[::-1]

    # -- operators --------------------------------------------------------------------------------------

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        if method != "__call__" or function.__name__ not in FUNCTIONS:
            return NotImplemented
        if "out" in keywords:
            (keywords["out"],) = keywords["out"]
        if not all(isinstance(x, (ndarray, np.ndarray, *NUMBERS)) for x in inputs):
            return NotImplemented
        return _named(function.__name__)(*inputs, **keywords)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        return _named(function.__name__)(*args, **keywords)


def _install_operators() -> None:
    pairs = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power,
        "floordiv": np.floor_divide, "mod": np.remainder, "and": np.bitwise_and, "or": np.bitwise_or,
        "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift, "matmul": np.matmul,
    }  # fmt: skip
    comparisons = {
        "eq": np.equal, "ne": np.not_equal,
        "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    }  # fmt: skip

    def binary(function: Any, swapped: bool = False) -> Any:
        def operator(self: ndarray, other: Any) -> Any:
            if not isinstance(other, ndarray) and getattr(type(other), "__array_ufunc__", 0) is None:
                return NotImplemented
            x, y = _operand(self), _operand(other)
            if function is np.matmul and not isinstance(other, ndarray):
                raise TypeError(f"Argument 'b' has incorrect type (expected ndarray, got {type(other).__name__})")
            return _outside(_computed(function, *((y, x) if swapped else (x, y))))

        return operator

    def unary(function: Any) -> Any:
        return lambda self: _outside(_computed(function, _operand(self)))

    def in_place(function: Any) -> Any:
        def operator(self: ndarray, other: Any) -> ndarray:
            _computed(function, _inside(self), _operand(other), out=self._buffer)
            totals["launches"] += 1
            return self

        return operator

    def compared(function: Any) -> Any:
        plain = binary(function)

        def operator(self: ndarray, other: Any) -> Any:
            if other is None and function in (np.equal, np.not_equal):
                return _outside(np.full(self.shape, function is np.not_equal))
            return plain(self, other)

        return operator

    for name, function in pairs.items():
        setattr(ndarray, f"__{name}__", binary(function))
        setattr(ndarray, f"__r{name}__", binary(function, swapped=True))
        if function is not np.matmul:
            setattr(ndarray, f"__i{name}__", in_place(function))
    for name, function in comparisons.items():
        setattr(ndarray, f"__{name}__", compared(function))
    for name, function in {"neg": np.negative, "abs": np.absolute, "invert": np.invert, "pos": np.positive}.items():
        setattr(ndarray, f"__{name}__", unary(function))


_install_operators()


# -- the module's functions -----------------------------------------------------------------------------------


def _supported(dtype: Any) -> Any:
    refused = dtype is not None and (np.dtype(dtype).kind not in "biufc" or np.dtype(dtype).char in "gG")
    if refused:
        raise ValueError(f"Unsupported dtype {np.dtype(dtype)}")
    return dtype


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", subok: bool = False, ndmin: int = 0,
    *, blocking: bool = False,
) -> ndarray:  # fmt: skip
    """From the host (a copy to the device) or from an array (a launch)."""
    if isinstance(obj, ndarray):
        if not copy and (dtype is None or np.dtype(dtype) == obj.dtype):
            return obj
        return obj.astype(dtype or obj.dtype)
    host = np.array(obj, dtype=dtype, ndmin=ndmin, order=order)
    _supported(host.dtype)
    totals["h2d"] += 1
    return ndarray._around(host)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    return array(a, dtype, copy=copy)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    made = np.ascontiguousarray(_inside(a), dtype) if isinstance(a, ndarray) else None
    return array(a, dtype) if made is None else _outside(made, (a._buffer,))


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if x is None:
        return condition.nonzero()
    if not isinstance(condition, (ndarray, np.generic)):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    return _outside(np.where(_operand(condition), _operand(x), _operand(y)))


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> ndarray:
    if not isinstance(a, ndarray):
        raise _refused(a)
    if not isinstance(indices, (ndarray, int)):
        indices = array(indices)
    return _outside(np.take(_inside(a), _inside(indices), axis, _inside(out), "wrap"))  # type: ignore[no-any-return]


def einsum(*operands: Any, **keywords: Any) -> Any:
    if unknown := keywords.keys() - {"dtype", "optimize"}:
        raise TypeError(f"Did not understand the following kwargs: {sorted(unknown)}")
    return _outside(np.einsum(operands[0], *map(_operand, operands[1:]), **keywords), _buffers(*map(_inside, operands)))


class ufunc:
    """An elementwise function with CuPy's narrow set of keywords."""

    def __init__(self, name: str, nin: int, nout: int) -> None:
        self.name, self.nin, self.nout = name, nin, nout
        self._function = getattr(np, name)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if unknown := keywords.keys() - {"out", "dtype", "casting"}:
            raise TypeError(f"Wrong arguments {sorted(unknown)}")
        if not self.nin <= len(args) <= self.nin + self.nout:
            raise TypeError(f"Wrong number of arguments for {self.name!r}.")
        out = keywords.pop("out", args[self.nin] if len(args) > self.nin else None)
        inner = [_operand(x) for x in args[: self.nin]]
        if out is None:
            return _outside(_computed(self._function, *inner, **keywords))
        if not isinstance(out, ndarray):
            raise TypeError("return arrays must be of ArrayType")
        if (shape := np.broadcast_shapes(*[np.shape(x) for x in inner])) != out.shape:
            raise ValueError(f"non-broadcastable output operand with shape {out.shape} for the broadcast shape {shape}")
        _computed(self._function, *inner, out=_inside(out), **keywords)
        totals["launches"] += 1
        return out

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        if self.name not in ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"):
            raise NotImplementedError(f"`cupy_{self.name}.at` is not supported yet")
        inner, views = a._key(indices)
        allowed = ADDABLE if self.name == "add" else {"int32", "uint32"}
        masked = any(isinstance(part, np.ndarray) and part.dtype == bool for part in inner)
        if not views and not masked and a.dtype.name not in allowed:
            raise TypeError(f"cupy.{self.name}.at only supports {', '.join(sorted(allowed))} as data type")
        self._function.at(_inside(a), inner, _operand(b))
        totals["launches"] += 1

    def reduce(self, array: ndarray, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        if self.name not in ("add", "multiply"):
            raise NotImplementedError(f"`cupy_{self.name}.reduce` is not supported yet")
        return _outside(self._function.reduce(_operand(array), axis, dtype, _inside(out), keepdims))


def special_erf(x: ndarray) -> ndarray:
    """In the place of `cupyx.scipy.special.erf`, which is no name of `cupy` itself."""
    return _outside(numpy_.erf(_operand(x)))  # type: ignore[no-any-return]


def _function(name: str, signature: inspect.Signature) -> Any:
    imitated = getattr(np, name)

    def call(*args: Any, **keywords: Any) -> Any:
        for parameter, value in signature.bind(*args, **keywords).arguments.items():
            if parameter in ARRAYS_ONLY and isinstance(value, (list, tuple, np.ndarray)):
                raise _refused(value)
        if name in READS:
            totals.update(d2h=1, syncs=1)
        given = signature.bind(*args, **keywords).arguments
        if name in REDUCTIONS and given.get("axis") is not None and getattr(args[0], "ndim", 1) == 0:
            raise np.exceptions.AxisError(0, 0)
        inner = [_inside(x) for x in args], {k: _inside(v) for k, v in keywords.items()}
        found = _computed(imitated, *inner[0], **inner[1])
        return _outside(found, _buffers(*inner[0], *inner[1].values()), view=name in ("empty", "empty_like"))

    return call


@cache
def _named(name: str) -> Any:
    entry = FUNCTIONS.get(name)
    if entry is None:
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")
    if entry == "constant":
        return getattr(np, name)
    if isinstance(entry, str):
        return ufunc(name, *ast.literal_eval(entry.removeprefix("ufunc")))
    own = globals().get(name)
    return own if own is not None else _function(name, entry)


def __getattr__(name: str) -> Any:
    return _named(name)


# -- kernels ----------------------------------------------------------------------------------------------------


class CompileException(Exception):
    """The compiler's words about a source it refuses."""


class RawKernel:
    """A kernel of a `RawModule`; never made by itself here."""

    def __init__(self, kernel: shim.Kernel, cooperative: bool) -> None:
        self._kernel, self._cooperative = kernel, cooperative
        self._shared: dict[int, int] = {}  # by GPU: what is set on one of them does not hold on the others

    @property
    def max_threads_per_block(self) -> int:
        return self._kernel.most_threads

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._shared.get(cuda.Device().id, SHARED_MEMORY_UNASKED)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size > SHARED_MEMORY:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._shared[cuda.Device().id] = size

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        if shared_mem > (limit := self.max_dynamic_shared_size_bytes):
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {shared_mem} bytes of shared memory, of {limit}")
        if self._cooperative:  # CuPy warns and launches fewer blocks: whoever counts on all of them gets wrong numbers
            most = MULTIPROCESSORS * (1 if shared_mem > SHARED_MEMORY // 2 else 2)
            if int(np.prod(grid)) > most:
                raise ValueError(f"The specified grid size {grid} exceeds the limit ({most}).")
        elif self._kernel.way == shim.GRID:
            raise ValueError("blocks wait for each other in a kernel that was not launched as a cooperative one")
        codes = (*self._kernel.codes, *[""] * len(args))
        given = tuple(self._argument(code, x) for code, x in zip(codes, args))
        _launch(lambda: self._kernel(grid, block, given, shared_mem))

    def _argument(self, code: str, x: Any) -> Any:
        if isinstance(x, np.ndarray) and (x.size != 1 or code.startswith("*")):
            raise TypeError(
                f"You are trying to pass a numpy.ndarray of shape {x.shape} as a kernel parameter. "
                "Only numpy.ndarrays of size one can be passed by value."
            )
        if isinstance(x, ndarray) and x._device != cuda.Device().id:
            raise ValueError(f"a kernel on GPU {cuda.Device().id} gets an array that lies on GPU {x._device}")
        return x._buffer if isinstance(x, ndarray) else x


def gemm(a: ndarray, b: ndarray, out: ndarray, add: bool) -> None:
    """In the place of `kernels.cublas`: one launch, of matrices of one dtype whose rows or columns are contiguous."""
    for matrix in (a, b, out):
        if matrix.ndim != 2 or matrix.dtype != out.dtype or matrix.dtype.name not in ("float32", "float64"):
            raise TypeError(f"gemm takes matrices of one dtype, float32 or float64, not {matrix.shape} {matrix.dtype}")
        if matrix.size and matrix.itemsize not in matrix.strides and 1 not in matrix.shape:
            raise ValueError(f"gemm: neither rows nor columns are contiguous in strides {matrix.strides}")
    if out.size and out.shape[1] > 1 and out.strides[1] != out.itemsize:
        raise ValueError("gemm: the rows of out must be contiguous")
    x, y, z = _inside(a), _inside(b), _inside(out)
    if x.shape[1] != y.shape[0] or z.shape != (x.shape[0], y.shape[1]):
        raise ValueError(f"gemm: {x.shape} @ {y.shape} does not make {z.shape}")
    _launch(lambda: np.copyto(z, x @ y + (z if add else 0)))


def _launch(work: Any) -> None:
    """Run something on the device, or note it down while the current stream is captured."""
    noted = Stream.current().noted
    if noted is not None:
        noted.append(work)
        return
    totals["launches"] += 1
    work()


class Stream:
    """A stream that can be captured, as far as kernels and `gemm` go; all else is refused while one is."""

    _current: ClassVar[list[Any]] = []

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr, self.noted, self._before = 0 if null else id(self), None, 0
        self._capturable = non_blocking

    @classmethod
    def current(cls) -> Any:
        return cls._current[-1] if cls._current else _null

    def __enter__(self) -> Stream:
        Stream._current.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        Stream._current.pop()

    def begin_capture(self) -> None:
        if not self._capturable or Stream.current() is not self:
            raise RuntimeError("cannot capture the default stream, or one that is not the current one")
        self.noted, self._before = [], totals["launches"]

    def end_capture(self) -> Graph:
        noted, self.noted = self.noted, None
        if totals["launches"] != self._before:
            raise NotImplementedError("the fake captures kernels and gemm, nothing else")
        return Graph(noted)


class Graph:
    """What was captured: replayed as one launch."""

    def __init__(self, noted: Any) -> None:
        self.noted = noted

    def launch(self, stream: Any = None) -> None:
        totals["launches"] += 1
        totals["replayed"] += len(self.noted)
        for work in self.noted:
            work()


_null = Stream(null=True)


class RawModule:
    """Kernels from a source, compiled when the first one is asked for."""

    def __init__(
        self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = (),
        backend: str = "nvrtc", translate_cucomplex: bool = False, enable_cooperative_groups: bool = False,
        name_expressions: Any = None, jitify: Any = None,
    ) -> None:  # fmt: skip
        if code is None or path is not None or name_expressions is not None or backend != "nvrtc":
            raise NotImplementedError("the fake knows modules of a source for NVRTC, without templates")
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
        self._code, self._options, self._cooperative = code, options, enable_cooperative_groups

    def get_function(self, name: str) -> RawKernel:
        try:
            module = shim.compiled(self._code, self._options)
        except shim.CompileError as error:
            raise CompileException(str(error)) from None
        if name not in module:
            raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        return RawKernel(module[name], self._cooperative)


# -- the devices ------------------------------------------------------------------------------------------------


class CUDARuntimeError(RuntimeError):
    """What every call into a missing or full driver raises."""


class CUDADriverError(RuntimeError):
    """The same from the layer below, which loads and launches kernels."""


class Device:
    """A GPU by number; in a `with` it is the current one, `use()` makes it that for good."""

    _current: ClassVar[list[int]] = [0]

    def __init__(self, device: int | None = None) -> None:
        self.id = Device._current[-1] if device is None else int(device)

    def use(self) -> None:
        self._exists()
        Device._current[-1] = self.id

    def _exists(self) -> None:
        if not 0 <= self.id < DEVICES:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self) -> Device:
        self._exists()
        Device._current.append(self.id)
        return self

    def __exit__(self, *exception: object) -> None:
        Device._current.pop()

    compute_capability = "90"
    attributes = property(
        lambda self: {
            "MultiProcessorCount": MULTIPROCESSORS,
            "MaxSharedMemoryPerBlock": SHARED_MEMORY_UNASKED,
            "MaxSharedMemoryPerBlockOptin": SHARED_MEMORY,
            "MaxThreadsPerBlock": shim.MOST_THREADS,
            "WarpSize": 32,
            "CooperativeLaunch": 1,
        }
    )

    def synchronize(self) -> None:
        totals["syncs"] += 1

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    get_current_stream=Stream.current,
    compiler=SimpleNamespace(CompileException=CompileException),
    driver=SimpleNamespace(CUDADriverError=CUDADriverError),
    runtime=SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: DEVICES,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13020,
        getDeviceProperties=lambda i: {"name": b"no GPU at all", "major": 9, "minor": 0, "totalGlobalMem": 2**33},
    ),
)
