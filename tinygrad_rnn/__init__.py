"""tinygrad_rnn: tensors that remember how they were made, on NumPy or CuPy; recurrent cells; pictures of both.

This is the list of public names; `tinygrad_rnn.nn`, `.optim`, `.train`, `.see`, `.interop`, `.testing` and `.lab`
hold the rest.
"""

import importlib as _importlib
from typing import Any as _Any

from . import nn, optim
from .backend import backends, use_backend
from .backend.random import seed
from .core.autodiff import Tape, pullback, tape
from .core.broadcasting import astype, broadcast_to
from .core.modes import debug, enable_grad, no_grad, scope
from .core.primitive import primitive
from .core.tensor import Tensor, tensor
from .functions import methods as _methods  # gives Tensor its operators
from .functions.composed import (
    diagonal,
    dot,
    einsum,
    outer,
    prod,
    repeat,
    split,
    take,
    take_along_axis,
    tile,
    var,
)
from .functions.creation import arange, eye, full, ones, rand, randn, zeros
from .ops.elementwise import (
    abs,
    add,
    arccos,
    arcsin,
    arctan,
    clip,
    cos,
    cosh,
    div,
    elu,
    equal,
    erf,
    exp,
    expm1,
    floor,
    gelu,
    greater,
    greater_equal,
    leaky_relu,
    less,
    less_equal,
    log,
    log1p,
    logical_not,
    maximum,
    minimum,
    mul,
    neg,
    not_equal,
    power,
    reciprocal,
    relu,
    sigmoid,
    sign,
    silu,
    sin,
    sinh,
    softplus,
    sqrt,
    square,
    sub,
    tan,
    tanh,
    where,
)
from .ops.matmul import matmul
from .ops.reductions import (
    argmax,
    argmin,
    cumsum,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    norm,
    softmax,
    std,
    sum,
)
from .ops.shapes import (
    concatenate,
    expand_dims,
    flip,
    moveaxis,
    pad,
    ravel,
    reshape,
    roll,
    squeeze,
    stack,
    swapaxes,
    transpose,
    tril,
    triu,
    unstack,
)
from .see.drawing import Drawing, draw
from .see.explain import Explanation, explain
from .see.player import Player, play
from .see.tables import TraceTable, trace_table
from .testing import gradcheck
from .transforms import checkpoint, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    if name in ("interop", "lab", "train"):  # rooms that take long to load, and that few programs need
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
