"""Writes a small model of Keras as Keras saves it, and what Keras and the formulas compute with it. Needs Keras.

KERAS_BACKEND=torch python tests/golden/make_keras.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers as L

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden.keras_loops import walk
from golden.loops import filled

HERE = Path(__file__).parent
V, T, N = 6, 4, 3


def main() -> None:
    """The model, its weights, some symbols, and the numbers that come out."""
    model = keras.Sequential([
        keras.Input((None,)), L.Embedding(V, 3, name="symbols"), L.GRU(5, name="summary"),
        L.Dense(2, activation="softmax"),
    ])  # fmt: skip
    model.set_weights([filled(f"keras{i}", *w.shape).astype(w.dtype) for i, w in enumerate(model.get_weights())])
    ids = np.random.default_rng(0).integers(0, V, (N, T))
    output = model.predict(ids, verbose=0)
    E, *rest = [w.astype(np.float64) for w in model.get_weights()]
    _, (h,) = walk("GRU", E[ids], rest[:3])
    scores = np.exp(h @ rest[3] + rest[4])
    formula = scores / scores.sum(axis=-1, keepdims=True)
    assert np.abs(formula - output).max() < 1e-6
    model.save(HERE / "keras_model.keras")
    model.save_weights(HERE / "keras_model.weights.h5")
    found = {"keras": keras.__version__, "ids": ids.tolist(), "formula": formula.tolist(), "output": output.tolist()}
    (HERE / "keras_model.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
