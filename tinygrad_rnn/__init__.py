"""tinygrad_rnn: tensors that remember how they were made, on NumPy or CuPy; recurrent cells; pictures of both.

This is the list of public names; `tinygrad_rnn.nn`, `.optim`, `.train`, `.see` and `.testing` hold the rest.
"""

from . import nn, optim
from .backend import backends, use_backend
from .backend.random import seed
from .core.autodiff import Tape, pullback, tape
from .core.broadcasting import astype, broadcast_to
from .core.modes import debug, enable_grad, no_grad, scope
from .core.primitive import primitive
from .core.tensor import Tensor, tensor
from .ops import methods as _methods  # gives Tensor its operators
from .ops.creation import arange, eye, full, ones, rand, randn, zeros
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
from .ops.indexing import diagonal, take, take_along_axis
from .ops.matmul import dot, einsum, matmul, outer
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
    prod,
    softmax,
    std,
    sum,
    var,
)
from .ops.shapes import (
    concatenate,
    expand_dims,
    flip,
    moveaxis,
    pad,
    ravel,
    repeat,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    swapaxes,
    tile,
    transpose,
    tril,
    triu,
    unstack,
)
from .testing import gradcheck
from .see.drawing import Drawing, draw
from .transforms import checkpoint, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp

__version__ = "0.1.0"
