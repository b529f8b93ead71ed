"""Modules: finding, naming, saving, loading, moving and copying what they hold."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from golden.loops import filled

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.errors import BackendUnavailable, CheckpointError, ModifiedError


class Inner(nn.Module):
    def __init__(self, seed):
        self.scale = tg.tensor(filled(f"scale {seed}", 3), requires_grad=True)
        self.count = tg.tensor([2.0, 5.0])
        self._private = tg.tensor([1.0], requires_grad=True)

    def forward(self, x):
        return x * self.scale


class Outer(nn.Module):
    def __init__(self):
        self.last = tg.tensor(filled("last", 3), requires_grad=True)
        self.parts = [Inner(1), Inner(2)]
        self.table = {"left": Inner(3), "pair": (tg.tensor([7.0], requires_grad=True), tg.tanh)}
        self.first = Inner(4)
        self.again = self.parts[0]
        self.tied = self.first.scale

    def forward(self, x):
        for part in [*self.parts, self.table["left"], self.first, self.again]:
            x = part(x)
        return x * self.last * self.tied


PARAMETERS = ["last", "parts.0.scale", "parts.1.scale", "table.left.scale", "table.pair.0", "first.scale"]
STATE = ["last", "parts.0.scale", "parts.0.count", "parts.1.scale", "parts.1.count", "table.left.scale",
         "table.left.count", "table.pair.0", "first.scale", "first.count"]  # fmt: skip


def test_order_of_definition_lists_and_sharing():
    model = Outer()
    assert [name for name, _ in model.named_parameters()] == PARAMETERS
    assert model.parameters()[1] is model.parts[0].scale
    assert list(model.state_dict()) == STATE
    assert [name for name, _ in model.named_modules()] == ["", "parts.0", "parts.1", "table.left", "first"]


def test_tensors_are_named_after_their_paths():
    model = Outer()
    assert [tensor.name for tensor in model.parameters()] == PARAMETERS
    assert model.first.count.name == "first.count"

    class Late(nn.Module):
        def __init__(self):
            self.stack = []
            for seed in range(2):
                self.stack.append(Inner(seed))

        def forward(self, x):
            return self.stack[1](self.stack[0](x))

    late = Late()
    y = late(tg.ones(3))
    assert [tensor.name for tensor in late.parameters()] == ["stack.0.scale", "stack.1.scale"]
    assert y.scope.path == "late.stack.1"


def test_scopes_follow_the_attributes(backend):
    model = Outer()
    with tg.scope("outside", "Test"):
        y = model(tg.ones(3))
    paths = [node.scope.path for node in reversed(tg.tape(y)) if node.op]
    inner = ["parts.0", "parts.1", "table.left", "first", "parts.0"]
    assert paths == [f"outside.outer.{name}" for name in inner] + ["outside.outer"] * 2
    kinds = [node.scope.kind for node in reversed(tg.tape(y)) if node.op]
    assert kinds == ["Inner"] * 5 + ["Outer"] * 2
    one, two = [node.scope for node in tg.tape(y) if node.op and node.scope.name == "parts.0"]
    assert one is not two
    assert Inner(1)(tg.ones(3)).scope.path == "inner"


def test_a_frozen_parameter_stays_in_the_state():
    model = Outer()
    model.first.scale.requires_grad = False
    assert [name for name, _ in model.named_parameters()] == PARAMETERS[:-1]
    assert list(model.state_dict()) == STATE


def test_results_of_operations_are_no_state():
    model = Inner(1)
    model.carried = model(tg.ones(3))
    assert list(model.state_dict()) == ["scale", "count"]
    assert model.carried.name is None


def test_state_there_and_back(backend):
    model, other = Outer(), Outer()
    for tensor in other.parameters():
        tensor.assign_(tensor.numpy() * 0 - 4)
    saved = model.state_dict()
    kept = {name: value.numpy().copy() for name, value in saved.items()}
    for tensor in model.parameters():
        tensor.assign_(tensor.numpy() + 1)
    assert all((saved[name].numpy() == kept[name]).all() for name in kept)  # a snapshot, not a view of the future
    assert not any(value.requires_grad for value in saved.values())
    assert other.load_state_dict(saved) == ([], [])
    assert other.first.scale is other.tied
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), kept[name])


def test_what_does_not_fit_is_named_and_nothing_changes():
    model = Outer()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    state = {name: np.zeros(value.shape, value.dtype) for name, value in before.items()}
    del state["parts.1.scale"]
    state["stranger"] = np.zeros(3)
    state["last"] = np.zeros((3, 1))
    state["first.scale"] = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError) as caught:
        model.load_state_dict(state)
    for words in (
        "does not fit Outer",
        "parts.1.scale is missing",
        "stranger is unexpected",
        "last has shape (3, 1), and (3,) is needed",
        "first.scale is float32, and float64 is needed",
    ):
        assert words in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        model.load_state_dict(state, strict=False)
    assert "missing" not in str(caught.value) and "first.scale" in str(caught.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    state["last"], state["first.scale"] = np.full(3, 9.0), np.full(3, 8.0)
    assert model.load_state_dict(state, strict=False) == (["parts.1.scale"], ["stranger"])
    assert (model.last.numpy() == 9).all()
    np.testing.assert_array_equal(model.parts[1].scale.numpy(), before["parts.1.scale"])


def test_gradients_are_forgotten(backend):
    model = Outer()
    model(tg.ones(3)).sum().backward()
    assert model.last.grad is not None and model.parts[0].scale.grad is not None
    model.zero_grad()
    assert [tensor.grad for tensor in model.parameters()] == [None] * len(PARAMETERS)


def test_training_reaches_everything_inside():
    model = nn.Sequential(nn.Linear(2, 3), nn.GRU(3, 4, 2, dropout=0.5))
    assert model.training and model[1].drop.training
    assert model.eval() is model
    assert not any(module.training for _, module in model.named_modules())
    assert model.train() is model
    assert all(module.training for _, module in model.named_modules())


def test_moving_keeps_the_objects(gpu):
    with tg.use_backend("numpy"):
        model = Outer()
    model(tg.ones(3, backend="numpy")).sum().backward()
    before = model.parameters()
    values = [tensor.numpy().copy() for tensor in before]
    old = model(tg.ones(3, backend="numpy")).sum()
    assert model.to(gpu) is model
    after = model.parameters()
    assert all(one is other for one, other in zip(before, after))
    for tensor, value in zip(after, values):
        assert tensor.backend == gpu
        np.testing.assert_array_equal(tensor.numpy(), value)
        assert tensor.grad is None or tensor.grad.backend == gpu
    assert model.last.grad is not None
    model(tg.ones(3)).sum().backward()
    with pytest.raises(ModifiedError):
        old.backward()
    with pytest.raises(BackendUnavailable):
        model.to("abacus")
    assert model.to("numpy").last.backend == "numpy"


def test_copies_are_independent_and_keep_what_is_shared():
    model = Outer()
    model(tg.ones(3)).sum().backward()
    other = copy.deepcopy(model)
    assert other.first.scale is other.tied and other.again is other.parts[0]
    assert other.first.scale is not model.first.scale
    assert [tensor.name for tensor in other.parameters()] == PARAMETERS
    np.testing.assert_array_equal(other.last.grad.numpy(), model.last.grad.numpy())
    kept = model.last.numpy().copy()
    other.last.assign_([0.0, 0.0, 0.0])
    np.testing.assert_array_equal(model.last.numpy(), kept)
    layer = nn.LSTM(2, 3, 2, dtype=np.float64)
    x = tg.tensor(filled("x", 5, 4, 2))
    np.testing.assert_array_equal(copy.deepcopy(layer)(x)[0].numpy(), layer(x)[0].numpy())


def test_a_readable_representation():
    lines = repr(nn.GRU(4, 5, bidirectional=True)).splitlines()
    assert lines[0] == (
        "GRU(input_size=4, hidden_size=5, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=True, "
        "reverse=False, fused=True, mode='auto', init='uniform', reset='before', update='new', recurrent_bias=False)"
    )
    assert lines[1:4] == ["  cells.0.W  (4, 15)", "  cells.0.U  (5, 15)", "  cells.0.b  (15,)"]
    assert lines[-1] == "  300 parameters"
    assert "count  (2,)  not learned" in repr(Inner(1))
    assert repr(nn.Dropout(0.25)) == "Dropout(p=0.25)"


def test_a_module_without_forward_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty is a Module without a forward"):
        Empty()(3)
