"""The exceptions: each message says what was wrong, with the shapes, and what to do.

Every class is a `TinygradError` and also the built-in exception that a Python programmer would
expect in its place, so that `except ValueError` and `except TinygradError` both work.
"""


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


class GraphError(TinygradError, RuntimeError):
    """`backward()` where there is no graph, no scalar, or a graph that was freed."""


class ModifiedError(GraphError):
    """A value that the tape read was overwritten before `backward()` could use it."""


class PrimitiveError(TinygradError, TypeError):
    """A primitive or one of its derivative rules is ill-formed; raised when it is defined or first used."""


class NumericalError(TinygradError, FloatingPointError):
    """Under `debug()`: the first operation whose result or gradient is NaN or infinite."""


class GradcheckError(TinygradError, AssertionError):
    """A derivative rule disagrees with the numerical derivative."""


class BackendError(TinygradError, TypeError):
    """Arrays of two backends met in one operation, or an array of no known backend came in."""


class BackendUnavailable(TinygradError, RuntimeError):
    """A backend was named that cannot be used here; the message says why and what to install."""


class TextError(TinygradError, ValueError):
    """A text that cannot be learned from, or a prompt with a character that the model never saw."""


class CheckpointError(TinygradError, ValueError):
    """A checkpoint that is truncated, altered, of another model or of a newer format."""


class OutputError(TinygradError, OSError):
    """An output folder or file that cannot be written, or that holds something else."""


class DrawError(TinygradError, RuntimeError):
    """A picture that could not be laid out or written; the message names the engine and the remedy."""


class DrawTimeout(DrawError):
    """The layout took longer than `timeout`; the message says how to draw less."""
