"""Every example runs, on every backend, and shows what it says; where it is cheap, a wrong variation does not."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from devices import without_kernels

import tinygrad_rnn as tg
from tinygrad_rnn.backend import cupy_
from tinygrad_rnn.core.primitive import PRIMITIVES
from tinygrad_rnn.see.flow.plots import DARK

FOLDER = Path(__file__).parents[1] / "examples"
SHARED = "commandline"
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if path.stem != SHARED)


@pytest.fixture(autouse=True)
def beside_the_examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples import what they share as their neighbour; the primitives that they add go when the test ends.

    The fake GPU computes without our kernels, which are tested elsewhere: on a CPU they take minutes for an example.
    """
    monkeypatch.syspath_prepend(FOLDER)
    there = set(PRIMITIVES)
    with without_kernels():
        yield
    for name in PRIMITIVES.keys() - there:
        del PRIMITIVES[name]


def loaded(name: str) -> ModuleType:
    """An example as a module, without running its main()."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- each example ------------------------------------------------------------------------------------------------


def test_an_expression_is_drawn_with_its_gradients(backend, tmp_path, capsys):
    found = loaded("draw_an_expression").main(x=0.75, w=-2.0, b=1.25, out=tmp_path)
    x, w, b = 0.75, -2.0, 1.25
    bent = math.tanh(x * w + b)
    slope = 1 - bent**2
    assert found == pytest.approx({"x": bent + x * slope * w + 2 * x, "w": x * slope * x, "b": x * slope}, rel=1e-5)
    assert found["x"] != pytest.approx(2 * x, rel=0.1), "one contribution is not the sum of three"
    assert "the sum of 3 contributions" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"expression.svg", "expression.html"}


def test_two_layers_part_what_a_line_cannot(backend, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    example = loaded("separate_spirals")
    confusion = example.main(hidden=24, steps=150, lr=0.05, out=tmp_path)
    assert confusion.sum() == 1000 and np.trace(confusion) > 950
    assert f"{np.trace(confusion) / 1000:.1%} are right" in capsys.readouterr().out
    picture = (tmp_path / "spirals.svg").read_text()
    assert picture.count("<use ") > 1000 and "Which arm the network gives a point to</title>" in picture
    assert example.LINES[2][0] in picture and DARK[example.LINES[2][0]] in picture, "light and dark"
    assert np.trace(example.main(hidden=1, steps=150, lr=0.05, out=tmp_path)) < 700, "one unit has one border"


def test_digits_are_read_row_by_row(backend, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    example = loaded("read_digits")
    accuracy = example.main(hidden=12, epochs=5, lr=2e-2)
    assert list(accuracy) == ["RNN", "MinimalGRU", "GRU", "LSTM"] and min(accuracy.values()) > 0.85
    assert f"{accuracy['GRU']:.1%} right" in capsys.readouterr().out
    monkeypatch.setattr(example.Reader, "forward", lambda self, rows: self.head(self.recurrent(rows)[0][0]))
    monkeypatch.setattr(example, "CELLS", (tg.nn.GRU,))
    assert example.main(hidden=12, epochs=5, lr=2e-2)["GRU"] < 0.5, "the first row does not tell the digit"


def test_marked_numbers_are_added(backend, monkeypatch, tmp_path, capsys):
    example = loaded("add_two_numbers")
    monkeypatch.setattr(example, "CELLS", (tg.nn.MinimalGRU, tg.nn.GRU))
    small = {"length": 6, "hidden": 12, "steps": 500, "batch": 40, "lr": 1e-2, "out": tmp_path}
    errors = example.main(**small)
    assert all(pairs[0][0] == 0 and pairs[-1][1] < 0.02 for pairs in errors.values())
    assert "GRU        solved after" in capsys.readouterr().out
    assert "Adding two of 6 numbers</title>" in (tmp_path / "adding.svg").read_text()

    problems = example.problems
    monkeypatch.setattr(example, "problems", lambda *sizes: (lambda x, sums: (x * [1.0, 0.0], sums))(*problems(*sizes)))
    unmarked = example.main(**small | {"steps": 200})
    assert all(pairs[-1][1] > 0.1 for pairs in unmarked.values()), "without the marks nobody knows which"


def test_the_problems_are_what_they_say(backend):
    example = loaded("add_two_numbers")
    x, sums = (each.numpy() for each in example.problems(50, 2000, np.random.default_rng(3)))
    numbers, marks = x[..., 0], x[..., 1]
    assert x.shape == (50, 2000, 2) and set(np.unique(marks)) == {0, 1}
    assert (marks[:25].sum(axis=0) == 1).all() and (marks[25:].sum(axis=0) == 1).all()
    np.testing.assert_allclose(sums[:, 0], [numbers[marks[:, n] == 1, n].sum() for n in range(2000)], rtol=1e-6)
    assert ((sums - 1) ** 2).mean() == pytest.approx(1 / 6, rel=0.05)


def test_a_closed_gate_forgets_nothing(backend, capsys):
    found = loaded("carry_a_bit").main(steps=200)
    for bit, (state, slope) in zip((1, -1), found["GRU"], strict=True):
        assert state == pytest.approx(bit, abs=2e-3) and slope == pytest.approx(1, abs=1e-3)
    assert found["RNN"][0] == found["RNN"][1], "the plain unit ends in the same state, whatever was written"
    assert all(slope < 1e-20 for _, slope in found["RNN"])
    assert "GRU: wrote -1, after 200 steps h = -1.000" in capsys.readouterr().out


def test_the_weights_are_those_that_the_docstring_names():
    """z = sigmoid(28 write - 13.8), n = tanh(5 bit), whatever the state is."""
    example = loaded("carry_a_bit")
    cell = example.gru_that_remembers()
    (write, bias), (bit,) = (
        re.search(pattern, example.gru_that_remembers.__doc__).groups()
        for pattern in (r"z = sigmoid\(([\d.]+) write - ([\d.]+)\)", r"n = tanh\(([\d.]+) bit\)")
    )
    np.testing.assert_allclose(cell.W.numpy(), [[float(write), 0, 0], [0, 0, float(bit)]])
    np.testing.assert_allclose(cell.b.numpy()[[0, 2]], [-float(bias), 0], rtol=1e-6)
    assert not cell.U.numpy().any()


def test_the_weather_is_forecast_better_than_by_simple_means(backend, tmp_path, capsys):
    pytest.importorskip("vega_datasets")
    example = loaded("forecast_weather")
    errors = example.main(out=tmp_path)
    means = {name: error.mean() for name, error in errors.items()}
    assert means["GRU"] < 0.85 * means["persistence"] and means["GRU"] < 0.95 * means["season"]
    assert means["GRU"] < means["fading"] < means["season"] < means["persistence"]
    assert f"the GRU is better by {1 - means['GRU'] / means['persistence']:.1%}" in capsys.readouterr().out
    assert (tmp_path / "weather.svg").read_text().startswith("<svg")

    with files("vega_datasets").joinpath("_data", "seattle-weather.csv").open() as file:
        days = [float(row["temp_max"]) for row in csv.DictReader(file)]
    for k in (1, 7):  # persistence once more, by hand: each forecast day of 2015 against the day of the forecast
        squares = [(days[day + k] - days[day]) ** 2 for day in range(1095, len(days) - 7)]
        assert errors["persistence"][k - 1] == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-9)

    untaught = example.main(epochs=0, out=tmp_path)["GRU"].mean()
    assert untaught > means["season"], "who has learned nothing is no better than the season"


def test_a_text_of_the_users_is_learned(backend, tmp_path, capsys):
    rng = np.random.default_rng(5)
    words = rng.choice(["reset", "update", "gate", "state", "opens", "shuts"], 4000)
    (tmp_path / "own.txt").write_text("\n".join(" ".join(line) for line in words.reshape(-1, 8)))
    example, small = loaded("write_text"), {"text": str(tmp_path / "own.txt"), "hidden": 24, "lr": 3e-2, "length": 120}
    unseen, written = example.main(steps=60, out=tmp_path, **small)
    assert unseen < 0.8 and len(set(written.split()) & set(words)) >= 4
    printed = capsys.readouterr().out
    assert written in printed and "shows z over the line" in printed
    assert "update gate" in (tmp_path / "gates.svg").read_text()
    untaught, _ = example.main(steps=1, out=tmp_path, **small | {"lr": 1e-6})
    assert untaught > 2, "one step teaches nothing"


@pytest.mark.parametrize("text", ["abcde " * 60, "x" * 400], ids=["without line ends", "of one character"])
def test_a_text_may_lack_whatever_it_likes(text, tmp_path, capsys):
    (tmp_path / "own.txt").write_text(text)
    small = {"hidden": 5, "steps": 2, "batch": 3, "truncation": 7, "length": 11, "out": tmp_path}
    unseen, written = loaded("write_text").main(text=str(tmp_path / "own.txt"), **small)
    assert math.isfinite(unseen) and len(written) == 11 and set(written) <= set(text)


def test_what_is_said_of_a_short_text_can_be_done(tmp_path, capsys):
    """The sentence names options, and with these the text is long enough."""
    (tmp_path / "own.txt").write_text("abc\n" * 60)
    words = ["--text", str(tmp_path / "own.txt"), "--out", str(tmp_path), "--steps", "1", "--hidden", "4"]
    example = loaded("write_text")
    with pytest.raises(SystemExit):
        loaded(SHARED).run(example.main, words)
    said = capsys.readouterr().err
    named = re.findall(r"--[a-z]+", said.partition("too short")[2])
    assert named == ["--batch", "--truncation"]
    loaded(SHARED).run(example.main, [*words, *[word for option in named for word in (option, "5")]])
    assert "shows z over the line" in capsys.readouterr().out


def test_a_primitive_of_ones_own_is_checked_and_a_careless_one_found(backend, tmp_path, capsys):
    example = loaded("add_a_primitive")
    verdict = example.main(out=tmp_path)
    assert "careless_arcsinh" in verdict and "the first derivative for x is" in verdict
    printed = capsys.readouterr().out
    assert "y = arcsinh(x)" in printed and "ȳ/√(1 + x²)" in printed and "to the third derivative" in printed
    found = example.arcsinh(tg.tensor([-3.0, 0.25])).numpy()
    np.testing.assert_allclose(found, [-math.log(3 + math.sqrt(10)), math.asinh(0.25)], rtol=1e-6)
    assert "arcsinh" in (tmp_path / "arcsinh.svg").read_text()


def test_no_example_has_solved_what_a_reader_is_asked_to_add():
    """The primitive of the example is none of the package, nor the one that the site's exercise asks for."""
    package = subprocess.run(
        [sys.executable, "-c", "import tinygrad_rnn.core.primitive as p; print(*p.PRIMITIVES)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "arcsin" in package and "arcsinh" not in package
    assert not [path for path in FOLDER.iterdir() if path.is_file() and "softsign" in path.read_text("utf-8")]


def test_a_cell_of_ones_own_opens_its_gate_where_it_should(backend, monkeypatch, tmp_path, capsys):
    example = loaded("build_a_cell")
    error, opening = example.main(steps=250, lr=0.03, out=tmp_path)
    assert error < 0.03 and opening["marked"] > opening["not marked"] + 0.2
    assert "n_t = tanh(x_t W_n + (f_t ⊙ h[t-1]) U_n + b_n)" in capsys.readouterr().out
    assert "minimal gated unit" in (tmp_path / "mgu_step.svg").read_text()

    right = example.MGUCell.equation
    monkeypatch.setattr(example.MGUCell, "equation", lambda self, x, state, weights: right(self, x * 0, state, weights))
    assert example.main(steps=60, out=tmp_path)[0] > 0.2, "a cell that is blind has nothing to keep"


def test_shut_gates_let_a_gradient_come_far(backend, monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    example, small = loaded("compare_gradients"), {"steps": 30, "inputs": 3, "hidden": 5, "out": tmp_path}
    new, shut = example.main(**small)
    assert list(new.curves) == ["RNN", "MinimalGRU", "GRU", "LSTM, h", "LSTM, c"]
    np.testing.assert_array_equal(new.curves["RNN"], shut.curves["RNN"])
    assert all(shut.curves[name][25] > 0.2 > new.curves[name][25] for name in ("MinimalGRU", "GRU"))
    assert shut.curves["LSTM, c"][25] > 20 * new.curves["LSTM, c"][25]
    assert capsys.readouterr().out.count("has the curves") == 2 and len(list(tmp_path.glob("*.svg"))) == 2

    monkeypatch.setattr(example, "KEEPING", {layer: (gate, -bias) for layer, (gate, bias) in example.KEEPING.items()})
    _, open_ = example.main(**small)
    assert open_.curves["GRU"][25] < new.curves["GRU"][25], "gates that are open forget"


def test_a_model_from_torch_has_the_same_numbers(backend, monkeypatch, tmp_path, capsys):
    pytest.importorskip("torch")
    example = loaded("step_through_torch")
    assert max(example.main(steps=4, inputs=3, hidden=5, out=tmp_path)) < 1e-6
    assert "h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h[t-1]" in capsys.readouterr().out
    assert (tmp_path / "from_torch.html").read_text().startswith("<!doctype html>")

    faithful = example.interop.from_torch

    def turned(module):
        model = faithful(module)
        model["gru"].cells[0].update = "new"
        return model

    monkeypatch.setattr(example.interop, "from_torch", turned)
    assert min(example.main(steps=4, inputs=3, hidden=5, out=tmp_path)) > 1e-3


# -- what their README says of them, with their default settings -------------------------------------------------

README = (FOLDER / "README.md").read_text("utf-8")


def claimed(about: str) -> str:
    """A paragraph of the figures, with its table."""
    (found,) = re.findall(rf"\*\*{about}\.?\*\*.*?(?=\*\*|\Z)", README, re.S)
    return found


def seed_0(about: str) -> dict[str, float]:
    """The column of seed 0 in a table: the last number of each cell, by the name of the row."""
    rows = re.findall(r"^\| ([^|]+) \| (?!seed)([^|]*\d[^|]*) \|", claimed(about), re.M)
    return {name: float(re.findall(r"\d[\d.,]*", cell)[-1].replace(",", "")) for name, cell in rows}


NAMES = {"RNN": "RNN", "MinimalGRU": "simplified GRU", "GRU": "GRU", "LSTM": "LSTM"}


def test_its_tables_are_read():
    assert list(seed_0("Digits")) == [*NAMES.values(), "PyTorch's GRU"] and seed_0("Digits")["GRU"] == 99.2
    assert seed_0("Adding") == {"RNN": 4000, "simplified GRU": 1000, "GRU": 800, "LSTM": 2200}


@pytest.mark.slow
def test_for_ten_thousand_steps():
    found = loaded("carry_a_bit").main()
    assert [round(state, 2) for state, _ in found["GRU"]] == [0.99, -0.99]
    assert all(slope > 0.98 for _, slope in found["GRU"])


@pytest.mark.slow
def test_the_digits_that_are_claimed():
    pytest.importorskip("sklearn")
    accuracy = loaded("read_digits").main()
    assert accuracy["GRU"] >= 0.96 and min(accuracy.values()) >= 0.94
    assert {NAMES[cell]: 100 * share for cell, share in accuracy.items()} == pytest.approx(
        {name: share for name, share in seed_0("Digits").items() if name in NAMES.values()}, abs=1.5
    )


@pytest.mark.slow
def test_the_digits_that_torch_reads():
    """The same recipe with PyTorch's own layers, loss and optimiser."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    example, epochs, rng = loaded("read_digits"), 40, np.random.default_rng(0)
    images, truth = map(torch.tensor, example.digits(np.random.default_rng(0)))
    torch.manual_seed(0)
    gru, head = torch.nn.GRU(8, 32), torch.nn.Linear(32, 10)
    optimizer = torch.optim.Adam([*gru.parameters(), *head.parameters()], lr=3e-3)
    learned = np.arange(example.HELD_BACK, len(truth))
    for _ in range(epochs):
        for chosen in np.array_split(rng.permutation(learned), len(learned) // 32):
            scores = head(gru(images[:, chosen])[0][-1])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(scores, truth[chosen]).backward()
            optimizer.step()
    with torch.no_grad():
        answers = head(gru(images[:, : example.HELD_BACK])[0][-1]).argmax(dim=-1)
    right = 100 * (answers == truth[: example.HELD_BACK]).double().mean().item()
    assert right == pytest.approx(seed_0("Digits")["PyTorch's GRU"], abs=1.5)


@pytest.mark.slow
def test_gated_cells_add_and_the_plain_one_does_not(tmp_path):
    errors = loaded("add_two_numbers").main(out=tmp_path)
    last = {name: pairs[-1] for name, pairs in errors.items()}
    assert all(last[name][1] < 0.02 and last[name][0] < 4000 for name in ("MinimalGRU", "GRU", "LSTM"))
    assert last["RNN"][0] == 4000 and last["RNN"][1] == pytest.approx(1 / 6, abs=0.02)
    # a machine that rounds otherwise learned some hundreds of steps earlier or later
    assert {NAMES[cell]: step for cell, (step, _) in last.items()} == pytest.approx(seed_0("Adding"), abs=600)


@pytest.mark.slow
def test_the_text_that_is_claimed(tmp_path):
    unseen, _ = loaded("write_text").main(out=tmp_path)
    said = float(re.search(r"[\d.]+(?=, [\d.]+ and [\d.]+ nats)", claimed("Text"))[0])
    assert unseen == pytest.approx(said, abs=0.1)  # the help pages differ a little between versions of Python


@pytest.mark.slow
def test_the_spirals_and_the_gate_that_are_claimed(tmp_path):
    pytest.importorskip("matplotlib")
    right = int(re.search(r"[\d,]+(?=, \d+ and)", claimed("Spirals"))[0].replace(",", ""))
    assert np.trace(loaded("separate_spirals").main(out=tmp_path)) == pytest.approx(right, abs=10)
    error, opening = loaded("build_a_cell").main(out=tmp_path)
    said = claimed("The minimal gated unit")
    assert error == pytest.approx(float(re.search(r"error ([\d.]+)", said)[1]), abs=0.003)
    gates = {"marked": r"open by ([\d.]+)", "not marked": r"and by ([\d.]+)"}
    assert opening == pytest.approx({key: float(re.search(each, said)[1]) for key, each in gates.items()}, abs=0.1)


@pytest.mark.slow
def test_the_weather_that_is_claimed(tmp_path):
    pytest.importorskip("vega_datasets")
    errors = {name: error.mean() for name, error in loaded("forecast_weather").main(out=tmp_path).items()}
    found = re.search(r"persistence ([\d.]+) °C, the season\s+([\d.]+) °C, fading ([\d.]+) °C; the GRU ([\d.]+)",
                      claimed("Weather"))  # fmt: skip
    assert list(errors.values()) == pytest.approx([float(each) for each in found.groups()], abs=0.01)


@pytest.mark.slow
def test_the_gradients_that_are_claimed(tmp_path):
    pytest.importorskip("matplotlib")
    new, shut = (measured.curves for measured in loaded("compare_gradients").main(out=tmp_path))
    numbers = [float(each) for each in re.findall(r" (\de-\d+|0\.\d+)", claimed("Gradients"))]
    cells = ("MinimalGRU", "GRU", "LSTM, c")
    measured = [new["RNN"][50], *[curves[cell][50] for cell in cells for curves in (new, shut)]]
    assert numbers == pytest.approx(measured, rel=0.3)  # they are given with one digit


# -- the command line that they share ----------------------------------------------------------------------------


def an_example(*, steps: int = 3, rate: float = 0.5, text: str | None = None, out: Path = Path(".")) -> None:
    """What `run` makes options of."""
    print(f"{steps + 1} {rate * 2} {text} {out.name} {tg.zeros(1).backend}")


def test_options_are_the_keywords_of_main_with_their_types(tmp_path, capsys):
    run = loaded(SHARED).run
    run(an_example, [])
    run(an_example, ["--steps", "4", "--rate", "2", "--text", "a.txt", "--out", str(tmp_path / "made" / "here")])
    assert capsys.readouterr().out == "4 1.0 None  numpy\n5 4.0 a.txt here numpy\n"
    assert (tmp_path / "made" / "here").is_dir()


def test_a_backend_is_the_default_one_while_main_runs(gpu, capsys):
    with tg.use_backend("numpy"):
        loaded(SHARED).run(an_example, ["--backend", gpu])
        assert capsys.readouterr().out.split()[-1].startswith(gpu)
        assert tg.zeros(1).backend == "numpy"


def ended(capsys: pytest.CaptureFixture[str], main: Callable[..., Any], *words: str) -> str:
    """What is said at last by an example that ends with the status of bad input."""
    with pytest.raises(SystemExit) as end:
        loaded(SHARED).run(main, list(words))
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(cupy_.status().usable, reason="there is a GPU")
def test_without_cupy_its_own_sentence_ends_the_example(capsys):
    assert ended(capsys, an_example, "--backend", "cupy").startswith("the backend cupy cannot be used here: ")


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    said = ended(capsys, loaded("read_digits").main, "--epochs", "1")
    assert said.startswith("this example needs sklearn, ") and said.endswith(": pip install scikit-learn")


def test_a_text_that_is_not_there_is_a_sentence(capsys, tmp_path):
    said = ended(capsys, loaded("write_text").main, "--text", "nowhere.txt", "--out", str(tmp_path))
    assert said.startswith("there is no file nowhere.txt")


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    (tmp_path / "a file").touch()
    assert "a file" in ended(capsys, loaded("draw_an_expression").main, "--out", str(tmp_path / "a file"))


COUNTS = [
    (path.stem, option)
    for path in EXAMPLES
    for option in re.findall(r"(\w+): int = \d", path.read_text().partition("def main(")[2].partition("->")[0])
]


@pytest.mark.parametrize(("name", "option"), COUNTS)
def test_a_number_of_none_is_a_sentence(name, option, capsys):
    """Each whole number of each example: 0, a negative one, and what is no number; a seed may be 0."""
    assert type(inspect.signature(loaded(name).main).parameters[option].default) is int
    least = 0 if option == "seed" else 1
    for word in (str(least - 1), "-5", "1.5", "many"):
        said = ended(capsys, loaded(name).main, f"--{option}", word)
        assert said.endswith(f"argument --{option}: {word} is not a whole number of at least {least}")


def test_the_least_numbers_will_do(tmp_path, capsys):
    loaded(SHARED).run(an_example, ["--steps", "1"])
    assert capsys.readouterr().out.startswith("2 ")
    assert ended(capsys, loaded("add_two_numbers").main, "--length", "1", "--out", str(tmp_path)) == (
        "length is 1; it must be at least 2, for a number is marked in each of two halves"
    )
    pytest.importorskip("matplotlib")
    loaded(SHARED).run(loaded("compare_gradients").main, ["--steps", "1", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "GRU: one step, so nothing decays." in printed and "after 0" not in printed


def test_an_example_is_a_script(tmp_path):
    path = FOLDER / "draw_an_expression.py"
    done = subprocess.run([sys.executable, path, "--x", "0.25"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and "x = 0.25" in done.stdout
    assert (tmp_path / "expression.html").exists()


# -- all of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_one_idea(path):
    assert len(path.read_text().splitlines()) < 100
    assert f'loaded("{path.stem}")' in Path(__file__).read_text(), "each example has its test here"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_one_will_see_and_has_defaults(path):
    example = loaded(path.stem)
    assert "What you will see:" in example.__doc__
    parameters = inspect.signature(example.main).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)
    assert example.main.__doc__.startswith("Returns ")


def test_the_readme_counts_them_and_their_lines():
    lines = [len(path.read_text().splitlines()) for path in EXAMPLES]
    assert f"One idea a file, {min(lines)} to {max(lines)} lines" in README
    assert len(EXAMPLES) == len(re.findall(r"^\| \[`\w+\.py`\]", README, re.M)) == 11
    page = (FOLDER.parent / "docs" / "examples.md").read_text("utf-8")
    assert page.count("literalinclude") - 1 == 11 and "\nEleven scripts" in page


def test_the_readme_names_the_options_that_they_have():
    """Of `--seed` and `--out` it says which examples lack them."""
    for option in ("seed", "out"):
        without = [path.stem for path in EXAMPLES if f" {option}: " not in path.read_text().partition("def main(")[2]]
        said = re.search(rf"`--{option}`[^;]*?\(([^)]*)\)", README)[1]
        assert sorted(re.findall(r"`(\w+)`", said)) == without


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_table_lists_it_with_what_it_needs(path):
    (row,) = re.findall(rf"^\| \[`{path.name}`\]\({path.name}\).*$", README, re.M)
    packages = {
        "matplotlib": "matplotlib",
        "sklearn": "scikit-learn",
        "vega_datasets": "vega-datasets",
        "torch": "torch",
    }
    source = path.read_text()
    needed = [name for module, name in packages.items() if re.search(rf'(from|import|files\(")\s*{module}\b', source)]
    needed += ["matplotlib"] * ("flow.decay(" in source or "import LINES, Plot" in source)
    assert row.split("|")[-2].strip() == ", ".join(needed)
