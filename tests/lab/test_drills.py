"""Drills: every primitive has lines that run and that are right, and each kind of mistake has its verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from samples import SAMPLES, Sample

import tinygrad_rnn as tg
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.core.tensor import Tensor
from tinygrad_rnn.lab.drills import Drill

CASES = [pytest.param(n, s, id=f"{n}-{i}-{s}") for n, ss in SAMPLES.items() for i, s in enumerate(ss)]
DIFFERENTIABLE = [case for case in CASES if PRIMITIVES[str(case.values[0])].differentiable]


def executed(text: str, made: Drill) -> dict[str, Any]:
    namespace: dict[str, Any] = {"drill": made}
    with np.errstate(all="ignore"):
        exec(text, namespace)
    return namespace


def sampled(name: str, sample: Sample, backend: str) -> Drill:
    """The drill of one call of a primitive, its result weighed, so that the gradient that comes in is not 1."""
    args = [tg.tensor(x, backend=backend) if isinstance(x, np.ndarray) else x for x in sample.args]
    for x in args:
        if isinstance(x, Tensor) and x.dtype.kind == "f":
            x.requires_grad = True
    y = PRIMITIVES[name].function(*args, **sample.on(backend).options)
    weights = tg.tensor(np.linspace(0.5, 1.5, y.size).reshape(y.shape), backend=y.backend)
    return Drill((y * weights).sum(), "loss")


@pytest.mark.parametrize(("name", "sample"), DIFFERENTIABLE)
def test_every_primitive_has_a_line_forward_and_one_back(name: str, sample: Sample, backend: str) -> None:
    made = sampled(name, sample, backend)
    namespace = executed(made.solution(), made)
    for t in made.ordered:
        np.testing.assert_allclose(namespace[made.called[t.age]], t.to("numpy").numpy(), rtol=1e-12, atol=1e-12)
    verdicts = made.check(namespace)
    assert verdicts.right, str(verdicts)
    assert len(verdicts) == len(made.names) >= 2
