"""Nests: values in tuples, lists and dictionaries in each other, such as what a model returns; its leaves one by one.

A slice counts as a nest of its three numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any


def parts(x: Any) -> Mapping[Any, Any] | None:
    """What a nest holds, by name or place; None for a leaf."""
    if isinstance(x, dict):
        return x
    if isinstance(x, slice):
        return {"start": x.start, "stop": x.stop, "step": x.step}
    if isinstance(x, (tuple, list)):
        return dict(zip(getattr(x, "_fields", range(len(x))), x))
    return None


def rebuilt(x: Any, held: Iterable[Any]) -> Any:
    """A nest of the same kind as x that holds other parts, in the order of `parts`."""
    if isinstance(x, dict):
        return dict(zip(x, held))
    return type(x)(*held) if isinstance(x, slice) or hasattr(x, "_make") else type(x)(held)


def mapped(f: Callable[[Any], Any], x: Any) -> Any:
    """The same nest, each leaf through f."""
    held = parts(x)
    return f(x) if held is None else rebuilt(x, [mapped(f, each) for each in held.values()])


def leaves(x: Any) -> Iterator[Any]:
    """The leaves in their order; of what is no nest, itself."""
    return (leaf for _, leaf in paths(x))


def paths(x: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves, each with the names or places that lead to it, as in "state.0"; path: those that lead to x."""
    held = parts(x)
    if held is None:
        yield path, x
    else:
        for name, each in held.items():
            yield from paths(each, f"{path}.{name}" if path else str(name))
