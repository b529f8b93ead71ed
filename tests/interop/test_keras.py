"""Keras and the package compute the same, whichever way a model goes; plain formulas are the second witness."""

from __future__ import annotations

import os

import numpy as np
import pytest
from golden.keras_loops import walk
from interop.modules import leaves, with_numbers
from interop.wrong import READINGS
from mutants import mutated

import tinygrad_rnn as tg
from tinygrad_rnn.errors import ConversionError, OptionError, ShapeError, TinygradError
from tinygrad_rnn.interop import from_keras, packing, to_keras
from tinygrad_rnn.interop.cells import VariedGRU, VariedLSTM, VariedRNN, activation
from tinygrad_rnn.interop.keras_ import files as keras_files
from tinygrad_rnn.interop.keras_ import layers as keras_layers
from tinygrad_rnn.interop.keras_.config import walking_order
from tinygrad_rnn.interop.layers import Final, Layers
from tinygrad_rnn.interop.report import Report
from tinygrad_rnn.train.model import LanguageModel

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("h5py")
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
L = keras.layers
V, T, N, I, H = 7, 5, 3, 4, 6
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, T, I))
IDS = RNG.integers(0, V, (N, T))

CELLS = {
    "SimpleRNN": ("SimpleRNN", {}),
    "SimpleRNN, relu": ("SimpleRNN", {"activation": "relu"}),
    "SimpleRNN, softsign": ("SimpleRNN", {"activation": "softsign"}),
    "SimpleRNN, no bias": ("SimpleRNN", {"use_bias": False}),
    "GRU after": ("GRU", {}),
    "GRU before": ("GRU", {"reset_after": False}),
    "GRU after, no bias": ("GRU", {"use_bias": False}),
    "GRU after, varied": ("GRU", {"recurrent_activation": "hard_sigmoid", "activation": "elu"}),
    "GRU before, varied": (
        "GRU", {"reset_after": False, "recurrent_activation": "hard_sigmoid", "activation": "softsign"}),
    "LSTM": ("LSTM", {}),
    "LSTM, no bias": ("LSTM", {"use_bias": False}),
    "LSTM, varied": ("LSTM", {"recurrent_activation": "hard_sigmoid", "activation": "leaky_relu"}),
}  # fmt: skip
FUSED = ("GRU after", "LSTM")
"""What Keras computes in double precision; all else it rounds to single precision on the way."""


def filled(part):
    """With random numbers in all weights, biases too."""
    part.set_weights([0.4 * RNG.normal(size=w.shape).astype(w.dtype) for w in part.get_weights()])
    return part


def built(kind, width=I, **settings):
    """A layer with weights."""
    layer = getattr(L, kind)(**settings) if isinstance(kind, str) else kind
    layer.build((None, None, width))
    return filled(layer)


def of_keras(part, x):
    """What Keras computes, as an array or a list of arrays."""
    found = part(keras.ops.convert_to_tensor(x))
    return [keras.ops.convert_to_numpy(each) for each in found] if isinstance(found, (list, tuple)) else (
        keras.ops.convert_to_numpy(found))  # fmt: skip


def away(a, b):
    a = np.asarray(a.numpy() if hasattr(a, "numpy") else a)
    assert a.shape == np.asarray(b).shape
    return np.abs(a - b).max()


# -- layers and cells ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_layer(name, go_backwards, dtype):
    kind, settings = CELLS[name]
    flags = {"go_backwards": go_backwards, "return_sequences": True, "return_state": True}
    theirs = built(kind, units=H, dtype=dtype, **flags, **settings)
    ours = from_keras(theirs)
    x = X.astype(dtype)
    output, state = ours(x)
    assert output.dtype == dtype
    in_order = output.numpy()[:, :: -1 if go_backwards else 1]
    formula, states = walk(kind, X, [w.astype(float) for w in theirs.get_weights()], go_backwards=go_backwards,
                           **{k: v for k, v in settings.items() if k != "use_bias"})  # fmt: skip
    close = 1e-12 if dtype == "float64" else 2e-6
    assert away(in_order, formula) < close
    for one, other in zip(leaves(state), states):
        assert away(one[0], other) < close
    given, *given_states = of_keras(theirs, x)
    close = 1e-12 if dtype == "float64" and name in FUSED else 2e-6
    assert away(in_order, given) < close
    for one, other in zip(leaves(state), given_states):
        assert away(one[0], other) < close


@pytest.mark.parametrize("name", CELLS)
def test_a_layer_back_and_forth(name):
    kind, settings = CELLS[name]
    theirs = built(kind, units=H, dtype="float64", return_sequences=True, **settings)
    ours = from_keras(theirs)
    back = to_keras(ours)
    assert type(back) is type(theirs)
    for one, other in zip(back.get_weights(), theirs.get_weights(), strict=True):
        assert away(one, other) == 0 or name.startswith("GRU after")  # two biases of a gate become one
    assert away(of_keras(back, X), of_keras(theirs, X)) < 1e-6
    assert away(ours(X)[0], from_keras(back)(X)[0].numpy()) < 1e-14


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_and_rnn_of_it(name):
    kind, settings = CELLS[name]
    cell = getattr(L, f"{kind}Cell")(H, dtype="float64", **settings)
    walked = built(L.RNN(cell, return_sequences=True, dtype="float64"))
    mine = from_keras(cell)
    first, _ = walk(kind, X[:, :1], cell.get_weights(), **{k: v for k, v in settings.items() if k != "use_bias"})
    step = mine(X[:, 0])
    assert away(step[0] if kind == "LSTM" else step, first[:, 0]) < 1e-12
    assert away(from_keras(walked)(X)[0], of_keras(walked, X)) < 2e-6
    back = to_keras(mine)
    assert type(back) is type(cell)
    assert away(from_keras(back)(X[:, 0])[0], mine(X[:, 0])[0].numpy()) < 1e-14


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("name", ["SimpleRNN", "GRU after", "GRU before", "LSTM", "LSTM, varied"])
def test_both_directions(name, sequences):
    kind, settings = CELLS[name]
    theirs = built(L.Bidirectional(getattr(L, kind)(H, return_sequences=sequences, dtype="float64", **settings),
                                   dtype="float64"))  # fmt: skip
    layer = from_keras(theirs)
    ours = layer(X)[0] if sequences else Final(layer)(X)
    assert away(ours, of_keras(theirs, X)) < 2e-6
    back = to_keras(layer if sequences else Final(layer))
    assert away(of_keras(back, X), of_keras(theirs, X)) < 2e-6
    weights = theirs.get_weights()
    half = len(weights) // 2
    ahead, _ = walk(kind, X, weights[:half], **settings)
    behind, _ = walk(kind, X, weights[half:], go_backwards=True, **settings)
    assert away(layer(X)[0], np.concatenate([ahead, behind[:, ::-1]], axis=-1)) < 1e-12


def test_directions_that_differ_are_refused():
    given = L.Bidirectional(L.GRU(H), backward_layer=L.GRU(H, go_backwards=True, reset_after=False))
    with pytest.raises(ConversionError, match=r"directions of Bidirectional '.*' differ in reset"):
        from_keras(built(given))
    swapped = L.Bidirectional(L.GRU(H, go_backwards=True), backward_layer=L.GRU(H))
    with pytest.raises(ConversionError, match="go_backwards"):
        from_keras(built(swapped))
    for merge_mode in ("sum", "mul", "ave", None):
        with pytest.raises(ConversionError, match="merge_mode"):
            from_keras(built(L.Bidirectional(L.GRU(H), merge_mode=merge_mode)))


# -- models ----------------------------------------------------------------------------------------------------------


def tagger(**settings):
    """Several layers of all kinds, an output at every step."""
    return filled(keras.Sequential([
        keras.Input((None,)), L.Embedding(V, I, name="symbols", **settings),
        L.GRU(5, return_sequences=True, go_backwards=True, name="from_the_end", **settings),
        L.Bidirectional(L.LSTM(3, return_sequences=True, **settings), name="both", **settings),
        L.LayerNormalization(epsilon=0.01, name="norm", **settings), L.Dropout(0.3, **settings),
        L.SimpleRNN(8, return_sequences=True, **settings), L.Dense(2, activation="softmax", name="head", **settings),
    ]))  # fmt: skip


def summary(**settings):
    """Two recurrent layers, one output in the end."""
    return filled(keras.Sequential([
        keras.Input((None, I)), L.RNN(L.GRUCell(5, reset_after=False, **settings), return_sequences=True, **settings),
        L.LSTM(H, go_backwards=True, **settings), L.Activation("gelu", **settings),
        L.Dense(3, use_bias=False, **settings),
    ]))  # fmt: skip


def chained():
    """A Functional without branches."""
    start = keras.Input((None, I))
    middle = L.GRU(5, return_sequences=True)(start)
    return filled(keras.Model(start, L.Dense(2, activation="leaky_relu")(L.SimpleRNN(3)(middle))))


MODELS = {"tagger": (tagger, IDS), "summary": (summary, X.astype("float32")), "chained": (chained, X.astype("float32"))}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_and_its_file_and_back(name, tmp_path):
    make, x = MODELS[name]
    theirs = make()
    theirs.save(tmp_path / "theirs.keras")
    wanted = of_keras(theirs, x)
    report, of_file = Report(), Report()
    ours, read = from_keras(theirs, report=report), from_keras(tmp_path / "theirs.keras", report=of_file)
    assert isinstance(ours, Layers) and str(report) == str(of_file)
    assert away(ours(x), wanted) < 1e-6
    assert away(read(x), ours(x).numpy()) == 0
    assert {theirs.layers[-1].name, theirs.layers[-2].name} <= {*ours.layers, *(n.rstrip("_") for n in ours.layers)}
    to_keras(ours, tmp_path / "ours.keras")
    to_keras(ours, tmp_path / "ours.weights.h5")
    loaded = keras.models.load_model(tmp_path / "ours.keras")
    assert away(of_keras(loaded, x), wanted) < 1e-6
    assert away(of_keras(to_keras(ours), x), wanted) < 1e-6
    emptied = filled(loaded)
    emptied.load_weights(tmp_path / "ours.weights.h5")
    assert away(of_keras(emptied, x), wanted) < 1e-6
    names = [each.name for each in loaded.layers]
    assert set(names) >= {each.name for each in theirs.layers if not isinstance(each, L.InputLayer)}


def test_what_went_where_names_what_is_there():
    report = Report()
    ours = from_keras(tagger(), report=report)
    state = ours.state_dict()
    for move in report.moves:
        for target in move.target.split(" and "):
            assert target in state
    back = Report()
    to_keras(ours, report=back)
    assert {m.target for m in back.moves} == {m.source for m in report.moves}


def test_double_precision_is_kept_by_files(tmp_path):
    ours = from_keras(tagger(dtype="float64"))
    to_keras(ours, tmp_path / "m.keras")
    assert away(from_keras(tmp_path / "m.keras")(IDS), ours(IDS).numpy()) == 0
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert {str(w.dtype) for w in loaded.get_weights()} == {"float64"}
    assert away(of_keras(loaded, IDS), ours(IDS).numpy()) < 1e-5
    gru = tg.nn.GRU(I, H, reset="after", dtype=np.float64)
    wanted = gru(X.swapaxes(0, 1))[0].numpy().swapaxes(0, 1)
    assert away(of_keras(to_keras(tg.nn.Sequential(gru)), X), wanted) < 1e-12


def test_a_compiled_and_trained_model_leaves_its_optimizer_behind(tmp_path):
    theirs = summary()
    theirs.compile("adam", "mse")
    theirs.fit(X.astype("float32"), RNG.normal(size=(N, 3)), verbose=0)
    theirs.save(tmp_path / "m.keras")
    assert away(from_keras(tmp_path / "m.keras")(X.astype("float32")), of_keras(theirs, X)) < 1e-6


def test_weights_alone_and_what_is_said_about_them(tmp_path):
    theirs, path = tagger(), tmp_path / "m.weights.h5"
    theirs.save_weights(path)
    unordered = from_keras(path)
    assert unordered.order is None and isinstance(unordered["lstm" if "lstm" in unordered.layers else "gru"], tg.nn.GRU)
    with pytest.raises(OptionError, match="order"):
        unordered(IDS)
    said = {
        "embedding": None, "gru": {"go_backwards": True}, "bidirectional": None,
        "layer_normalization": {"epsilon": 0.01}, "dropout": "Dropout", "simple_rnn": "SimpleRNN",
        "dense": {"activation": "softmax"},
    }  # fmt: skip
    report = Report()
    assert away(from_keras(path, layers=said, report=report)(IDS), of_keras(theirs, IDS)) < 1e-6
    assert any("defaults were assumed" in note for note in report.notes)
    with pytest.raises(OptionError, match="does not name dense, gru"):
        from_keras(path, layers={k: v for k, v in said.items() if k not in ("dense", "gru")})
    with pytest.raises(TinygradError, match="which is not made of 4 blocks"):
        from_keras(path, layers=said | {"gru": "LSTM"})
    with pytest.raises(OptionError, match="bring"):
        from_keras(theirs, layers=said)


@pytest.mark.parametrize("name", CELLS)
def test_the_weights_of_one_layer_alone(name, tmp_path):
    kind, settings = CELLS[name]
    theirs = keras.Sequential([keras.Input((None, I)), getattr(L, kind)(H, **settings)])
    filled(theirs).save_weights(tmp_path / "m.weights.h5")
    stored = {"SimpleRNN": "simple_rnn", "GRU": "gru", "LSTM": "lstm"}[kind]
    ours = from_keras(tmp_path / "m.weights.h5", layers={stored: settings})
    x = X.astype("float32")
    assert away(Final(ours)(x), of_keras(theirs, x)) < 2e-6
    if not settings.keys() - {"reset_after", "use_bias"}:
        assert away(from_keras(tmp_path / "m.weights.h5")(x)[0], ours(x)[0].numpy()) == 0


def test_a_model_in_code_gives_its_weights(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.head = L.GRU(H), L.Dense(2)

        def call(self, x):
            return self.head(self.first(x))

    own, x = Own(), X.astype("float32")
    of_keras(own, x)
    filled(own).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ConversionError, match="code of its author's"):
        from_keras(own)
    ours = from_keras(tmp_path / "m.weights.h5", layers={"first": {"return_sequences": False}, "head": "Dense"})
    assert away(ours(x), of_keras(own, x)) < 1e-6


# -- masks and lengths -----------------------------------------------------------------------------------------------


LENGTHS = np.array([5, 2, 3])
PADDED = np.where(np.arange(T) < LENGTHS[:, None], IDS % (V - 1) + 1, 0)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM", "both ways", "go_backwards"])
def test_masks_become_lengths_if_asked(kind, sequences, tmp_path):
    of_kind = {
        "both ways": lambda: L.Bidirectional(L.GRU(H, return_sequences=sequences)),
        "go_backwards": lambda: L.LSTM(H, return_sequences=sequences, go_backwards=True),
    }
    walker = of_kind[kind]() if kind in of_kind else getattr(L, kind)(H, return_sequences=sequences)
    theirs = filled(keras.Sequential([keras.Input((None,)), L.Embedding(V, I, mask_zero=True), walker, L.Dense(2)]))
    theirs.save(tmp_path / "m.keras")
    for source in (theirs, tmp_path / "m.keras"):
        with pytest.raises(ConversionError, match=r"Embedding 'embedding.*lengths="):
            from_keras(source)
        report = Report()
        ours = from_keras(source, masks="lengths", report=report)
        assert any("give lengths=" in note for note in report.notes)
        found, wanted = ours(PADDED, lengths=LENGTHS).numpy(), of_keras(theirs, PADDED)
        valid = np.arange(T)[:: -1 if kind == "go_backwards" else 1] < LENGTHS[:, None]
        assert away(found[valid] if sequences else found, wanted[valid] if sequences else wanted) < 1e-6
        assert away(ours(PADDED), found) > 1e-3


@pytest.mark.parametrize("kind", ["Embedding", "Masking"])
def test_masks_of_a_functional(kind, tmp_path):
    start = keras.Input((None,) if kind == "Embedding" else (None, I))
    masked = L.Embedding(V, I, mask_zero=True)(start) if kind == "Embedding" else L.Masking()(start)
    theirs = filled(keras.Model(start, L.Dense(2)(L.LSTM(3)(L.GRU(H, return_sequences=True)(masked)))))
    theirs.save(tmp_path / "m.keras")
    x = PADDED if kind == "Embedding" else np.where(PADDED[..., None] > 0, X, 0).astype("float32")
    for source in (theirs, tmp_path / "m.keras"):
        with pytest.raises(ConversionError, match=r'NotEqual.*masks="lengths"'):
            from_keras(source)
        assert away(from_keras(source, masks="lengths")(x, lengths=LENGTHS), of_keras(theirs, x)) < 1e-6


def test_a_masking_layer():
    theirs = filled(keras.Sequential([keras.Input((None, I)), L.Masking(9.0), L.GRU(H), L.Dense(2)]))
    x = np.where(np.arange(T)[None, :, None] < LENGTHS[:, None, None], X, 9.0).astype("float32")
    with pytest.raises(ConversionError, match="Masking"):
        from_keras(theirs)
    assert away(from_keras(theirs, masks="lengths")(x, lengths=LENGTHS), of_keras(theirs, x)) < 1e-6


# -- from here to Keras ----------------------------------------------------------------------------------------------


HARD = (activation("HardSigmoid", 1 / 6, 0.5), activation("Relu"))
OURS = {
    "RNN": lambda **o: tg.nn.RNN(I, H, **o),
    "RNN, relu": lambda **o: tg.nn.RNN(I, H, activation="relu", **o),
    "MinimalGRU": lambda **o: tg.nn.MinimalGRU(I, H, **o),
    "GRU before, new": lambda **o: tg.nn.GRU(I, H, **o),
    "GRU before, old, no bias": lambda **o: tg.nn.GRU(I, H, update="old", bias=False, **o),
    "GRU after, new": lambda **o: tg.nn.GRU(I, H, reset="after", recurrent_bias=True, **o),
    "GRU after, only c": lambda **o: tg.nn.GRU(I, H, reset="after", recurrent_bias=True, bias=False, **o),
    "GRU, hard sigmoid": lambda **o: VariedGRU(I, H, activations=HARD, **o),
    "LSTM": lambda **o: tg.nn.LSTM(I, H, **o),
}
STACKS = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "both ways": {"bidirectional": True},
    "two layers both ways": {"num_layers": 2, "bidirectional": True},
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", OURS)
def test_a_layer_of_ours(name, stack, tmp_path):
    ours = with_numbers(OURS[name](batch_first=True, dtype=np.float64, **STACKS[stack]))
    wanted = ours(X)[0].numpy()
    assert away(of_keras(to_keras(ours), X), wanted) < 3e-6
    assert away(of_keras(to_keras(Final(ours)), X), Final(ours)(X).numpy()) < 3e-6
    to_keras(ours, tmp_path / "m.keras")
    assert away(of_keras(keras.models.load_model(tmp_path / "m.keras"), X), wanted) < 3e-6
    again = from_keras(tmp_path / "m.keras")
    found = again(X)
    assert away(found if isinstance(again, Layers) else found[0], wanted) < 1e-12


@pytest.mark.parametrize("layers", [1, 2])
def test_a_reverse_layer_gives_its_outputs_in_walking_order(layers):
    report, ours = Report(), with_numbers(tg.nn.LSTM(I, H, layers, reverse=True, batch_first=True))
    theirs = to_keras(ours, report=report)
    x = X.astype("float32")
    assert away(of_keras(theirs, x)[:, ::-1], ours(x)[0].numpy()) < 1e-6
    assert any("walking order" in note for note in report.notes)
    with pytest.raises(ConversionError, match="walking order"):
        to_keras(Layers({"a": ours, "b": tg.nn.Linear(H, 2)}, "ab"))
    positive = Layers({"a": Final(ours), "b": tg.relu}, "ab")
    assert away(of_keras(to_keras(positive), x), positive(x).numpy()) < 1e-6


def test_time_first_is_noted_and_a_language_model_goes():
    report, model = Report(), with_numbers(LanguageModel(V, I, H, 2, dropout=0.2).eval())
    theirs = to_keras(model, report=report)
    assert away(of_keras(theirs, IDS), model(IDS.T)[0].numpy().transpose(1, 0, 2)) < 1e-6
    assert any("(N, T, I)" in note for note in report.notes)
    assert [type(each).__name__ for each in theirs.layers] == ["Embedding", "GRU", "Dropout", "GRU", "Dense"]


class Own(tg.nn.Linear):
    """A layer that computes something of its own."""

    def forward(self, x):
        return super().forward(x) + 1


def test_what_keras_cannot_compute_is_refused():
    refused = {
        "clip": VariedGRU(I, H, clip=1.0),
        "peepholes": VariedLSTM(I, H, peepholes=True),
        "input_forget": VariedLSTM(I, H, input_forget=True),
        "alpha": VariedRNN(I, H, activations=(activation("LeakyRelu", 0.3),)),
        "opposite directions": VariedGRU(I, H, activations=(activation("Elu"), activation("Tanh"))),
        "goes out": VariedLSTM(I, H, activations=tuple(map(activation, ("Sigmoid", "Tanh", "Relu")))),
        "sin": tg.nn.Sequential(tg.nn.Linear(3, 2), tg.sin),
        "Own": Own(3, 2),
        "order of time": Layers({"a": tg.nn.GRU(I, H, batch_first=True), "b": walking_order}, "ab"),
        "in which order": Layers({"a": tg.nn.Linear(3, 2)}),
    }
    for words, module in refused.items():
        with pytest.raises(ConversionError, match=words):
            to_keras(module)
    with pytest.raises(OptionError, match=r"\.keras nor \.weights\.h5"):
        to_keras(tg.nn.GRU(I, H), "model.h5")


# -- what does not come along ----------------------------------------------------------------------------------------


def test_settings_without_effect_here_are_noted():
    report = Report()
    theirs = built("GRU", units=H, dropout=0.1, recurrent_dropout=0.2, stateful=False, unroll=True, seed=4,
                   kernel_regularizer="l2", bias_constraint="non_neg", recurrent_initializer="zeros")  # fmt: skip
    from_keras(theirs, report=report)
    notes = "\n".join(report.notes)
    for name in ("dropout", "recurrent_dropout", "kernel_regularizer", "bias_constraint", "return_sequences"):
        assert f" {name}" in notes
    theirs.trainable = False
    assert not from_keras(theirs, report=report).parameters()
    stateful = L.GRU(H, stateful=True)
    stateful.build((N, T, I))
    from_keras(filled(stateful), report=report)
    assert any("stateful" in note for note in report.notes)


def _shared():
    start, layer = keras.Input((None, I)), L.GRU(I, return_sequences=True)
    return keras.Model(start, layer(layer(start)))


def branched():
    start = keras.Input((None, I))
    return keras.Model(start, L.Concatenate()([L.GRU(H)(start), L.LSTM(H)(start)]))


REFUSED = {
    "Lambda": lambda: keras.Sequential([keras.Input((None, I)), L.Lambda(abs), L.GRU(H)]),
    "TimeDistributed": lambda: keras.Sequential([keras.Input((None, I)), L.TimeDistributed(L.Dense(2)), L.GRU(H)]),
    "gelu": lambda: built("GRU", units=H, activation="gelu"),
    "StackedRNNCells": lambda: built(L.RNN([L.GRUCell(H), L.GRUCell(2)])),
    "axis": lambda: keras.Sequential([keras.Input((T, I)), L.LayerNormalization(axis=1), L.GRU(H)]),
    "noise_shape": lambda: built("Dropout", rate=0.1, noise_shape=(1, 1, I)),
    "return_state": lambda: keras.Sequential([keras.Input((None, I)), L.GRU(H, return_state=True)]),
    "Concatenate": branched,
    "one output": lambda: keras.Model(start := keras.Input((None, I)), [L.GRU(H)(start), L.LSTM(H)(start)]),
    "Multiply|NotEqual|between its layers": lambda: keras.Model(start := keras.Input((None, I)), L.GRU(H)(start * 2)),
    "one call with one input": _shared,
    "no weights yet": lambda: L.GRU(H),
    "quantization_config|QuantizedDTypePolicy|is unexpected": lambda: _quantized(),
}


def _quantized():
    dense = built("Dense", units=2)
    dense.quantize("int8")
    return dense


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_not_here_is_refused_by_name(words):
    with pytest.raises((ConversionError, OptionError), match=words):
        model = REFUSED[words]()
        chain = model if not isinstance(model, keras.Sequential) or len(model.layers) > 1 else (
            keras.Sequential([keras.Input((None, I)), L.Dense(I), *model.layers]))  # fmt: skip
        from_keras(chain)


def test_weights_of_other_sizes_than_the_settings_say(tmp_path):
    theirs = keras.Sequential([keras.Input((None, I)), L.GRU(H)])
    config = keras.saving.serialize_keras_object(theirs)
    config["config"]["layers"][1]["config"]["units"] = H + 1
    weights = {"gru": {f"cell/vars/{i}": w for i, w in enumerate(theirs.get_weights())}}
    (tmp_path / "m.keras").write_bytes(keras_files.keras_file(config, weights))
    with pytest.raises(ConversionError, match="units=7; its weights have 6"):
        from_keras(tmp_path / "m.keras")
    weights["gru"]["cell/vars/2"] = weights["gru"]["cell/vars/2"][:1]
    (tmp_path / "m.keras").write_bytes(keras_files.keras_file(config, weights))
    with pytest.raises(ShapeError, match="bias"):
        from_keras(tmp_path / "m.keras")


# -- checks of the checks --------------------------------------------------------------------------------------------


MUTANTS = {name: (packing, *change) for name, change in READINGS.items()} | {
    "activations exchanged": (keras_layers, "_activations", "GRUCell: (f, g)", "GRUCell: (g, f)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_reading_is_caught(name, monkeypatch):
    mutated(monkeypatch, *MUTANTS[name])
    with pytest.raises((AssertionError, TinygradError)):
        for cell in CELLS:
            test_a_layer(cell, False, "float64")


BACK = {
    "the update gate not turned": (packing, "_turned", "-each[\"z\"]", "each[\"z\"]"),
    "the reset gate of the simplified GRU half open": (packing, "_turned", "OPEN", "0.0"),
    "gates in another order": (packing, "arrays_of", "for gate in slot.gates]", "for gate in slot.gates[::-1]]"),
}  # fmt: skip


@pytest.mark.parametrize("name", BACK)
def test_a_wrong_writing_is_caught(name, monkeypatch, tmp_path):
    mutated(monkeypatch, *BACK[name])
    with pytest.raises(AssertionError):
        for layer in OURS:
            test_a_layer_of_ours(layer, "one layer", tmp_path)


def test_names_that_keras_does_not_take_are_changed(tmp_path):
    layers = {"encoder.gru": tg.nn.GRU(I, H, reset="after", batch_first=True), "encoder/head": tg.nn.Linear(H, V)}
    to_keras(Layers(layers, layers), tmp_path / "m.keras")
    theirs = keras.models.load_model(tmp_path / "m.keras")
    assert [each.name for each in theirs.layers] == ["encoder_gru", "encoder_head"]


def test_what_is_frozen_stays_so(tmp_path):
    theirs = summary()
    theirs.layers[1].trainable = False
    theirs.save(tmp_path / "theirs.keras")
    for source in (theirs, tmp_path / "theirs.keras"):
        ours = from_keras(source)
        assert [bool(ours[each.name].parameters()) for each in theirs.layers if each.weights] == [True, False, True]
    to_keras(ours, tmp_path / "ours.keras")
    for back in (to_keras(ours), keras.models.load_model(tmp_path / "ours.keras")):
        assert [bool(each.trainable_weights) for each in back.layers if each.weights] == [True, False, True]


def test_both_directions_are_frozen_or_one_of_them():
    theirs = L.Bidirectional(L.LSTM(H, return_sequences=True))
    theirs.build((N, T, I))
    filled(theirs).trainable = False
    assert not from_keras(theirs).parameters()
    ours = tg.nn.LSTM(I, H, bidirectional=True, batch_first=True)
    for parameter in ours.cells[1].parameters():
        parameter.requires_grad = False
    back = to_keras(ours)
    assert [bool(each.trainable_weights) for each in (back.forward_layer, back.backward_layer)] == [True, False]
    assert len(from_keras(back).parameters()) == 3


def test_a_weight_that_is_frozen_alone_is_named():
    head, report = tg.nn.Linear(I, H), Report()
    head.b.requires_grad = False
    assert to_keras(head, report=report).trainable
    assert "linear has b frozen here; Keras freezes layers as a whole" in str(report)
