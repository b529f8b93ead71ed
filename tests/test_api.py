"""The public names: each is there with its parameters, and Tensor has what editors and type checkers are told."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.core.primitive import PRIMITIVES

# a name and its parameters; a star separates those that are given by name
SIGNATURES = """
tensor(data, *, dtype, requires_grad, backend, name)
zeros(shape, *, dtype, **keywords)  ones(shape, *, dtype, **keywords)  full(shape, fill_value, *, dtype, **keywords)
arange(start, stop, step, *, dtype, **keywords)  eye(n, *, dtype, **keywords)
randn(*shape, rng, dtype, **keywords)  rand(*shape, rng, dtype, **keywords)
neg(x)  abs(x)  exp(x)  log(x)  log1p(x)  expm1(x)  sqrt(x)  square(x)  reciprocal(x)  sin(x)  cos(x)  tan(x)
arcsin(x)  arccos(x)  arctan(x)  sinh(x)  cosh(x)  tanh(x)  sigmoid(x)  relu(x)  leaky_relu(x, *, slope)
elu(x, *, alpha)
softplus(x)  gelu(x)  silu(x)  erf(x)  sign(x)  floor(x)
add(a, b)  sub(a, b)  mul(a, b)  div(a, b)  power(a, b)  maximum(a, b)  minimum(a, b)  clip(x, *, min, max)
where(condition, a, b)
equal(a, b)  not_equal(a, b)  less(a, b)  less_equal(a, b)  greater(a, b)  greater_equal(a, b)  logical_not(x)
sum(x, *, axis, keepdims)  mean(x, *, axis, keepdims)  max(x, *, axis, keepdims)  min(x, *, axis, keepdims)
prod(x, axis, keepdims)
var(x, axis, keepdims, correction)  std(x, *, axis, keepdims, correction)  logsumexp(x, *, axis, keepdims)
norm(x, *, ord, axis, keepdims)
softmax(x, *, axis)  log_softmax(x, *, axis)  cumsum(x, *, axis)  argmax(x, *, axis, keepdims)
argmin(x, *, axis, keepdims)
matmul(a, b)  dot(a, b)  outer(a, b)  einsum(subscripts, *operands)
transpose(x, *, axes)  swapaxes(x, *, axis1, axis2)  moveaxis(x, *, source, destination)  reshape(x, *, shape)
ravel(x)
expand_dims(x, *, axis)  squeeze(x, *, axis)  broadcast_to(x, *, shape)  concatenate(*arrays, axis)
stack(*arrays, axis)
split(x, indices_or_sections, axis)  unstack(x, axis)  flip(x, *, axis)  roll(x, *, shift, axis)
pad(x, *, pad_width, mode, constant_values)
tile(x, reps)  repeat(x, repeats, axis)  tril(x, *, k)  triu(x, *, k)  diagonal(x, offset, axis1, axis2)
take(x, indices, axis)  take_along_axis(x, indices, axis)  astype(x, *, dtype)
no_grad()  enable_grad()  debug()  scope(name, kind, *, step)  checkpoint(f, *xs)
primitive(kind, *, analytic, domain, latex, reference, vjp, sparse, **rules)
tape(*results)  pullback(y, wrt, grad, create_graph)  grad(f, argnums)  value_and_grad(f, argnums)  vjp(f, *xs)
jvp(f, xs, ts)
jacobian(f, argnums)  hessian(f, argnums)  hvp(f, x, v)  gradcheck(f, *xs, order, tolerance)
backends()  use_backend(name)  seed(n)
Tensor.numpy()  Tensor.item()  Tensor.tolist()  Tensor.detach()  Tensor.to(backend)  Tensor.astype(*, dtype)
Tensor.assign_(value)
Tensor.backward(grad, retain_graph)  Tensor.retain_grad()  Tensor.register_hook(hook)
draw(y, *, title, direction, depth, collapse, steps, roll, expand, values, grads, grad, legend, engine, timeout,
     max_nodes)
explain(x, of, index, *, grad, expand)
play(y, path, *, title, expand, grad, engine, timeout, max_nodes)
trace_table(y, *, wrt, tangents, grad, index, title, expand, max_rows)
nn.Module()  nn.Module.parameters()  nn.Module.named_parameters()  nn.Module.state_dict()
nn.Module.load_state_dict(state, strict)  nn.Module.train(training)  nn.Module.eval()  nn.Module.to(backend)
nn.Module.zero_grad()
nn.Linear(input_size, output_size, *, bias, init, dtype, rng)  nn.Embedding(symbols, size, *, init, dtype, rng)
nn.Dropout(p)  nn.LayerNorm(size, *, eps, dtype)  nn.Sequential(*layers)
nn.Cell(input_size, hidden_size, *, bias, init, dtype, rng)
nn.RNNCell(input_size, hidden_size, *, bias, init, dtype, rng, activation)
nn.MinimalGRUCell(input_size, hidden_size, *, bias, init, dtype, rng)
nn.GRUCell(input_size, hidden_size, *, bias, init, dtype, rng, reset, update, recurrent_bias)
nn.LSTMCell(input_size, hidden_size, *, bias, init, dtype, rng, forget_bias)
nn.Recurrent(input_size, hidden_size, num_layers, *, bias, batch_first, dropout, bidirectional, reverse, fused,
     checkpoint, mode, init, dtype, rng)
nn.RNN(input_size, hidden_size, num_layers, *, bias, batch_first, dropout, bidirectional, reverse, fused,
     checkpoint, mode, init, dtype, rng, activation)
nn.MinimalGRU(input_size, hidden_size, num_layers, *, bias, batch_first, dropout, bidirectional, reverse, fused,
     checkpoint, mode, init, dtype, rng)
nn.GRU(input_size, hidden_size, num_layers, *, bias, batch_first, dropout, bidirectional, reverse, fused,
     checkpoint, mode, init, dtype, rng, reset, update, recurrent_bias)
nn.LSTM(input_size, hidden_size, num_layers, *, bias, batch_first, dropout, bidirectional, reverse, fused,
     checkpoint, mode, init, dtype, rng, forget_bias)
nn.GRUCell.forward(x, h)  nn.LSTMCell.forward(x, h)
nn.GRU.forward(x, h_0, lengths)  nn.LSTM.forward(x, h_0, lengths, *, c_0)
nn.cross_entropy(logits, targets, ignore_index, reduction)
nn.nll_loss(log_probabilities, targets, ignore_index, reduction)
nn.mse(prediction, target, reduction)  nn.huber(prediction, target, reduction, *, delta)
nn.binary_cross_entropy_with_logits(logits, targets, reduction)  nn.compare(*models)  nn.flipped(module)
optim.Optimizer(parameters, slots, **options)  optim.Optimizer.step()  optim.Optimizer.zero_grad()
optim.Optimizer.state_dict()  optim.Optimizer.load_state_dict(state)
optim.SGD(parameters, lr, *, momentum, dampening, weight_decay, nesterov)
optim.Adam(parameters, lr, *, betas, eps, weight_decay)  optim.AdamW(parameters, lr, *, betas, eps, weight_decay)
optim.RMSprop(parameters, lr, *, alpha, eps, weight_decay, momentum, centered)
optim.Adagrad(parameters, lr, *, lr_decay, weight_decay, initial_accumulator_value, eps)
optim.clip_grad_norm_(parameters, max_norm, norm_type)  optim.clip_grad_value_(parameters, clip_value)
optim.Schedule(optimizer)  optim.Schedule.step(loss)  optim.Schedule.lr_at(count)
optim.StepLR(optimizer, step_size, *, gamma)  optim.ExponentialLR(optimizer, gamma)
optim.CosineLR(optimizer, steps, *, lr_min)  optim.WarmupLR(optimizer, steps, *, start_factor, then)
optim.ReduceLROnPlateau(optimizer, mode, *, factor, patience, threshold, threshold_mode, cooldown, lr_min)
lab.order(y, grad, *, expand, limit)  lab.mutant(function, old, new)  lab.bug(name)  lab.bugs()  lab.symptom(name)
lab.drill(f, *xs, expand)  lab.drill_of(where, *, beside, expand)
lab.Drill(y, origin)  lab.Drill.solution()  lab.Drill.check(answers)  lab.Drill.hint(name, level)
lab.Drill.rule(variable, argument, g)  lab.Drill.save(path)
lab.Mutant(function, edits, name)  lab.Order(visited, leaves, edges, ran)  lab.Verdict(name, kind, words)
lab.Verdicts(title, verdicts)  lab.Symptom(bug, diff, right, wrong, gradcheck, fused, picture)
lab.Bug(name, changed, function, edits, look, noticed, compute, inputs)
interop.Final(layer)  interop.Layers(layers, order, *, left_out)  interop.Report()
interop.OnnxModel(graph, layers, report)
interop.as_layers(model)  interop.compared(source, target, module, *, names)
interop.convert(source, target, *, layers, names, reading, writing, proof)
interop.from_arrays(library, cell, arrays, *, reset, **settings)
interop.from_cudnn(vector, kind, input_size, hidden_size, num_layers, *, bidirectional, **settings)
interop.from_keras(source, *, layers, masks, report)  interop.from_onnx(source, *, alone, report)
interop.from_torch(source, *, layers, report, **settings)  interop.load(path, into, *, strict, layers, report)
interop.read(path)
interop.save(module, path, *, metadata)  interop.save_arrays(arrays, path, *, metadata)
interop.to_arrays(cell, library)  interop.to_cudnn(layer)
interop.to_keras(module, path, *, report)
interop.to_onnx(model, path, inputs, *, dynamic, outputs, states, lengths, nodes, opset, report)
interop.to_torch(module, *, report)  interop.torch_state(module, *, report)
"""
ATTRIBUTES = "shape ndim size dtype backend requires_grad grad name T op inputs options age scope source"
# NumPy's functions of these names take our parameters in the same order, as far as both have them
AS_NUMPY = "sum mean max min prod var cumsum argmax argmin take repeat swapaxes squeeze ravel diagonal clip std dot"


def shown(parameters: list[inspect.Parameter]) -> str:
    """The names of parameters in the notation above."""
    words, keyword_only = [], False
    for p in parameters:
        keyword_only = keyword_only or p.kind == p.VAR_POSITIONAL
        if p.kind == p.KEYWORD_ONLY and not keyword_only:
            words.append("*")
            keyword_only = True
        words.append({p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name)
    return ", ".join(words)


ENTRIES = [entry.strip() + ")" for entry in SIGNATURES.replace("\n", " ").split(")") if entry.strip()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_name_is_there_with_these_parameters(entry: str) -> None:
    name, _, parameters = entry.rstrip(")").partition("(")
    found: Any = tg
    for part in name.split("."):
        owner, found = found, getattr(found, part)
    actual = list(inspect.signature(found).parameters.values())
    assert shown(actual[1:] if isinstance(owner, type) else actual) == " ".join(parameters.split())
    assert found.__doc__, f"{name} has no docstring"


def test_layers_start_with_the_promised_values() -> None:
    given = {name: p.default for name, p in inspect.signature(tg.nn.GRU).parameters.items() if p.default is not p.empty}
    assert given == {
        "num_layers": 1, "bias": True, "reset": "before", "update": "new", "batch_first": False, "dropout": 0.0,
        "bidirectional": False, "reverse": False, "recurrent_bias": False, "fused": True, "checkpoint": None,
        "mode": "auto", "init": "uniform", "dtype": np.float32, "rng": None,
    }  # fmt: skip


def test_attributes_of_tensors() -> None:
    x = tg.tensor([1.0], requires_grad=True)
    for name in ATTRIBUTES.split():
        assert hasattr(x, name) and hasattr((x * 2).detach(), name)


def test_the_list_is_complete() -> None:
    """Whatever else is public is in the list, or a module, a class or another thing of a listed kind."""
    listed = {entry.partition("(")[0] for entry in ENTRIES}
    public = {name: value for name, value in vars(tg).items() if not name.startswith("_")}
    primitives = {op.function for op in PRIMITIVES.values()}  # each has its line in samples.py
    others = {
        name for name, value in public.items()
        if name not in listed and not isinstance(value, (types.ModuleType, type))
        and value.__module__.startswith("tinygrad_rnn.") and value not in primitives
        and not value.__module__.startswith(("tinygrad_rnn.see", "tinygrad_rnn.nn", "tinygrad_rnn.optim"))
    }  # fmt: skip
    assert not others, "these names are public; say in SIGNATURES what they promise"
    for room in (tg.nn, tg.optim, tg.interop, tg.lab):
        names = {name for name in room.__all__ if callable(getattr(room, name))}
        assert {f"{room.__name__.rpartition('.')[2]}.{name}" for name in names} <= listed


def test_names_and_keywords_are_numpys_where_numpy_has_them() -> None:
    x = np.array([[1.5, -2.0, 0.5], [3.0, 0.25, -1.0]])
    for name in AS_NUMPY.split():
        ours = list(inspect.signature(getattr(tg, name)).parameters)[1:]
        theirs = list(inspect.signature(getattr(np, name)).parameters)
        if name == "clip":
            assert ours == ["min", "max"] and {"min", "max"} <= set(theirs)
            continue
        shared = [p for p in ours if p in theirs]
        assert set(ours) - set(theirs) <= {"correction"}, name
        assert shared == [p for p in theirs if p in shared], name
    assert tg.std(x, axis=0, keepdims=True, correction=1).shape == np.std(x, axis=0, keepdims=True, correction=1).shape


# Each name that NumPy has too, called as NumPy allows: f holds fractions, c bools, i indices, t has three axes
CALLS_OF_NUMPY = """
zeros((2, 3), dtype="int8")  ones(4, dtype="float64")  full((2, 1), 7)  full(3, fill_value=0.5, dtype="float16")
arange(5)  arange(2, 9, 3)  arange(5, stop=0, step=-2)  arange(3, dtype="int8")  eye(3, dtype="float64")
abs(x)  exp(x)  log(x)  log1p(x)  expm1(x)  sqrt(x)  square(x)  reciprocal(f)  sin(x)  cos(x)  tan(x)  arcsin(f)
arccos(f)  arctan(x)  sinh(x)  cosh(x)  tanh(x)  sign(f - 0.5)  floor(x)  logical_not(x)
add(x, y)  power(x, y)  power(f, 2)  maximum(x, y)  minimum(x, 1)  where(c, x, y)  where(x, 1, y)  clip(x, 1, 2)
clip(x, min=1)  clip(x, None, 2)  equal(x, y)  not_equal(x, 1)  less(x, y)  less_equal(1, x)  greater(x, y)
greater_equal(x, y)
sum(x)  sum(x, 1)  sum(x, axis=(0, -1), keepdims=True)  mean(x)  mean(x, 0)  mean(x, axis=-1, keepdims=True)
max(x)  max(x, 1)  max(x, axis=(0, 1))  min(x, 0)  min(x, axis=-1, keepdims=True)  prod(x)  prod(x, 1)
prod(x, axis=(0, 1), keepdims=True)  var(x)  var(x, 0)  var(x, axis=1, correction=1)  std(x)
std(x, axis=0, keepdims=True)  std(x, 1, correction=1)  norm(x)  norm(x, axis=0)  norm(x, 2, -1)
norm(x, ord=None, axis=(0, 1), keepdims=True)  cumsum(x)  cumsum(x, 1)  cumsum(x, axis=0)  argmax(x)  argmax(x, 1)
argmax(x, axis=0, keepdims=True)  argmin(x)  argmin(x, axis=-1)
matmul(x, w)  dot(x, w)  dot(x, t)  dot(v, t)  dot(v, 2)  outer(v, x)  einsum("ij,jk->ki", x, w)  einsum("ij", x)
einsum("...j,j", x, v)  einsum("i,j", v, v)
transpose(x)  transpose(t, (2, 0, 1))  transpose(t, axes=[1, -1, 0])  swapaxes(t, 0, 2)  swapaxes(x, axis1=0, axis2=1)
moveaxis(t, 0, -1)  moveaxis(t, source=(0, 1), destination=(2, 0))  reshape(x, (3, 2))  reshape(x, shape=-1)  ravel(x)
expand_dims(x, 0)  expand_dims(x, axis=(0, -1))  squeeze(x[:1])  squeeze(x[:1], 0)  squeeze(x[:1], axis=0)
broadcast_to(v, (2, 3))  broadcast_to(v, shape=(4, 1, 3))  concatenate([x, y])  concatenate((x, x), 1)
concatenate([x, v], axis=None)  stack([x, y])  stack([x, y], axis=-1)  split(x, 3, 1)  split(x, [1], axis=1)
split(x, indices_or_sections=2)  unstack(x)  unstack(x, axis=1)  flip(x)  flip(x, 0)  flip(x, axis=(0, 1))
roll(x, 2)  roll(x, 1, 0)  roll(x, shift=(1, 2), axis=(0, 1))  pad(x, 1)  pad(x, (1, 2), "constant")
pad(x, pad_width=((0, 1), (2, 0)), mode="constant", constant_values=1)  tile(x, 2)  tile(x, reps=(2, 1, 3))
repeat(x, 2)  repeat(x, repeats=3, axis=1)  tril(x)  tril(t, -1)  triu(x, k=1)  diagonal(x)  diagonal(t, 1, 1, 2)
diagonal(x, offset=-1, axis1=1, axis2=0)  take(x, [5, 0])  take(x, indices=[[1, 0]], axis=1)  take(x, 2, 1)
take_along_axis(x, i, 1)  take_along_axis(x, indices=i, axis=-1)  take_along_axis(x, i)  astype(x, "float32")
"""


def matching(call: str, names: dict[str, Any], **arrays: Any) -> list[Any]:
    """The results of a call in the words of NumPy's or of our namespace."""
    found = eval(call, dict(names), arrays)
    return list(found) if isinstance(found, (list, tuple)) else [found]


NUMPY_CALLS = re.findall(r"\S.*?\)(?=  |\n)", CALLS_OF_NUMPY)
DTYPES = ("float64", "float32", "float16", "int64", "int8", "uint8", "bool")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", NUMPY_CALLS)
def test_calls_give_what_numpy_gives(call: str, dtype: str) -> None:
    """The same shape, dtype and numbers, of arrays and of Tensors."""
    x = np.array([[1, 0, 3], [2, 5, 4]]).astype(dtype)
    fractions = (np.array([[1, 2, 3], [4, 5, 6]]) / 8).astype(dtype if x.dtype.kind == "f" else float)
    arrays = {
        "x": x, "y": x[:, ::-1], "f": fractions, "c": x > 2, "v": np.array([2, 1, 3]).astype(dtype),
        "w": np.arange(12).reshape(3, 4).astype(dtype), "t": np.arange(24).reshape(2, 3, 4).astype(dtype),
        "i": np.array([[2], [0]]),
    }  # fmt: skip
    with np.errstate(all="ignore"):
        expected = matching(call, {**vars(np), "norm": np.linalg.norm}, **arrays)
        bare = matching(call, vars(tg), **arrays)
        wrapped = matching(call, vars(tg), **{name: tg.tensor(a) for name, a in arrays.items()})
    assert all(isinstance(y, tg.Tensor) for y in wrapped)
    for found in (bare, wrapped):
        for have, want in zip(map(np.asarray, found), map(np.asarray, expected), strict=True):
            assert (have.shape, have.dtype) == (want.shape, want.dtype)
            np.testing.assert_allclose(have, want, rtol=4 * np.finfo(want.dtype).eps if want.dtype.kind == "f" else 0)


def test_no_name_of_numpy_is_left_out() -> None:
    listed = {entry.partition("(")[0] for entry in ENTRIES}
    shared = {name for name in listed if hasattr(np, name) or hasattr(np.linalg, name)}
    assert shared == {call.partition("(")[0] for call in NUMPY_CALLS}


METHODS = f"{AS_NUMPY} astype reshape transpose"


@pytest.mark.parametrize("name", METHODS.split())
def test_methods_take_what_numpys_methods_take(name: str) -> None:
    """The same call on an array and on a Tensor, positional and by name, gives the same."""
    calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
        "take": [(([2, 0],), {"axis": 1}), (([2, 0], 1), {})],
            "repeat": [((2,), {}), ((2, 1), {}), ((3,), {"axis": 0})],
        "swapaxes": [((0, 1), {})], "squeeze": [((), {})], "ravel": [((), {})],
            "diagonal": [((), {}), ((1,), {}), ((), {"offset": -1})],
        "clip": [((0, 1), {}), ((), {"min": 0.5}), ((None, 1), {})], "dot": [((np.array([1.0, 2.0, 3.0]),), {})],
        "astype": [((np.float32,), {}), (("float32",), {})], "reshape": [((3, 2), {}), (((6, 1),), {}), ((-1,), {})],
        "transpose": [((), {}), ((1, 0), {}), (((1, 0),), {})],
        "cumsum": [((), {}), ((1,), {}), ((), {"axis": 0})],
    }  # fmt: skip
    default = [((), {}), ((1,), {}), ((), {"axis": 0}), ((), {"axis": 1, "keepdims": True})]
    x = np.array([[1.5, -2.0, 0.5], [3.0, 0.25, -1.0]])
    for args, options in calls.get(name, default):
        expected, found = getattr(x, name)(*args, **options), getattr(tg.tensor(x), name)(*args, **options)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_allclose(found.numpy(), expected)


# -- declarations ------------------------------------------------------------------------------------------


def declared() -> dict[str, list[str]]:
    """The members that operators.pyi declares, with the names of their parameters after self."""
    path = Path(tg.__path__[0]) / "core" / "operators.pyi"
    (cls,) = (node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef))
    found = {}
    for node in cls.body:
        assert isinstance(node, ast.FunctionDef)
        assert node.returns is not None
        arguments = node.args
        found[node.name] = [a.arg for a in [*arguments.args, *filter(None, [arguments.vararg]), *arguments.kwonlyargs]][
            1:
        ]
    return found


def installed() -> dict[str, list[str]]:
    """The members that Tensor has at run time beyond those that are written in its class."""
    source = ast.parse(Path(inspect.getfile(tg.Tensor)).read_text(encoding="utf-8"))
    (cls,) = (node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "Tensor")
    written = {node.name for node in ast.walk(cls) if isinstance(node, ast.FunctionDef)} | {"__annotations__"}
    written |= {
        t.id for node in cls.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    }
    slots = set(tg.Tensor.__slots__) | {
        "__module__",
        "__doc__",
        "__slots__",
        "__firstlineno__",
        "__static_attributes__",
    }
    found = {}
    for name, value in vars(tg.Tensor).items():
        if name not in written | slots:
            found[name] = [] if isinstance(value, property) else list(inspect.signature(value).parameters)[1:]
    return found


def test_the_declarations_are_the_members_that_tensor_has() -> None:
    assert declared() == installed()


def test_a_type_checker_sees_operators_and_methods(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="type checkers are not needed to run the package")
    script = tmp_path / "user.py"
    script.write_text(
        "import tinygrad_rnn as tg\n"
        "x = tg.tensor([1.0, 2.0])\n"
        "reveal_type((x @ x.T + 1)[0].sum(axis=0))\n"
        "x.sum(axes=0)\n"
        "x.summ()\n"
        'tg.nn.GRU(2, 3, resets="after").bias\n'
        "tg.nn.LSTMCell(2, 3, forget_bias=x)\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", "--config-file=", str(script)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert 'Revealed type is "tinygrad_rnn.core.tensor.Tensor"' in result.stdout
    assert 'Unexpected keyword argument "axes"' in result.stdout and 'no attribute "summ"' in result.stdout
    assert 'Unexpected keyword argument "resets" for "GRU"' in result.stdout
    assert 'Argument "forget_bias" to "LSTMCell" has incompatible type' in result.stdout


def test_flow_is_there_without_an_import_of_its_own() -> None:
    """In a process of its own, as others may have imported it here."""
    code = "import tinygrad_rnn as tg; assert not hasattr(tg.see, 'flux'); print(tg.see.flow.decay.__module__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.startswith("tinygrad_rnn.see.flow"), result.stderr


def test_every_public_module_says_what_it_promises() -> None:
    for name in ("core", "ops", "backend", "errors", "testing", "transforms"):
        assert importlib.import_module(f"tinygrad_rnn.{name}").__doc__
