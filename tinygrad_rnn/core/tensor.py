"""A Tensor is an array that remembers its birth: the primitive, its inputs, the options and its age."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike

from ..backend import Array, as_array, backend_of
from ..errors import BackendError, DtypeError, GraphError, ShapeError
from .modes import Scope, current, source_line

if TYPE_CHECKING:
    from .operators import Operators
    from .primitive import Primitive
else:
    Operators = object  # functions/methods.py installs them

next_age: Callable[[], int] = itertools.count(1).__next__


_RARE: dict[str, Any] = {"options": {}, "source": None, "_grad": None, "name": None, "saved": None}
"""What most tensors never have: the slots stay empty, which saves time in every operation, and read like this."""


class Tensor(Operators):
    """An array with a gradient; made by `tg.tensor` and its kin, or by an operation on tensors.

    name: what pictures and messages call it. Settable.
    op, inputs, options: of the result of an operation on something that requires a gradient, the primitive and what it
        was called with. A leaf has op None.
    age: counts births, so that larger is younger, and a result is younger than all that it was made from, which is a
        topological order. modified: when the numbers were last written, on the same clock.
    scope: the module call and time step that it was born in. source: its line of code, recorded under `debug()`.
    stop: of a leaf, why gradients end there, as in "mul under no_grad()", also of what was made from it; None of a leaf
        that was made from nothing that has gradients.
    hooks: what looks at its gradient. saved: what a fused primitive keeps for its way back.
    """

    __slots__ = (
        "__weakref__", "_array", "_grad", "_requires_grad", "age", "hooks", "inputs", "modified", "name", "op",
        "options", "saved", "scope", "source", "stop",
    )  # fmt: skip
    __array_ufunc__ = None  # so that ndarray * tensor is ours

    options: dict[str, Any]
    saved: Any  # what a fused primitive wants to see again in its backward pass
    source: str | None
    name: str | None
    stop: str | None
    _grad: Tensor | None

    def __init__(self, array: Array, requires_grad: bool = False, name: str | None = None) -> None:
        """A leaf around a bare array, which is kept, not copied. Users call `tg.tensor`."""
        self._array = array
        self._requires_grad = False
        self.op: Primitive | None = None
        self.inputs: tuple[Any, ...] | None = ()
        self.age = next_age()
        self.scope: Scope | None = None
        self.modified = 0  # when it was last written to, on the same clock as ages
        self.hooks: list[Callable[[Tensor, Any], Any]] | None = None
        self.stop = None
        if name is not None:
            self.name = name
        if requires_grad:
            self.requires_grad = True

    def __init_subclass__(cls) -> None:
        raise TypeError("Tensor is not made for subclasses: hold a Tensor instead, and define operations as primitives")

    shape = property(lambda self: self._array.shape, doc="The length of each axis.")
    ndim = property(lambda self: self._array.ndim, doc="The number of axes.")
    size = property(lambda self: self._array.size, doc="The number of elements.")
    dtype = property(lambda self: self._array.dtype, doc="The dtype of the array.")

    @property
    def backend(self) -> str:
        """Where the array lies: "numpy", "cupy" or "cupy:1"."""
        return backend_of(self._array).name_of(self._array)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor. Settable on leaves of a floating dtype.

        Raises: GraphError, if the result of an operation is set; DtypeError for integers.
        """
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.op is not None:
            raise GraphError(f"{self.label}: requires_grad is set on leaves only; use .detach() to cut a result off")
        if value and self.dtype.kind != "f":
            raise DtypeError(f"{self.label}: only floating tensors have gradients; use .astype('float32') first")
        if value and not self._requires_grad:
            self.age = next_age()  # for all that has read it so far, it was and stays a constant
        self._requires_grad = value

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward()` left here, detached; None before, and on results without `retain_grad()`.

        It has the shape, dtype and backend of the tensor; what is assigned is copied.

        Raises: GraphError, ShapeError, BackendError, if what is assigned is none, or does not fit.
        """
        if self._grad is None and self.op is not None and self._requires_grad and keep not in (self.hooks or ()):
            warnings.warn(
                f"{self.label} is the result of an operation, whose gradient is not kept: call .retain_grad() on it "
                "before backward(), or ask for it with tg.pullback(y, [x])",
                stacklevel=2,
            )
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise GraphError(f"a gradient of {self.label} is a Tensor or None, not a {type(value).__name__}")
        if value is not None and (value.shape, value.dtype) != (self.shape, self.dtype):
            raise ShapeError(f"a gradient of {self.label} must have its shape and dtype, not {value.label}")
        if value is not None and value.backend != self.backend:
            raise BackendError(f"a gradient of {self.label} lies where it does: grad.to({self.backend!r}) would fit")
        self._grad = None if value is None else Tensor(value._array.copy())

    @property
    def label(self) -> str:
        """A few words that tell this tensor from others in a message: name or op, shape, dtype."""
        return f"{self.name or (self.op.name if self.op else 'tensor')} {self.shape} {self.dtype}"

    def numpy(self) -> np.ndarray:
        """The numbers as a read-only NumPy array: a view on the CPU, a copy from the GPU. Write with `assign_`."""
        self._read()
        return backend_of(self._array).to_host(self._array)

    def item(self) -> Any:
        """The only element, as a Python number. On a GPU this waits for the device.

        Raises: ShapeError, if there are more elements or none.
        """
        if self._array.size != 1:
            raise ShapeError(f"item() needs exactly one element, and {self.label} has {self.size}; use .tolist()")
        self._read()
        return self._array.item()

    def tolist(self) -> Any:
        """The numbers as nested Python lists, or as one number if there are no axes. On a GPU this waits."""
        return self.numpy().tolist()

    def _read(self) -> None:
        """Tell a listener that wants to know: the numbers leave, and no operation says what becomes of them."""
        listener = current().listener
        if listener is not None and hasattr(listener, "read"):
            listener.read(self)

    def detach(self) -> Tensor:
        """The same array as a leaf without history: gradients stop here."""
        out = Tensor(self._array, name=self.name)
        if self._requires_grad or self.stop:
            out.stop, out.scope = self.stop or "detached", current().scope
            if current().debug:
                out.source = source_line()
        return out

    def assign_(self, value: Any) -> Self:
        """Give this leaf new numbers, broadcast and cast to its shape and dtype; what was read from it stays as read.

        Not recorded. A tape that still needs the old numbers notices: its `backward()` raises ModifiedError.

        Raises: GraphError on the result of an operation; ShapeError if the value does not fit.
        """
        if self.op is not None:
            raise GraphError(f"{self.label} is the result of {self.op.name}; assign to leaves only, or .detach() it")
        home = backend_of(self._array)
        home.check_place(self._array)
        new = as_array(value, home.name_of(self._array), self.dtype)
        if new.shape != self.shape:
            try:
                new = home.xp.broadcast_to(new, self.shape).copy()
            except ValueError:
                raise ShapeError(f"cannot assign an array of shape {new.shape} to {self.label}") from None
        self._array = new
        self.modified = next_age()
        return self

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(gradient)` when backward has summed this tensor's gradient; what it returns replaces it.

        Returns a function that takes the hook off again.

        Raises: GraphError, if no gradient flows to it; ShapeError from `backward()`, if the hook returns another shape.
        """
        if not self._requires_grad:
            raise GraphError(f"{self.label} does not require a gradient, so a hook on it would never run")
        self.hooks = self.hooks or []
        entry: Callable[[Tensor, Any], Any] = lambda tensor, gradient: hook(gradient)  # noqa: E731
        self.hooks.append(entry)
        return lambda: self.hooks.remove(entry) if self.hooks and entry in self.hooks else None

    def retain_grad(self) -> None:
        """Keep the gradient of this result in `.grad` too when `backward()` runs (`pullback` never touches `.grad`).

        As with leaves, a second `backward()` adds to what is there.

        Raises: GraphError, if no gradient flows to it.
        """
        if not self._requires_grad:
            raise GraphError(f"{self.label} does not require a gradient, so there will be none to keep")
        if self.op is not None and keep not in (self.hooks or []):
            self.hooks = [*(self.hooks or []), keep]

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError(f"len() of a tensor without axes: {self.label}")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DtypeError(f"only integer tensors can be an index, not {self.label}")
        return int(self.item())

    __hash__ = object.__hash__

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        if self.backend != "numpy":
            raise BackendError(f"{self.label} lies on {self.backend}; NumPy needs host data: call .numpy() on it")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise GraphError("tensors are not written element by element; use tg.where(mask, new, old) or .assign_()")

    if not TYPE_CHECKING:  # or else a type checker would believe in any name

        def __getattr__(self, name: str) -> Any:
            if name in _RARE:
                return _RARE[name]
            hint = "; read it with .numpy(), write it with .assign_(value)" if name == "data" else ""
            raise AttributeError(f"a Tensor has no attribute {name!r}{hint}")

    def __reduce__(self) -> Any:
        """How leaves are copied and pickled: as new leaves, with an age of their own."""
        if self.op is not None:
            raise GraphError(f"{self.label} is the result of an operation; copy or save .detach() of it")
        return Tensor, (self._array, self._requires_grad, self.name), (None, {"_grad": self._grad})

    def __repr__(self) -> str:
        host = backend_of(self._array).to_host(self._array)  # nobody computes with what is shown
        numbers = np.array2string(host, precision=4, separator=", ", threshold=100, prefix="tensor(")
        facts = [f"dtype={self.dtype}"] if self.dtype != np.float32 else []
        facts += [f"backend={self.backend!r}"] if self.backend != "numpy" else []
        facts += [f"name={self.name!r}"] if self.name else []
        facts += [f"op={self.op.name}"] if self.op else ["requires_grad=True"] if self._requires_grad else []
        return f"tensor({', '.join([numbers, *facts])})"


def keep(tensor: Tensor, gradient: Tensor) -> None:
    """The hook behind `retain_grad()`: add into the tensor's own `.grad`, as backward does for leaves."""
    tensor._grad = gradient if tensor._grad is None else Tensor(tensor._grad._array + gradient._array)


def tensor(
    data: Any,
    *,
    dtype: DTypeLike | None = None,
    requires_grad: bool = False,
    backend: str | None = None,
    name: str | None = None,
) -> Tensor:
    """A new leaf holding a copy of `data`: numbers, nested lists, an array or a Tensor.

    Python floats become float32, integers int64, bools bool; arrays keep their dtype unless `dtype` says otherwise.
    Host data goes to the default backend, an array on a GPU stays there, unless `backend` is given.

    dtype: real numbers, such as "float64"; left out, as above. requires_grad: for floats only.
    backend: "numpy", "cupy" or "cupy:1". name: what pictures and messages call it.

    Raises: DtypeError for text, objects, or an integer that requires a gradient; ShapeError for lists of rows of
        different lengths; BackendUnavailable.
    """
    return Tensor(as_array(data, backend, dtype), requires_grad, name)
