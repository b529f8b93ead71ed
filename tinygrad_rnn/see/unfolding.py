"""Fused operations opened: a result once more, made operation by operation."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.autodiff import tape
from ..core.modes import changed
from ..core.primitive import read
from ..core.tensor import Tensor
from ..errors import ModifiedError
from .words import printable


def unfolded(results: Sequence[Tensor]) -> list[Tensor]:
    """The results once more, made by the reference of each fused primitive instead, operation by operation.

    What comes before the first fused primitive stays; what comes after it is computed again, each in its own scope.

    Raises: GraphError, if the graph was freed; ModifiedError, if a value that is needed has other numbers now.
    """
    found: dict[int, Tensor] = {}
    for node in tape(*results)[::-1]:
        op, inputs = node.op, [found.get(x.age, x) if type(x) is Tensor else x for x in node.inputs or ()]
        if op is None or not (op.vjp or any(new is not old for new, old in zip(inputs, node.inputs or ()))):
            continue
        try:
            for x in node.inputs or ():
                read(x, node, recorded=False)
        except ModifiedError as error:
            raise ModifiedError(f"what is fused cannot be computed once more: {printable(str(error))}") from None
        with changed(recording=True, debug=False, scope=node.scope):
            again: Tensor = (op.reference or op.function)(*([inputs] if op.variadic else inputs), **node.options)
        again.name = node.name or again.name
        found[node.age] = again
    return [found.get(y.age, y) for y in results]
