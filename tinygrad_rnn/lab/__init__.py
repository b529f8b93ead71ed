"""The lab: mistakes to make on purpose, and gradients to work out by hand. A room above the side rooms.

It has no engine of its own: `walks` takes the engine's steps in other orders. `mutation` plants a mistake in the live
text of a function, and `gallery` has the classic ones. `drills` writes a function as a worksheet of Python lines, by
`writing`, and checks what is filled in, by `verdicts`. `sources` opens a user's files, and `tracing` runs a function so
that its tensors have the names of its variables; `sheet` is how tables are shown.
"""

from .drills import Drill, drill, drill_of
from .gallery import BUGS, Bug, Symptom, bug, bugs, symptom
from .mutation import Mutant, mutant
from .verdicts import Verdict, Verdicts
from .walks import Order, order

__all__ = [
    "BUGS",
    "Bug",
    "Drill",
    "Mutant",
    "Order",
    "Symptom",
    "Verdict",
    "Verdicts",
    "bug",
    "bugs",
    "drill",
    "drill_of",
    "mutant",
    "order",
    "symptom",
]
