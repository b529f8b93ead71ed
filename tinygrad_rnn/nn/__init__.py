"""Cells, layers and losses; `equations` holds the mathematics of the cells as pure functions."""

from . import equations, initializers
from .cells import Cell, GRUCell, LSTMCell, MinimalGRUCell, RNNCell, flipped
from .comparison import compare
from .layers import Dropout, Embedding, LayerNorm, Linear, Sequential
from .losses import binary_cross_entropy_with_logits, cross_entropy, huber, mse, nll_loss
from .module import Module
from .recurrent import GRU, LSTM, RNN, MinimalGRU, Recurrent

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "Dropout",
    "Embedding",
    "GRUCell",
    "LSTMCell",
    "LayerNorm",
    "Linear",
    "MinimalGRU",
    "MinimalGRUCell",
    "Module",
    "RNNCell",
    "Recurrent",
    "Sequential",
    "binary_cross_entropy_with_logits",
    "compare",
    "cross_entropy",
    "equations",
    "flipped",
    "huber",
    "initializers",
    "mse",
    "nll_loss",
]
