"""A computation written down operation by operation, at several sizes, and compared: what is constant, what is a size.

It is run once at its own sizes, and again for each axis that may change, longer and shorter, on other numbers each
time. What all runs have in common is the program; a number that changed with an axis becomes a formula of it. Numbers
that leave the tensors, by `.item()` and the like, are refused where they depend on what went in, as nobody could write
down what becomes of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ...backend import BACKEND_OF, Array, as_array
from ...core.modes import changed, current, listening, place
from ...core.recording import constant
from ...core.tensor import Tensor
from ...errors import ConversionError, TinygradError
from ...nn.recurrent import Recurrent
from ..nests import leaves, mapped, parts, rebuilt
from .operators import steps

WHOLE_LAYER, SCAN = "recurrent layer", "Scan"
"""What a call of a recurrent layer is called among the operations, and a body that a graph runs once for each step."""

Body = Callable[[Sequence[Any]], tuple[Any, ...]]
"""The states and one step of each sequence -> the states after it, and what it shows."""


@dataclass(frozen=True)
class Traced:
    """The array that came into being as the number-th one: inputs first, then results in their order."""

    number: int


@dataclass(frozen=True)
class Size:
    """A whole number that depends on the lengths of axes: factor * (product of the axes) + offset."""

    axes: tuple[str, ...]
    factor: int = 1
    offset: int = 0

    def __str__(self) -> str:
        product = "*".join([str(self.factor), *self.axes] if self.factor != 1 else self.axes)
        return f"{product}{self.offset:+d}" if self.offset else product


@dataclass(frozen=True)
class Constant:
    """An array that is the same in all runs, and the name of the Tensor around it."""

    array: Array
    name: str | None


@dataclass(frozen=True)
class Filled:
    """One number all over, in a shape that depends on sizes."""

    number: Any
    shape: tuple[int | Size, ...]


@dataclass(frozen=True)
class Counted:
    """0, 1, 2, ... along its only axis that is not of length 1, in a shape that depends on sizes."""

    dtype: Any
    shape: tuple[int | Size, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """What a Scan does at each step: its body, examples of what goes in, and how many of these are states."""

    body: Body
    examples: list[Array]
    states: int


class Call(NamedTuple):
    """One operation: a primitive, or a recurrent layer. place: the module that it ran in."""

    name: str
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    results: tuple[int, ...]
    place: str


LONGER, SHORT = (2, 5, 15, 35, 95, 160), 3
"""By how much an axis is longer in runs that are made for it; and about how long it is in one where it is shorter."""

ARRAYS = (Traced, Constant, Filled, Counted)
"""What stands for an array in a program."""


class Run:
    """One run: every array that came into being, and the calls that made them. It listens to the operations itself.

    inputs: by their names. outputs: what `f` returned of them, as it returned it.

    Raises: ConversionError, where `f` reads numbers that depend on the inputs.
    """

    def __init__(self, f: Callable[[dict[str, Tensor]], Any], inputs: Mapping[str, Array]) -> None:
        self.tensors: list[Tensor] = []
        self.calls: list[Call] = []
        self._numbers: dict[int, int] = {}  # by the identity of a Tensor, or of its array; all of them stay alive
        self._alive: list[Any] = []
        self._dependent: set[int] = set()  # the inputs, and what was made of them
        given = {name: Tensor(array, name=name) for name, array in inputs.items()}
        for tensor in given.values():
            self._dependent.add(self._born(tensor))
        with changed(debug=False, recording=False, listener=self), np.errstate(all="ignore"):
            self.outputs = mapped(self._known, f(given))

    def _born(self, tensor: Tensor) -> int:
        number = len(self.tensors)
        self.tensors.append(tensor)
        self._numbers[id(tensor)] = number
        if not isinstance(tensor._array, np.bool_):  # there is one True and one False for all
            self._numbers[id(tensor._array)] = number
            self._alive.append(tensor._array)
        return number

    def _known(self, x: Any) -> Any:
        """What was made in this run, by its number; anything else as it is."""
        self._alive.append(x)
        array = x._array if isinstance(x, Tensor) else x
        number = self._numbers.get(id(x), self._numbers.get(id(array)))
        return x if number is None else Traced(number)

    def __call__(self, op: Any, inputs: tuple[Any, ...], options: dict[str, Any], result: Tensor) -> None:
        """Hear of an operation, as `listening` tells."""
        self._note(op.name, inputs, options, [result])

    def read(self, tensor: Tensor) -> None:
        """Hear that numbers are read, as `listening` tells.

        Raises: ConversionError, if they depend on the inputs.
        """
        if self.depends(tensor):
            number = self._known(tensor).number
            what = next((call.name for call in self.calls if number in call.results), tensor.name)
            raise ConversionError(
                f"numbers of {what} {tensor.shape} {tensor.dtype}, which depends on the input, are read{place()}, by "
                ".item(), .numpy(), bool() or the like: what becomes of them is not written down. Compute it by "
                "operations on tensors, with tg.where in place of an if, or make it an input"
            )

    def layer(self, layer: Recurrent, x: Tensor, initial: Sequence[Any], lengths: Any) -> Any:
        """Run a recurrent layer, and take it down as one operation."""
        initial = [constant(each, x) if isinstance(each, (list, tuple)) else each for each in initial]
        lengths = np.asarray(lengths) if isinstance(lengths, (list, tuple)) else lengths
        with listening(None):
            output, state = layer._over_time(x, tuple(initial), lengths)
        self._note(WHOLE_LAYER, (x, *initial, lengths), {"layer": layer}, [output, *state])
        return output, state

    def scan(self, states: Sequence[Any], sequences: Sequence[Any], body: Body) -> tuple[list[Any], list[Any]]:
        """Run a body over the steps of sequences, and take it down as one operation.

        Raises: ConversionError, if it uses what depends on the inputs and is no state or sequence.
        """
        with listening(None):
            first = [np.array(getattr(x, "_array", x)) for x in (*states, *[x[0] for x in sequences])]
        with listening(_Around(self)):
            body([Tensor(each) for each in first])
        with listening(None):
            ends, shown = steps(states, sequences, body)
        results = [x if isinstance(x, Tensor) else Tensor(as_array(x)) for x in (*ends, *shown)]
        self._note(SCAN, (*states, *sequences), {"step": Step(body, first, len(ends))}, results)
        return results[: len(ends)], results[len(ends) :]

    def depends(self, x: Any) -> bool:
        """Whether x was made of the inputs in this run."""
        found = self._known(x)
        return isinstance(found, Traced) and found.number in self._dependent

    def _note(self, name: str, inputs: Sequence[Any], options: dict[str, Any], results: Sequence[Tensor]) -> None:
        known, scope = tuple(map(self._known, inputs)), current().scope
        numbers = tuple(map(self._born, results))
        if self._dependent.intersection(_numbers_in((known, options := mapped(self._known, options)))):
            self._dependent.update(numbers)
        self.calls.append(Call(name, known, options, numbers, scope.path if scope else ""))


class _Around:
    """Listens to the body of a Scan, and refuses what it uses of a run around it, other than weights and constants."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, op: Any, inputs: tuple[Any, ...], options: dict[str, Any], result: Tensor) -> None:
        for each in leaves((inputs, options)):
            self.read(each)

    def read(self, x: Any) -> None:
        """Raises: ConversionError."""
        if self.run.depends(x):
            raise ConversionError(
                f"the body of a Scan uses a value{place()} that depends on the input and is none of its own states and "
                "sequences, which is not written down: make it one of its states"
            )


class Program:
    """What several runs have in common.

    shapes: of the values, by number; a length that is no formula of the axes is an axis of its own.
    constants: results that are made of constants only, by number. calls, outputs: of all runs.
    """

    def __init__(
        self, runs: Sequence[Run], sizes: Sequence[Mapping[str, int]], names: Mapping[int, str] | None = None
    ) -> None:
        """runs: the first at the sizes that were given, then some for each axis, in which only this one is longer.

        sizes: of each run, by the names of the axes that may change. names: of constant Tensors, by identity.
        """
        self.runs, self.sizes, self.names = runs, sizes, names or {}
        self.shapes: dict[int, tuple[int | Size, ...]] = {}
        self.constants: dict[int, Constant] = {}
        self._seen: dict[tuple[int, ...], Size] = {}
        base = sizes[0]
        self._longer = [
            (axis, each[axis] - base[axis]) for each in sizes[1:] for axis in base if each[axis] != base[axis]
        ]
        first = self.runs[0]
        for other in self.runs[1:]:
            if [call.name for call in other.calls] != [call.name for call in first.calls]:
                raise ConversionError(
                    f"the model takes {len(first.calls)} operations at {_text(self.sizes[0])}, and other ones at other "
                    f"sizes or numbers, {len(other.calls)} in all: a Python loop or an if that follows them is not "
                    "written down. Use a recurrent layer in place of a loop over time, tg.where in place of an if, or "
                    "fix the sizes with dynamic={}"
                )
        made = sum(len(call.results) for call in first.calls)
        for number in range(len(first.tensors) - made):  # the inputs
            self._measure(number)
        self.calls = [self._common(place) for place in range(len(first.calls))]
        self.outputs = self._alike([run.outputs for run in self.runs], "an output")

    @cached_property
    def needed(self) -> list[Call]:
        """The calls that the outputs depend on, without those that have become constants."""
        wanted = set(_numbers_in(self.outputs))
        found = []
        for call in reversed(self.calls):
            if wanted.intersection(call.results) and call.results[0] not in self.constants:
                found.append(call)
                wanted.update(_numbers_in((call.inputs, call.options)))
        return found[::-1]

    def _measure(self, number: int) -> None:
        """The shape of a value."""
        shapes = [run.tensors[number].shape for run in self.runs]
        if len({len(shape) for shape in shapes}) > 1:
            raise ConversionError(f"a result has shape {shapes[0]} in one run of the model and {shapes[-1]} in another")
        self.shapes[number] = tuple([self._length(each, f"length_{number}_{axis}")
                                     for axis, each in enumerate(zip(*shapes))])  # fmt: skip

    def _length(self, lengths: tuple[int, ...], name: str) -> int | Size:
        """The length of an axis, from those of all runs; name: what to call it, if it is no formula."""
        if len(set(lengths)) == 1:
            return lengths[0]
        size = self._size(lengths)
        return self._seen.setdefault(lengths, Size((name,))) if size is None else size

    def dtype(self, number: int) -> Any:
        """The dtype of a value."""
        return self.runs[0].tensors[number].dtype

    def _common(self, place: int) -> Call:
        """The call that all runs made as the place-th one."""
        calls = [run.calls[place] for run in self.runs]
        first = calls[0]
        for number in first.results:
            self._measure(number)
        where = f"{first.name}{f' (in {first.place})' if first.place else ''}"
        inputs = self._nest([call.inputs for call in calls], f"an operand of {where}")
        options = {name: self._alike([call.options[name] for call in calls], f"{name}= of {where}")
                   for name in first.options}  # fmt: skip
        call = Call(first.name, inputs, options, first.results, first.place)
        self._fold(call)
        return call

    def _fold(self, call: Call) -> None:
        """A result of constants is a constant, if it takes no more room than they do: such as a gate's part of W."""
        used = list(leaves((call.inputs, call.options)))
        if call.name in (WHOLE_LAYER, SCAN) or any(isinstance(each, (Size, Filled, Counted)) for each in used):
            return
        sources = [self.constants.get(each.number) if isinstance(each, Traced) else each
                   for each in used if isinstance(each, (Traced, Constant))]  # fmt: skip
        if not sources or any(each is None for each in sources):
            return
        results = [run.tensors[call.results[0]] for run in self.runs]
        arrays = [np.asarray(tensor._array) for tensor in results]
        room = sum(each.array.nbytes for each in sources if each is not None)
        if arrays[0].nbytes <= room and all(_same(arrays[0], array) for array in arrays):
            family = next((each.name.rpartition(".")[0] for each in sources if each and each.name), "")
            name = results[0].name and ".".join(filter(None, [family, results[0].name]))
            self.constants[call.results[0]] = Constant(arrays[0], name)

    def _alike(self, found: list[Any], what: str) -> Any:
        """What the runs have in common at one place."""
        first = found[0]
        plain = isinstance(first, (Traced, str, type(None), np.dtype)) or first is Ellipsis
        for each in found:
            if type(each) is not type(first) or (plain and each != first):
                if all(isinstance(each, (Traced, Tensor, np.ndarray)) for each in found):
                    raise _untold(what)
                raise ConversionError(f"{what} is {first!r} in one run of the model, and {each!r} in another")
        if plain:
            return self.constants.get(first.number, first) if isinstance(first, Traced) else first
        if parts(first) is not None:
            return self._nest(found, what)
        if isinstance(first, (bool, int, float, complex, np.generic)) and not isinstance(first, np.ndarray):
            return self._number(found, what)
        if isinstance(first, Tensor) or type(first) in BACKEND_OF:
            return self._array(found, what)
        return first

    def _nest(self, nests: list[Any], what: str) -> Any:
        """What the runs have in common in a nest, part by part."""
        held = [parts(each) or {} for each in nests]
        first = held[0]
        other = next((len(each) for each in held if len(each) != len(first)), None)
        if other is not None:
            raise ConversionError(
                f"{what} is one of {len(first)} in one run of the model, and one of {other} in another: a Python list "
                "whose length follows a size is not written down; fix the sizes with dynamic={}"
            )
        return rebuilt(nests[0], [self._alike([each[name] for each in held], what) for name in first])

    def _number(self, numbers: list[Any], what: str) -> Any:
        """A number, if it is the same in all runs; else a formula of the sizes."""
        first = numbers[0]
        if all(each == first or (each != each and first != first) for each in numbers):
            return first
        if (
            isinstance(first, (int, float, np.integer))
            and not isinstance(first, bool)
            and not any(each % 1 for each in numbers)
        ):
            size = self._size([int(each) for each in numbers])
            if size is not None:
                return size
        place = next(i for i, each in enumerate(numbers) if each != first)
        raise ConversionError(
            f"{what} is {first} at {_text(self.sizes[0])}, and {numbers[place]} at {_text(self.sizes[place])} with "
            "other numbers: it is no simple formula of the sizes, or depends on the input by a way that is not written "
            "down, such as .numpy() or .item(). Fix the sizes with dynamic={}, or compute it by operations on tensors"
        )

    def _size(self, numbers: Sequence[int]) -> Size | None:
        """factor * product + offset through all the numbers, if there is such a formula; or a length that was seen.

        Say T, N = 5, 3, and the number is 31; with 2 more of T it is 43, with 5 more 61, with 2 more of N 51, and with
        5 more 81. One more of T makes 6 more, which is factor * N, one more of N makes 10, which is factor * T. Both
        say 2, so that it is 2 * T*N + 1.
        """
        base, first = self.sizes[0], numbers[0]
        steps = [(axis, more, number - first) for (axis, more), number in zip(self._longer, numbers[1:])]
        axes = tuple(dict.fromkeys(axis for axis, _, grown in steps if grown))
        factors = {grown / (more * math.prod([base[other] for other in axes if other != axis]))
                   for axis, more, grown in steps if axis in axes}  # fmt: skip
        factor = factors.pop() if len(factors) == 1 else 0.5
        if not factor.is_integer():
            return self._seen.get(tuple(numbers))
        return Size(axes, int(factor), first - int(factor) * math.prod([base[axis] for axis in axes]))

    def _array(self, found: list[Any], what: str) -> Any:
        """An array that no operation made: the same in all runs, or one number, or 0, 1, 2, ..., in other shapes."""
        arrays = [np.asarray(x._array if isinstance(x, Tensor) else x) for x in found]
        first, x = arrays[0], found[0]
        if all(each is first or _same(each, first) for each in arrays):
            return Constant(first, self.names.get(id(x), x.name if isinstance(x, Tensor) else None))
        if len({(each.ndim, each.dtype) for each in arrays}) == 1:
            shape = self._alike([each.shape for each in arrays], f"the shape of {what}")
            if all(each.size and (each == first.flat[0]).all() for each in arrays):
                return Filled(first.flat[0], shape)
            if first.ndim and all(_counts(each) for each in arrays):
                return Counted(first.dtype, shape)
        raise _untold(what)


def _untold(what: str) -> ConversionError:
    return ConversionError(
        f"{what} depends on the input by a way that is not written down, such as .numpy(), .item(), a NumPy function "
        "or random numbers: compute it by operations on tensors, or make it an input"
    )


def _counts(array: Array) -> bool:
    """Whether it is 0, 1, 2, ... along its only axis that is not of length 1."""
    return array.size == max(array.shape) and _same(array.ravel(), np.arange(array.size, dtype=array.dtype))


def _same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} = {size}" for axis, size in sizes.items()) or "the given sizes"


def _numbers_in(x: Any) -> Iterator[int]:
    return (leaf.number for leaf in leaves(x) if isinstance(leaf, Traced))


def other_numbers(array: Array, shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Numbers like these in another shape: of the same signs, no larger; integers from among those that are there.

    Where all integers are one, which may be a length or an index, the others lie between it and 1, or -1; beside 1, it
    is 0.
    """
    if array.dtype.kind == "b":
        return np.asarray(rng.random(tuple(shape)) < 0.5)
    if array.dtype.kind in "iu" and array.size and (array == array.flat[0]).all():
        number = int(array.flat[0])
        ends = sorted([number, int(np.sign(number)) if abs(number) > 1 else 0])
        return np.asarray(rng.integers(ends[0], ends[1], tuple(shape), endpoint=True)).astype(array.dtype)
    chosen = rng.permutation(np.resize(array, math.prod(shape))).reshape(shape)
    if array.dtype.kind != "f":
        return chosen
    return (chosen * rng.uniform(0.8, 1.0, chosen.shape)).astype(array.dtype)


def resized(
    inputs: Mapping[str, Array], dynamic: Mapping[str, Mapping[int, str]], sizes: Mapping[str, int],
    rng: np.random.Generator,
) -> dict[str, Array]:  # fmt: skip
    """Inputs like these, with other numbers, at other sizes."""
    shapes = {name: list(array.shape) for name, array in inputs.items()}
    for name, axes in dynamic.items():
        for axis, letter in axes.items():
            shapes[name][axis] = sizes[letter]
    return {name: other_numbers(array, shapes[name], rng) for name, array in inputs.items()}


def program(
    f: Callable[[dict[str, Tensor]], Any], inputs: Mapping[str, Array], dynamic: Mapping[str, Mapping[int, str]],
    names: Mapping[int, str], sample: Callable[..., dict[str, Array]] = resized,
) -> Program:  # fmt: skip
    """What f does with its inputs, by name; dynamic: which axes of them may change, by their letters.

    sample: makes inputs of other numbers and sizes.

    Raises: ConversionError, where it cannot be told from several runs; what f raises at the sizes that are given.
    """
    base = {letter: inputs[name].shape[axis] for name, axes in dynamic.items() for axis, letter in axes.items()}
    rng, runs, sizes = np.random.default_rng(0), [Run(f, inputs)], [base]
    for each in [base | {letter: n} for letter in base for n in _other_lengths(base[letter])] or [base]:
        try:
            runs.append(Run(f, sample(inputs, dynamic, each, rng)))
        except TinygradError as error:
            if any(each[letter] < base[letter] for letter in base):
                continue  # where the model itself stops, the graph may do so too
            raise ConversionError(
                f"the model runs at {_text(base)}, but not at {_text(each)}: {error}. If it is made for one size, "
                "leave that axis out of dynamic="
            ) from error
        sizes.append(each)
    return Program(runs, sizes, names)


def _other_lengths(length: int) -> list[int]:
    return [*[length + more for more in LONGER], *([min(SHORT, length - 1)] if length > 1 else [])]
