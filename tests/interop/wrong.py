"""Wrong ways to read another library's arrays, which the tests of each library have to notice."""

from __future__ import annotations

from tinygrad_rnn import nn

READINGS = {
    "gates in another order": ("_blocks", "0)", "0)[::-1]"),
    "the recurrent matrix transposed": (
        "_parts", "_blocks(slot, piece)", "[b.T if b.shape == b.T.shape else b for b in _blocks(slot, piece)]"),
    "the recurrent bias ignored": ("_cell", "c.get(gate, 0)", "0"),
    "the bias inside of the reset ignored": ("_cell", 'c["n"]', '0 * c["n"]'),
    "the reset gate before the product": ("_cell", '("reset", row.reset)', '("reset", "before")'),
    "the update gate turned": ("_cell", '("update", row.update)', '("update", "new")'),
}  # fmt: skip
"""By name: a function of `packing`, and what is replaced in it by what."""

NO_START = (nn.Recurrent, "_checked_state", "if state is None", "if True")
"""Initial states ignored."""
