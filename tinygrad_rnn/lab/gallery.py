"""The bug gallery: seven classic mistakes, each a line or two of the package's own text, and who notices them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import autodiff
from ..core.autodiff import pullback, tape
from ..core.broadcasting import fitted
from ..core.tensor import Tensor, tensor
from ..errors import GradcheckError, LabError
from ..functions.composed import split
from ..nn import equations
from ..nn.recurrent import GRU
from ..ops.elementwise import sin, tanh
from ..ops.matmul import matmul
from ..ops.reductions import sum
from ..see.drawing import Drawing, draw
from ..see.summary import number, summary
from ..see.tables import DIGITS
from ..testing import gradcheck
from .mutation import Mutant
from .sheet import Sheet
from .tracing import traced

Examples = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Bug:
    """One mistake. changed: in words. function: where it is made. edits: what its text has, and has with the mistake.

    look: what to look at, and why. noticed: which of `CHECKS` see it. compute, inputs: a small computation that has it.
    """

    name: str
    changed: str
    function: Callable[..., Any]
    edits: Mapping[str, str]
    look: str
    noticed: tuple[str, ...]
    compute: Callable[..., Tensor]
    inputs: Examples

    def mutant(self) -> Mutant:
        """The mistake, to be made in a `with`."""
        return Mutant(self.function, self.edits, self.name)


CHECKS = {
    "gradcheck": "tg.gradcheck, operation by operation (fused=False), holds derivatives against numbers from the very "
    "function that runs",
    "fused layer": "the fused layer, whose arithmetic is written apart, against its reference, values and gradients; "
    "tg.gradcheck of a fused layer holds these against each other too, and so notices",
    "elsewhere": "values and gradients that another program has computed from the same equations",
}
"""Who may notice a mistake."""
ALL, BUT_GRADCHECK = tuple(CHECKS), ("fused layer", "elsewhere")


# -- small computations -------------------------------------------------------------------------------------------


def _neuron(x: Tensor, w: Tensor) -> Tensor:
    y = tanh(x * w)
    return y


def _used_twice(x: Tensor) -> Tensor:
    y = x * x + sin(x)
    return y


def _affine(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    y = tanh(x @ W + b)
    loss: Tensor = sum(y * y)
    return loss


def _one_step(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensor:
    """One step of a GRU by its equations, all gates named."""
    W_z, W_r, W_n = split(W, 3, -1)
    U_z, U_r, U_n = split(U, 3, -1)
    b_z, b_r, b_n = split(b, 3, -1)
    weights = [equations.GRUGates(*each) for each in ((W_z, W_r, W_n), (U_z, U_r, U_n), (b_z, b_r, b_n))]
    z, r, n, h = equations.gru(x, h, *weights)  # noqa: RUF059, what is in a variable is called like it
    loss: Tensor = sum(h * h)
    return loss


def _drawn(**shapes: tuple[int, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {name: rng.uniform(-1, 1, shape).round(2) for name, shape in shapes.items()}


NEURON: Examples = {"x": 0.5, "w": 1.5}
AFFINE: Examples = _drawn(x=(2, 3), W=(3, 3), b=(3,))
STEP: Examples = _drawn(x=(2, 3), h=(2, 4), W=(3, 12), U=(4, 12), b=(12,))

BUGS: dict[str, Bug] = {
    bug.name: bug
    for bug in [
        Bug(
            "missing factor",
            "the derivative of tanh lacks a factor: 1 - y in place of 1 - y²",
            tanh, {"g - g * y * y": "g - g * y"},
            "The value is right, and so is every gradient behind the tanh: only what comes before it is off. Look at "
            "the rule beside the tanh.",
            ALL, _neuron, NEURON,
        ),
        Bug(
            "= for +=",
            "a gradient that arrives overwrites the one that is there, where it should be added to it",
            autodiff.pull,
            {"before += d": "before = 1 * d", "= before + d": "= 1 * d", "= d.added_to(total)": "= d.whole()"},
            "x is used three times, and its gradient is the contribution of one use. What is used once is right, which "
            "is why small tests miss it.",
            ALL, _used_twice, {"x": 0.5},
        ),
        Bug(
            "transposed product",
            "the gradient for b of a @ b is gᵀ a in place of aᵀ g",
            matmul, {"return a.T @ g": "return g.T @ a"},
            "W is square, so that no shape complains, and its gradient is the transpose of what it should be. With "
            "any other W the engine refuses the shape.",
            ALL, _affine, AFFINE,
        ),
        Bug(
            "forgotten broadcast sum",
            "of the copies that broadcasting makes of a value, one is listened to, where all should be summed",
            fitted,
            {
                "d = sum_to(d, shape=shape) if type(d) is Tensor else _sum_to(None, d, shape=shape)":
                "d = d[(0,) * lead][tuple([slice(n) for n in shape])]",
            },
            "The bias b was added to both rows, and its gradient is that of the first row. All else is right.",
            ALL, _affine, AFFINE,
        ),
        Bug(
            "swapped gates",
            "z has the weights of r, and r those of z, as if they were packed in another order",
            equations.gru,
            {
                "x @ W.z + h @ U.z + b.z": "x @ W.r + h @ U.r + b.r",
                "x @ W.r + h @ U.r + b.r": "x @ W.z + h @ U.z + b.z",
            },
            "The numbers of z and r have changed places in the picture. A layer that learns from the start learns "
            "as well: only weights from elsewhere show it.",
            BUT_GRADCHECK, _one_step, STEP,
        ),
        Bug(
            "reset in the wrong place",
            "the reset gate acts after the product with U_n, where it should act before it",
            equations.gru, {"(r * h) @ U.n": "r * (h @ U.n)"},
            "The boxes of r, of the product with U_n and of ⊙ have another order. It is a GRU too, that of other "
            "libraries, so that nothing about it looks wrong.",
            BUT_GRADCHECK, _one_step, STEP,
        ),
        Bug(
            "sign of the update gate",
            "z = 1 keeps the old state, where it should take the new one",
            equations.gru, {"h = z * n + (1 - z) * h if": "h = (1 - z) * n + z * h if"},
            "z and 1 - z have changed places before the last sum. Negating the weights of z undoes it, so that "
            "a layer that learns from the start does not suffer.",
            BUT_GRADCHECK, _one_step, STEP,
        ),
    ]
}  # fmt: skip
"""The classic mistakes, by name. The last three are wrong equations with the right derivatives of the wrong thing."""


def bug(name: str) -> Mutant:
    """One of the classic mistakes for a `with`: `with lab.bug("missing factor"): ...`.

    It is on for the whole process, says so on the standard error when it comes and when it goes, and goes on leaving,
    also by an error.

    Raises: LabError for a name that is not in `BUGS`; on entering, if the same function has a mistake already.
    """
    return _bug(name).mutant()


def _bug(name: str) -> Bug:
    if not isinstance(name, str) or name not in BUGS:
        raise LabError(f"there is no bug {name!r}; they are {', '.join(map(repr, BUGS))}")
    return BUGS[name]


def bugs() -> Sheet:
    """The table of the classic mistakes: what each is, and who notices it."""
    noticed = {each.name: ["yes" if check in each.noticed else "no" for check in CHECKS] for each in BUGS.values()}
    rows = [[each.name, each.changed, *noticed[each.name]] for each in BUGS.values()]
    notes = [f"{check}: {meaning}." for check, meaning in CHECKS.items()]
    return Sheet("Classic mistakes, and who notices them", [(["name", "mistake", *CHECKS], rows)], notes)


# -- symptoms -----------------------------------------------------------------------------------------------------


class Symptom(Sheet):
    """What a mistake does to a small computation.

    bug; diff: what differs in the text. right, wrong: by name, the value of the result and the gradients of the leaves,
    as NumPy arrays. gradcheck: what it says, "" if it notices nothing. picture: drawn with the mistake in it.
    """

    def __init__(
        self, bug: Bug, diff: str, right: Examples, wrong: Examples, gradcheck: str, fused: float, picture: Drawing
    ) -> None:
        self.bug, self.diff, self.right, self.wrong, self.gradcheck = bug, diff, right, wrong, gradcheck
        self.fused, self.picture = fused, picture
        rows = []
        for name, found in wrong.items():
            off = float(np.abs(right[name] - found).max())
            rows.append([name, *[summary(each).words(DIGITS) for each in (right[name], found)], number(off, 2)])
        notes = [bug.look, f"gradcheck: {gradcheck or 'notices nothing, operation by operation'}."]
        if "gradcheck" not in bug.noticed:
            notes.append(f"The fused layer and its reference now differ by up to {fused:.2g}: gradcheck of it notices.")
        table = ["", "right", "with the mistake", "off by up to"], rows
        super().__init__(f"{bug.name}: {bug.changed}", [table], notes, code=diff)


def symptom(name: str) -> Symptom:
    """What one of the classic mistakes does: right and wrong numbers, what gradcheck says, and a picture with it.

    The mistake is on while this computes, for the whole process, and says so, as in a `with`.

    Raises: LabError for a name that is not in `BUGS`, or if the function has a mistake already.
    """
    bug = _bug(name)
    right, _ = _computed(bug)
    with bug.mutant() as mistake:
        wrong, y = _computed(bug)
        return Symptom(bug, mistake.diff, right, wrong, _verdict(bug), _difference(), draw(y, title=f"With {name}"))


def _computed(bug: Bug) -> tuple[dict[str, Any], Tensor]:
    """The value and the gradients by name, and the result itself."""
    y = traced(bug.compute, *bug.inputs.values())
    leaves = [t for t in tape(y)[::-1] if t.op is None]
    gradients = {f"d{y.name}/d{x.name}": d.numpy() for x, d in zip(leaves, pullback(y, leaves))}
    return {str(y.name): y.numpy()} | gradients, y


def _verdict(bug: Bug) -> str:
    try:
        gradcheck(bug.compute, *map(np.asarray, bug.inputs.values()))
    except GradcheckError as error:
        return str(error)
    return ""


def _difference() -> float:
    """How far a fused layer is from its reference."""
    outputs = []
    for fused in (True, False):
        layer = GRU(3, 4, fused=fused, dtype=np.float64, rng=np.random.default_rng(1))
        outputs.append(layer(tensor(np.random.default_rng(2).uniform(-1, 1, (3, 2, 3))))[0].numpy())
    return float(np.abs(outputs[0] - outputs[1]).max())
