"""What a backend is: an array namespace, a few named kernels, one way in and one way out.

Derivatives live above, in the table of primitives; nothing here knows of tensors or gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..errors import BackendUnavailable

Array = Any
"""A bare array of whichever backend: numpy.ndarray, a NumPy scalar, cupy.ndarray."""


class Namespace:
    """An array module, the functions that it lacks, and the primitives that the backend does better.

    This is the `xp` that every forward kernel receives. Names are looked up in the module once.
    kernels: replacements for the forward kernels of primitives, without `xp`, by module and name: "mymodule.myop".
    fused: what a GPU does whole time steps and whole layers with, `kernels.Kernels`, or None.
    """

    def __init__(
        self, module: Any, kernels: dict[str, Callable[..., Array]], fused: Any = None, **extra: Callable[..., Any]
    ) -> None:  # fmt: skip
        self.__dict__.update(extra, _module=module, kernels=kernels, fused=fused)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        self.__dict__[name] = found
        return found


class Backend:
    """Arrays of one kind. A backend of your own: subclass, fill in the blanks, `register()` it.

    name: what `use_backend` and `Tensor.to` call it.
    xp: the namespace that forward kernels compute with.
    types: the array types that belong to it; the first one is what operations make.
    """

    name: str
    xp: Namespace
    types: tuple[type, ...]

    def asarray(self, data: Any, dtype: DTypeLike | None = None, device: int | None = None) -> Array:
        """A fresh array of this backend from host data or from an array of this backend; always a copy."""
        with self.on(device):
            return self.xp.array(data, dtype=dtype)

    def to_host(self, array: Array) -> np.ndarray:
        """The numbers as a read-only NumPy array: a view where the memory is shared, else a copy."""
        raise NotImplementedError

    def name_of(self, array: Array) -> str:
        """The name that leads back to where `array` lies, such as "numpy" or "cupy:1"."""
        return self.name

    def on(self, device: int | None) -> AbstractContextManager[Any]:
        """A context in which arrays are made on `device`, the number behind the colon of a name; None is the first.

        Raises: BackendUnavailable, if there is no such device.
        """
        if device is not None:
            raise BackendUnavailable(f"{self.name} has no devices to choose from; say {self.name!r} without a number")
        return nullcontext()

    def check_place(self, *arrays: Array) -> None:
        """Refuse arrays that cannot be computed with here and now; numbers pass.

        Raises: BackendError, if one lies on another device than the current one.
        """

    def guarded(self, name: str, kernel: Callable[..., Array]) -> Callable[..., Array]:
        """The kernel of the primitive `name`, with whatever has to be checked before it may run."""
        return kernel


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can be used here, or else why and what to do; `reason` is for programs, the rest for people."""

    name: str
    usable: bool
    detail: str
    remedy: str = ""
    reason: str = "ok"

    def __str__(self) -> str:
        line = f"{self.name}: {'usable' if self.usable else 'not usable'}, {self.detail}"
        return f"{line}\n  {self.remedy}" if self.remedy else line
