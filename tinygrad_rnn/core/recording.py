"""What happens when a primitive is called: its kernel runs on the arrays, and the result remembers its birth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..backend import BACKEND_OF, NAMESPACE_OF, Array, as_array, backend_of
from ..errors import PrimitiveError, ShapeError, TinygradError, explained, mixed, operands
from .modes import current, inspect_result, place
from .tensor import Tensor, next_age

if TYPE_CHECKING:
    from .primitive import Primitive

NUMBERS = frozenset({float, int, bool})
_new = object.__new__


def recorder(op: Primitive) -> Callable[..., Any]:
    """The function of a primitive that users call, written out for one or two arrays without options."""
    general, count = _general(op), len(op.arrays)
    if op.variadic or op.defaults or op.vjp or count not in (1, 2):
        return general
    return _unary(op, general) if count == 1 else _binary(op, general)


def stops(op: Primitive, dtype: Any = None) -> tuple[str, str]:
    """Why gradients stop at a result of an operation: it was not recorded, or it has none to pass on."""
    whole = f"makes {dtype}, which has no gradient" if dtype is not None and dtype.kind not in "fc" else ""
    return f"{op.name} under no_grad()", f"{op.name} {whole if whole and op.differentiable else 'has no derivative'}"


def _general(op: Primitive) -> Callable[..., Any]:
    """What users call: runs the kernel on Tensors and records it; on bare arrays or symbols, just runs it on those."""

    def apply(*args: Any, **options: Any) -> Any:
        if op.defaults or op.variadic or options:
            args, options = op.bind(args, options)
        for first in args:
            if type(first) is Tensor:
                break
        else:
            return _apply_bare(op, args, options)
        try:
            inputs = tuple([x if type(x) is Tensor or type(x) in NUMBERS else constant(x, first) for x in args])
        except TinygradError as error:
            raise explained(error, op.name, args, options, place()) from None
        arrays = [x._array if type(x) is Tensor else x for x in inputs]
        if len({BACKEND_OF[type(x)] for x in arrays if type(x) not in NUMBERS}) > 1:
            raise mixed(op.name, op.arrays, inputs, place())
        try:
            result = op.kernel_for(type(first._array))(*arrays, **options)
        except Exception as error:
            raise explained(error, op.name, inputs, options, place()) from error
        needed = any([x._requires_grad for x in inputs if type(x) is Tensor])
        if op.vjp is None:
            return _born(op, result, inputs, options, needed)
        result, saved = _pair(op, result)
        out = _born(op, result, inputs, options, needed)
        if out.op is not None:
            out.saved = saved
        return out

    return apply


def _binary(op: Primitive, general: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """The same for two arrays and no options, written out: small operations are bound by this very function."""
    kernels, has_rules = op.kernels, bool(op.rules)
    unrecorded, underivable = stops(op)

    def apply(a: Any, b: Any) -> Any:
        mode = current()
        if type(a) is Tensor:
            x, needed = a._array, a._requires_grad
            array_type = type(x)
            if type(b) is Tensor:
                y = b._array
                if type(y) is not array_type or mode.watched:
                    return general(a, b)
                needed = needed or b._requires_grad
            elif (type(b) is float or type(b) is int) and not mode.watched:
                y = b
            else:
                return general(a, b)
        elif type(b) is Tensor and (type(a) is float or type(a) is int) and not mode.watched:
            x, y, needed, array_type = a, b._array, b._requires_grad, type(b._array)
        else:
            return general(a, b)
        try:
            result = kernels[array_type](x, y)
        except Exception:  # the first array of its type finds its kernel there; an error explains itself there
            return general(a, b)
        out = _new(Tensor)
        out._array = result
        if needed and mode.recording and has_rules:
            out._requires_grad, out.op, out.inputs, out.stop = True, op, (a, b), None
        else:
            out._requires_grad, out.op, out.inputs = False, None, ()
            if needed:
                out.stop = underivable if mode.recording else unrecorded
            else:
                out.stop = (type(a) is Tensor and a.stop) or (type(b) is Tensor and b.stop) or None
        out.age, out.scope = next_age(), mode.scope
        out.modified, out.hooks = 0, None
        return out

    return apply


def _unary(op: Primitive, general: Callable[..., Any]) -> Callable[[Any], Any]:
    """The same for one array and no options."""
    kernels, has_rules = op.kernels, bool(op.rules)
    unrecorded, underivable = stops(op)

    def apply(x: Any) -> Any:
        mode = current()
        if type(x) is not Tensor or mode.watched:
            return general(x)
        try:
            result = kernels[type(x._array)](x._array)
        except Exception:  # as above
            return general(x)
        out = _new(Tensor)
        out._array = result
        needed = x._requires_grad
        if needed and mode.recording and has_rules:
            out._requires_grad, out.op, out.inputs, out.stop = True, op, (x,), None
        else:
            out._requires_grad, out.op, out.inputs = False, None, ()
            out.stop = x.stop if not needed else underivable if mode.recording else unrecorded
        out.age, out.scope = next_age(), mode.scope
        out.modified, out.hooks = 0, None
        return out

    return apply


def _born(op: Primitive, result: Array, inputs: tuple[Any, ...], options: dict[str, Any], needed: bool) -> Tensor:
    mode = current()
    out = _new(Tensor)
    out._array = result
    if needed and mode.recording and op.differentiable and result.dtype.kind in "fc":
        out._requires_grad, out.op, out.inputs, out.options, out.stop = True, op, inputs, options, None
    else:
        out._requires_grad, out.op, out.inputs = False, None, ()
        stopped = None if needed else next((x for x in inputs if type(x) is Tensor and x.stop), None)
        if needed:
            unrecorded, underivable = stops(op, result.dtype)
            out.stop = underivable if mode.recording else unrecorded
        else:
            out.stop = None if stopped is None else stopped.stop  # a slice of it, say, knows it too
        if mode.debug and stopped is not None:
            out.source = stopped.source
    out.age, out.scope = next_age(), mode.scope
    out.modified, out.hooks = 0, None
    if mode.debug:
        line = inspect_result(result, f"{op.name} of {operands(inputs)}")
        out.source = out.source or line
    if mode.listener is not None:
        mode.listener(op, inputs, options, out)
    return out


def _pair(op: Primitive, result: Any) -> tuple[Array, Any]:
    """What the kernel of a fused primitive returns: the result, and what its `vjp` wants to see again."""
    if not isinstance(result, tuple) or len(result) != 2 or not hasattr(result[0], "dtype"):
        raise PrimitiveError(
            f"the kernel of {op.name} is fused: it returns (result, saved), not {type(result).__name__}"
        )
    return result


def _apply_bare(op: Primitive, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    for x in args:
        if type(x) in NAMESPACE_OF:
            result = op.kernel_for(type(x))(*args, **options)
            return result if op.vjp is None else _pair(op, result)[0]
        if hasattr(x, "__apply_primitive__"):
            return x.__apply_primitive__(op, args, options)
    if not args:
        raise ShapeError(f"{op.name} needs at least one array")
    return op.function(*[Tensor(as_array(x)) for x in args], **options)


def home_of(x: Any, beside: Tensor) -> str:
    """Where something among tensors goes: an array stays on its backend, a list or a number joins the tensor's."""
    return backend_of(x).name_of(x) if type(x) in BACKEND_OF else beside.backend


def constant(x: Any, beside: Tensor) -> Tensor:
    """A copy of something among tensors, as a leaf without a gradient."""
    return Tensor(as_array(x, home_of(x, beside)))
