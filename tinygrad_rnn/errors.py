"""The exceptions: each message says what was wrong, with the shapes, and what to do.

Every class is a `TinygradError` and also the built-in exception that a Python programmer would
expect in its place, so that `except ValueError` and `except TinygradError` both work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.exceptions import AxisError


class TinygradError(Exception):
    """The common base: catch this to catch whatever the package raises on purpose."""


class ShapeError(TinygradError, ValueError):
    """Operands do not fit each other; the message gives their shapes and what would have fitted."""


class DtypeError(TinygradError, TypeError):
    """A dtype that the operation cannot work with, or an integer that should have a gradient."""


class IndexOutOfRange(TinygradError, IndexError):
    """An index, class or symbol that lies outside its axis."""


class OptionError(TinygradError, ValueError):
    """An option outside its choices or its range, such as a hidden size of 0."""


class CellError(TinygradError, TypeError):
    """A recurrent cell or layer of one's own that is ill-formed; raised when it is defined, made or first used."""


class GraphError(TinygradError, RuntimeError):
    """`backward()` where there is no graph, no scalar, or a graph that was freed.

    No graph: nothing that the result was made from requires a gradient, or it was made under `no_grad()`. No scalar:
    reduce it, or say `grad=`. Also what a tensor refuses since it would cut the graph, such as writing to an element.
    """


class ModifiedError(GraphError):
    """A value that the tape read was overwritten before `backward()` could use it.

    Mostly an `assign_`, or an optimiser's step, between the computation and its `backward()`: compute once more.
    """


class PrimitiveError(TinygradError, TypeError):
    """A primitive or one of its derivative rules is ill-formed; raised when it is defined or first used.

    Also an option that a function does not have, such as `dim=` for `axis=`.
    """


class NumericalError(TinygradError, FloatingPointError):
    """Under `debug()`: the first operation whose result or gradient is NaN or infinite; in training, a loss that is."""


class GradcheckError(TinygradError, AssertionError):
    """A derivative rule disagrees with the numerical derivative."""


class BackendError(TinygradError, TypeError):
    """Arrays of two backends met in one operation, which `.to()` brings together, or an array of no known backend."""


class BackendUnavailable(TinygradError, RuntimeError):
    """A backend was named that cannot be used here; the message says why and what to install."""


class OutOfMemory(TinygradError, MemoryError):
    """An array that does not fit, on the host or on a GPU; the message says for what, and how to need less."""


class TextError(TinygradError, ValueError):
    """A text that cannot be learned from, or a prompt with a character that the model never saw."""


class CheckpointError(TinygradError, ValueError):
    """A checkpoint that is truncated, altered, of another model or of a newer format."""


class ConversionError(TinygradError, ValueError):
    """A model that another library cannot compute, or the package not; the message says which part, and why."""


class FileError(TinygradError, ValueError):
    """A file from elsewhere that is truncated, damaged, hostile, or of a kind that is not read; nothing of it ran."""


class MissingPackage(TinygradError, ImportError):
    """A conversion that needs a package which is not installed; the message says which."""


class OutputError(TinygradError, OSError):
    """An output folder or file that cannot be written, or that holds something else."""


class LabError(TinygradError, RuntimeError):
    """A mistake that cannot be planted, or is planted already; an exercise that cannot be made, or does not run."""


class DrawError(TinygradError, RuntimeError):
    """A picture that could not be laid out or written; the message names the engine and the remedy."""


class DrawTimeout(DrawError):
    """The layout took longer than `timeout`; the message says how to draw less."""


# -- the words for what goes wrong inside of an operation ----------------------------------------------------


def operands(inputs: Sequence[Any]) -> str:
    """The operands of an operation in words: name, shape and dtype of the tensors, the numbers as they are."""
    return " and ".join(getattr(x, "label", None) or repr(x) for x in inputs)


def misfit(shapes: Sequence[tuple[int, ...]]) -> str:
    """Why shapes do not broadcast, and what would have fitted."""
    depth = max(len(shape) for shape in shapes)
    padded = [(1,) * (depth - len(shape)) + shape for shape in shapes]
    for axis in range(depth - 1, -1, -1):
        sizes = [shape[axis] for shape in padded]
        if len({*sizes, 1}) > 2:
            met = " and ".join(str(size) for size in sizes)
            return f"they do not broadcast: at axis {axis - depth}, {met} meet; equal sizes or a 1 would fit"
    return "they do not broadcast"


def explained(
    error: Exception, name: str, inputs: Sequence[Any], options: dict[str, Any], place: str
) -> Exception:  # fmt: skip
    """A kernel's error as one of ours: with the op, its operands and options, and where it ran."""
    text = str(error)
    shapes = [getattr(x, "shape", ()) for x in inputs] + ([options["shape"]] if name == "broadcast_to" else [])
    if "broadcast" in text and len(shapes) > 1 and not isinstance(error, TinygradError):
        text = misfit(shapes)
    given = ", ".join(
        f"{option}={value!r}".partition("\n")[0]
        for option, value in options.items()
        if not (value is None or value is False)
    )
    place = f" with {given}{place}" if given else place
    known: dict[type[Exception], type[TinygradError]] = {
        AxisError: ShapeError,
        IndexError: IndexOutOfRange,
        TypeError: DtypeError,
        OverflowError: DtypeError,
        ValueError: ShapeError,
    }
    ours = next((ours for theirs, ours in known.items() if isinstance(error, theirs)), None)
    if isinstance(error, TinygradError):
        ours = type(error)
    elif "negative integer power" in text or "must be of integer" in text:
        ours = DtypeError
    if ours is None:
        error.add_note(f"in {name} of {operands(inputs)}{place}")
        return error
    return ours(f"{name} of {operands(inputs)}: {text}{place}")


class memory_explained:
    """Inside, memory that runs out is said to be that of something, with the number of bytes and what to do.

    what: says of what, when it is asked. remedy: what to do, or says it.

    Raises: OutOfMemory.
    """

    __slots__ = ("remedy", "what")

    def __init__(self, what: Callable[[], str], remedy: str | Callable[[], str]) -> None:
        self.what, self.remedy = what, remedy

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, MemoryError) and not isinstance(error, OutOfMemory):  # its text has the bytes asked for
            remedy = self.remedy if isinstance(self.remedy, str) else self.remedy()
            raise OutOfMemory(f"{self.what()}: {str(error) or 'the memory is full'}; {remedy}") from error


def mixed(name: str, arguments: Sequence[str], inputs: Sequence[Any], place: str) -> BackendError:
    """The error for arrays of two backends: names both arguments and the call that brings them together."""
    names = arguments if len(arguments) == len(inputs) else [f"{arguments[-1]}[{i}]" for i in range(len(inputs))]
    placed = [(argument, x.backend, x.label) for argument, x in zip(names, inputs) if hasattr(x, "backend")]
    one, other = placed[0], next(entry for entry in placed if entry[1] != placed[0][1])
    return BackendError(
        f"{name}: {one[0]} ({one[2]}) lies on {one[1]}, but {other[0]} ({other[2]}) on {other[1]}; "
        f"bring them together, as in {other[0]}.to({one[1]!r}){place}"
    )
