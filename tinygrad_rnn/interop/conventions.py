"""How each library lays out the weights of its recurrent cells, and which formulas it computes with them, as data.

Everything that converts reads this table, `packing` above all; `docs/which_gru.md` is written from it. A row says
what a library's arrays hold in the letters of this package: W (I, H) and U (H, H), a matrix per gate, b (H) what is
added to x W, and c (H) what is added to h U. To teach the package another library, add a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..nn.cells import Cell, GRUCell, LSTMCell, RNNCell


class Slot(NamedTuple):
    """One array of a library.

    holds: the letters of what is in it, such as "W"; of two, the blocks of the first come before those of the second.
    gates: the gates whose blocks lie in it, in their order.
    form: "columns": the blocks side by side, (I, G*H), for x W. "rows": their transposes one below the other, (G*H, I).
        "interleaved": the same rows, but a row of each gate in turn. Vectors are (G*H) in any case.
    stacked: whether what belongs to each letter is a row of its own, (2, G*H), and not one long vector.
    """

    name: str
    holds: str
    gates: str
    form: str = "columns"
    stacked: bool = False


@dataclass(frozen=True)
class Convention:
    """The cell of a library.

    key: what `packing` and the command call it. classes: what the library calls it. cell: the cell of this package.
    slots: its arrays. reset, update: of a GRU, as in `nn.GRUCell`. activations: those that it can have.
    offsets: what it adds to the bias of a gate while it runs, which is not in its arrays.
    bias_optional: whether it can do without all biases. states: in which order it hands on its states.
    start: how its weights begin, if nobody says otherwise. note: what else differs.
    source: where it says so. peepholes: the array of those of an LSTM that can have them; few cells do.
    """

    key: str
    classes: str
    cell: type[Cell]
    slots: tuple[Slot, ...]
    reset: str | None = None
    update: str | None = None
    activations: tuple[str, ...] = ("tanh",)
    offsets: Mapping[str, float] = field(default_factory=dict)
    bias_optional: bool = True
    states: str = "h"
    start: str = ""
    note: str = ""
    source: str = ""
    peepholes: Slot | None = None

    @property
    def order(self) -> str:
        """The gates in the order that they are packed in; those that have an array each, in the order of the arrays."""
        return "".join(dict.fromkeys("".join(slot.gates for slot in self.slots if "W" in slot.holds)))

    @property
    def recurrent_bias(self) -> bool:
        """Whether there is a bias c inside of r * (h U_n + c), in a GRU; in other cells, a second bias of any gate."""
        return any("c" in slot.holds and (self.cell is not GRUCell or "n" in slot.gates) for slot in self.slots)


def _packed(gates: str, form: str, W: str, U: str, b: str | None = None, c: str | None = None) -> tuple[Slot, ...]:
    """An array for each letter, with the blocks of all gates."""
    names = (("W", W), ("U", U), ("b", b), ("c", c))
    return tuple(Slot(name, letter, gates, form) for letter, name in names if name is not None)


def _by_gate(form: str, **names: str) -> tuple[Slot, ...]:
    """An array for each letter and gate: W="i{}/kernel" and so on; names of gates follow as letter=name."""
    letters = {letter: names.pop(letter) for letter in "WUbc" if letter in names}
    return tuple(Slot(text.format(name), letter, gate, form)
                 for letter, text in letters.items() for gate, name in names.items())  # fmt: skip


TORCH = {"W": "weight_ih", "U": "weight_hh", "b": "bias_ih", "c": "bias_hh"}
FLAX_GATES = {"W": "i{}/kernel", "U": "h{}/kernel"}
UNIFORM = "all uniform within 1/sqrt(H), biases too"
GLOROT = "W Glorot uniform over all gates together, U orthogonal over all gates together, b zeros"
FLAX_START = "W LeCun normal, U orthogonal, each gate for itself; b zeros"
LECUN = "LeCun normal; b zeros"
TORCH_SOURCE, KERAS_SOURCE = "docs.pytorch.org, torch.nn", "keras.io/api/layers/recurrent_layers"
CUDNN_SOURCE = "docs.nvidia.com, cuDNN, cudnnRNNMode_t"
ONNX_SOURCE, FLAX_SOURCE = "onnx.ai/onnx/operators", "flax.readthedocs.io, flax.linen"
HAIKU_SOURCE, CHAINER_SOURCE = "dm-haiku.readthedocs.io, recurrent", "docs.chainer.org, links"

CONVENTIONS: tuple[Convention, ...] = (
    # PyTorch, and cuDNN whose parameters are the same blocks in one long vector
    Convention(
        "torch", "torch.nn.RNN, RNNCell", RNNCell, _packed("h", "rows", **TORCH), activations=("tanh", "relu"),
        start=UNIFORM, source=TORCH_SOURCE,
    ),
    Convention(
        "torch", "torch.nn.GRU, GRUCell", GRUCell, _packed("rzn", "rows", **TORCH), "after", "old",
        start=UNIFORM, source=TORCH_SOURCE,
    ),
    Convention(
        "torch", "torch.nn.LSTM, LSTMCell", LSTMCell, _packed("ifgo", "rows", **TORCH), states="hc",
        start=f"{UNIFORM}: the forget gate's has no 1", note="proj_size adds a matrix that has no counterpart here",
        source=TORCH_SOURCE,
    ),
    Convention(
        "cudnn", "CUDNN_RNN_TANH, CUDNN_RNN_RELU", RNNCell, _packed("h", "rows", "W", "U", "bW", "bR"),
        activations=("tanh", "relu"), bias_optional=False, start="none", source=CUDNN_SOURCE,
    ),
    Convention(
        "cudnn", "CUDNN_GRU", GRUCell, _packed("rzn", "rows", "W", "U", "bW", "bR"), "after", "old",
        bias_optional=False, start="none", note="calls the update gate i", source=CUDNN_SOURCE,
    ),
    Convention(
        "cudnn", "CUDNN_LSTM", LSTMCell, _packed("ifgo", "rows", "W", "U", "bW", "bR"), bias_optional=False,
        states="hc", start="none", source=CUDNN_SOURCE,
    ),
    # Keras
    Convention(
        "keras", "keras.layers.SimpleRNN", RNNCell, _packed("h", "columns", "kernel", "recurrent_kernel", "bias"),
        activations=("tanh", "relu"), start=GLOROT, source=KERAS_SOURCE,
    ),
    Convention(
        "keras", "keras.layers.GRU", GRUCell,
        (*_packed("zrn", "columns", "kernel", "recurrent_kernel"), Slot("bias", "bc", "zrn", stacked=True)),
        "after", "old", start=GLOROT, note="reset_after=True, the default; calls the candidate h", source=KERAS_SOURCE,
    ),
    Convention(
        "keras", "keras.layers.GRU", GRUCell, _packed("zrn", "columns", "kernel", "recurrent_kernel", "bias"),
        "before", "old", start=GLOROT, note="reset_after=False", source=KERAS_SOURCE,
    ),
    Convention(
        "keras", "keras.layers.LSTM", LSTMCell, _packed("ifgo", "columns", "kernel", "recurrent_kernel", "bias"),
        states="hc", start=f"{GLOROT}, but 1 for the forget gate", note="calls the candidate c", source=KERAS_SOURCE,
    ),
    # ONNX: the arrays of one direction
    Convention(
        "onnx", "RNN", RNNCell, (*_packed("h", "rows", "W", "R"), Slot("B", "bc", "h")), activations=("tanh", "relu"),
        start="none", note="any activation of its list, clip", source=ONNX_SOURCE,
    ),
    Convention(
        "onnx", "GRU", GRUCell, (*_packed("zrn", "rows", "W", "R"), Slot("B", "bc", "zrn")), "before", "old",
        start="none", note="linear_before_reset=0, the default; calls the candidate h", source=ONNX_SOURCE,
    ),
    Convention(
        "onnx", "GRU", GRUCell, (*_packed("zrn", "rows", "W", "R"), Slot("B", "bc", "zrn")), "after", "old",
        start="none", note="linear_before_reset=1", source=ONNX_SOURCE,
    ),
    Convention(
        "onnx", "LSTM", LSTMCell, (*_packed("iofg", "rows", "W", "R"), Slot("B", "bc", "iofg")), states="hc",
        start="none", note="calls the candidate c; input_forget", source=ONNX_SOURCE,
        peepholes=Slot("P", "P", "iof"),
    ),
    # Flax
    Convention(
        "flax", "flax.linen.SimpleCell", RNNCell,
        (Slot("i/kernel", "W", "h"), Slot("h/kernel", "U", "h"), Slot("i/bias", "b", "h")),
        bias_optional=False, start=FLAX_START, source=FLAX_SOURCE,
    ),
    Convention(
        "flax", "flax.linen.GRUCell", GRUCell,
        (*_by_gate("columns", **FLAX_GATES, b="i{}/bias", r="r", z="z", n="n"), Slot("hn/bias", "c", "n")),
        "after", "old", bias_optional=False, start=FLAX_START, source=FLAX_SOURCE,
    ),
    Convention(
        "flax", "flax.linen.LSTMCell, OptimizedLSTMCell", LSTMCell,
        _by_gate("columns", **FLAX_GATES, b="h{}/bias", i="i", f="f", g="g", o="o"),
        bias_optional=False, states="ch", start=f"{FLAX_START}: the forget gate's has no 1", source=FLAX_SOURCE,
    ),
    Convention(
        "flax.nnx", "flax.nnx.GRUCell", GRUCell,
        _packed("rzn", "columns", "dense_i/kernel", "dense_h/kernel", "dense_i/bias"),
        "after", "old", bias_optional=False, start=FLAX_START,
        note="has no bias inside of the reset, although its formula shows one", source="flax.readthedocs.io, flax.nnx",
    ),
    # Equinox
    Convention(
        "equinox", "equinox.nn.GRUCell", GRUCell,
        (*_packed("rzn", "rows", "weight_ih", "weight_hh", "bias"), Slot("bias_n", "c", "n")), "after", "old",
        start=UNIFORM, note="no batch axis", source="docs.kidger.site/equinox, nn",
    ),
    Convention(
        "equinox", "equinox.nn.LSTMCell", LSTMCell, _packed("ifgo", "rows", "weight_ih", "weight_hh", "bias"),
        states="hc", start=f"{UNIFORM}: the forget gate's has no 1", note="no batch axis",
        source="docs.kidger.site/equinox, nn",
    ),
    # Haiku
    Convention(
        "haiku", "haiku.VanillaRNN", RNNCell,
        (Slot("linear/w", "W", "h"), Slot("linear_1/w", "U", "h"),
         Slot("linear/b", "b", "h"), Slot("linear_1/b", "c", "h")),
        activations=("relu",), bias_optional=False, start="truncated normal of variance 1/inputs; b zeros",
        source=HAIKU_SOURCE,
    ),
    Convention(
        "haiku", "haiku.GRU", GRUCell, _packed("zrn", "columns", "w_i", "w_h", "b"), "before", "new",
        bias_optional=False, start="truncated normal of variance 1/inputs; b zeros",
        note="as here, number by number; calls the candidate a", source=HAIKU_SOURCE,
    ),
    Convention(
        "haiku", "haiku.LSTM", LSTMCell, (Slot("linear/w", "WU", "igfo"), Slot("linear/b", "b", "igfo")),
        offsets={"f": 1.0}, bias_optional=False, states="hc", start="truncated normal of variance 1/(I+H); b zeros",
        note="adds 1 to the forget gate while it runs", source=HAIKU_SOURCE,
    ),
    # Chainer
    Convention(
        "chainer", "chainer.links.StatelessGRU, StatefulGRU", GRUCell,
        _by_gate("rows", W="W{}/W", U="U{}/W", b="W{}/b", c="U{}/b", r="_r", z="_z", n=""), "before", "new",
        bias_optional=False, start=LECUN,
        note="StatefulGRU leaves out U and its biases in the first step, where there is no state yet",
        source=CHAINER_SOURCE,
    ),
    Convention(
        "chainer", "chainer.links.StatelessLSTM, LSTM", LSTMCell,
        (Slot("upward/W", "W", "gifo", "interleaved"), Slot("lateral/W", "U", "gifo", "interleaved"),
         Slot("upward/b", "b", "gifo", "interleaved")),
        bias_optional=False, states="ch", start=f"{LECUN}, but 1 for the forget gate", source=CHAINER_SOURCE,
    ),
    Convention(
        "chainer.nstep", "chainer.links.NStepRNNTanh, NStepRNNReLU", RNNCell,
        _packed("h", "rows", "w0", "w1", "b0", "b1"), activations=("tanh", "relu"), bias_optional=False, start=LECUN,
        source=CHAINER_SOURCE,
    ),
    Convention(
        "chainer.nstep", "chainer.links.NStepGRU", GRUCell,
        tuple(Slot(f"{kind}{3 * second + i}", letter, gate, "rows") for kind, letters in (("w", "WU"), ("b", "bc"))
              for second, letter in enumerate(letters) for i, gate in enumerate("rzn")),
        "after", "old", bias_optional=False, start=LECUN, source=CHAINER_SOURCE,
    ),
    Convention(
        "chainer.nstep", "chainer.links.NStepLSTM", LSTMCell,
        tuple(Slot(f"{kind}{4 * second + i}", letter, gate, "rows") for kind, letters in (("w", "WU"), ("b", "bc"))
              for second, letter in enumerate(letters) for i, gate in enumerate("ifgo")),
        bias_optional=False, states="hc", start=LECUN, source=CHAINER_SOURCE,
    ),
)  # fmt: skip

PEEPHOLES = Slot("P", "P", "ifo")
"""Those of `VariedLSTMCell`, in this package's order."""
