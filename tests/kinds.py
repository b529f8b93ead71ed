"""The recurrent layers by name, with every option that changes what they compute."""

from __future__ import annotations

from typing import Any

from tinygrad_rnn import nn

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn tanh": (nn.RNN, {}),
    "rnn relu": (nn.RNN, {"activation": "relu"}),
    "minimal": (nn.MinimalGRU, {}),
    "gru before new": (nn.GRU, {}),
    "gru before old": (nn.GRU, {"update": "old"}),
    "gru after new": (nn.GRU, {"reset": "after"}),
    "gru after old": (nn.GRU, {"reset": "after", "update": "old"}),
    "gru after new, c": (nn.GRU, {"reset": "after", "recurrent_bias": True}),
    "gru after old, c": (nn.GRU, {"reset": "after", "update": "old", "recurrent_bias": True}),
    "lstm": (nn.LSTM, {}),
}
