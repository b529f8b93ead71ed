"""`tinygrad-rnn lab`: what each word shows, its exit status, and one sentence for every kind of bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import cli
from tinygrad_rnn.lab import mutation

MODEL = """
import numpy as np
import tinygrad_rnn as tg
from sibling import SIZE

cell = tg.nn.GRUCell(3, SIZE)
noise = np.random.normal(size=(2, 3))


def step(x, h):
    return (cell(x, h) * cell(x, h)).sum()


def plain(x=2.0, y=(1.0, -3.0)):
    return (x * y * x).sum()


def inputs():
    return {"x": noise.astype("float32"), "h": np.full((2, SIZE), 0.5, "float32")}
"""
FILES = {
    "model.py": MODEL,
    "sibling.py": "SIZE = 4",
    "one.py": "import tinygrad_rnn as tg\ndef only(x=0.5, w=2.0):\n    return tg.tanh(x * w)\n",
    "no_inputs.py": "def f(x, y=1.0):\n    return x * y\n",
    "constant.py": "import tinygrad_rnn as tg\ndef f(x=1.0):\n    return tg.tensor(2.0)\ndef g(x=1.0):\n    return 3\n",
    "waiting.py": "async def f(x=1.0):\n    return x\n",
    "huge.py": "def f(x=1.0):\n    for _ in range(600):\n        x = x * 1.01\n    return x\n",
    "freed.py": "def f(x=1.0):\n    y = x * x\n    y.backward(retain_graph=False)\n    return y\n",
    "broken.py": "def f(x):\n    return (x\n",
    "failing.py": "import tinygrad_rnn\n\n1 / 0\n",
    "leaving.py": "import sys\nsys.exit(3)\n",
    "raising.py": "def f(x=1.0):\n    raise RuntimeError('not today')\n",
    "shapes.py": "def f(x=(1.0, 2.0), y=(1.0, 2.0, 3.0)):\n    return x * y\n",
    "empty.py": "",
    "sheet.py": "x = (\n",
    "lost.py": "d_x = 1.0\n",
    "bytes.py": "\x00",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "sibling", raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path


def status(*words: str) -> int:
    try:
        return cli.main(["lab", *words])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_each_word_shows_something_without_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("order") == 0 and "6 paths, 4 operations, 7 edges" in capsys.readouterr().out
    assert status("bugs") == 0 and "transposed product" in capsys.readouterr().out
    assert status("drill") == 0 and "d_y = ...  # (2, 1)" in capsys.readouterr().out


def test_order_of_a_users_function(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("order", "model.py:step") == 0
    out = capsys.readouterr().out
    assert "by recursion" in out and "✗" in out
    assert status("order", "one.py") == 0 and "2 paths, 2 operations, 3 edges" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "given", "kept"),
    [
        ("f(x, y=3.0)", '{"x": 2.0, "other": 1.0}', [2.0, 3.0]),
        ("f(x, y=3.0)", "(2.0, 5.0)", [2.0, 5.0]),
        ("f(x, y=3.0)", "[2.0]", [2.0, 3.0]),
        ("f(x, y=3.0)", "2.0", [2.0, 3.0]),
        ("f(*xs)", "(2.0, 5.0)", [2.0, 5.0]),
    ],
)
def test_arguments_come_from_inputs_and_from_defaults(function: str, given: str, kept: list[float], here: Path) -> None:
    body = "xs[0] * xs[1]" if "*" in function else "x * y"
    (here / "args.py").write_text(f"def {function}:\n    return {body}\n\ndef inputs():\n    return {given}\n")
    assert [float(value) for value in tg.lab.drill_of("args.py:f").given.values()] == kept


def test_a_bug_and_its_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("bugs", "swapped gates", "--out", "bug.svg") == 0
    out, err = capsys.readouterr()
    assert "BUG ON: swapped gates" in err and "BUG OFF" in err
    assert "notices nothing" in out and "+    z = sigmoid(x @ W.r + h @ U.r + b.r)" in out
    assert (here / "bug.svg").read_text(encoding="utf-8").lstrip().startswith("<svg") and not mutation._on


def filled(path: Path) -> str:
    """The right lines in place of the blanks."""
    text = path.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__file__": str(path)}
    exec(text, namespace)
    for name, line in namespace["drill"]._solved.items():
        text = text.replace(f"{name} = ...", f"{name} = {line}")
    return text


@pytest.mark.parametrize("where", ["model.py:step", "model.py:plain", "one.py", None])
def test_a_worksheet_from_the_first_line_to_the_last(
    where: str | None, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [] if where is None else [where]
    if where == "model.py:plain":
        (here / "model.py").write_text(MODEL.partition("def inputs")[0])
    assert status("drill", *chosen, "--out", "my sheet.py") == 0
    assert "tinygrad-rnn lab check 'my sheet.py'" in capsys.readouterr().out
    path = here / "my sheet.py"
    assert status("check", path.name) == 1 and "blank" in capsys.readouterr().out
    blank = path.read_text(encoding="utf-8")
    path.write_text(filled(path), encoding="utf-8")
    assert status("check", path.name) == 0 and "are right" in capsys.readouterr().out
    done = subprocess.run([sys.executable, "-W", "error", path.name], cwd=here, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    name = next(line.partition(" ")[0] for line in blank.splitlines() if " = ..." in line)
    assert status("hint", path.name, name, "--level", "3") == 0 and "contribution:" in capsys.readouterr().out


def test_a_line_that_fails_is_one_verdict_and_the_others_are_read(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status("drill", "one.py:only", "--out", "w.py")
    text = (here / "w.py").read_text()
    lines = {
        "d_v1 = ...": "d_v1 = 1 - only * nothing",
        "d_w = ...": "d_w = d_v1 * x",
        "d_x = ...": "d_x = (1 - only**2) * w",
    }
    for blank, line in lines.items():
        assert blank in text
        text = text.replace(blank, line)
    (here / "w.py").write_text(text)
    capsys.readouterr()
    assert status("check", "w.py") == 1
    out = capsys.readouterr().out
    number = text[: text.index("nothing")].count("\n") + 1
    assert f"NameError: name 'nothing' is not defined (line {number})" in out
    assert [line.split()[1:3] for line in out.splitlines() if line.startswith(" ✓")] in (
        [["d_x", "exact"]], [["d_x", "close"]]
    )  # fmt: skip


def test_a_line_that_needs_a_blank_says_which(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status("drill", "one.py:only", "--out", "w.py")
    text = (here / "w.py").read_text()
    (here / "w.py").write_text(text.replace("d_w = ...", "d_w = d_v1 * x").replace("d_x = ...", "d_x = d_w / x * w"))
    capsys.readouterr()
    assert status("check", "w.py") == 1
    out = capsys.readouterr().out
    assert "it needs d_v1, which is blank or fails" in out and "it needs d_w, which is blank or fails" in out


def test_seeds_are_fixed(here: Path) -> None:
    one, other = (tg.lab.drill_of("model.py:step") for _ in range(2))
    for name in ("x", "W", "U"):
        assert (one.given[name] == other.given[name]).all()


def test_a_worksheet_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "w.py").write_text("work")
    assert status("drill", "--out", "w.py") == 2
    assert "may hold somebody's work" in capsys.readouterr().err and (here / "w.py").read_text() == "work"


BAD = {
    "order nowhere.py:f": "there is no file nowhere.py",
    "order model.py:nothing": "model.py has no function 'nothing'; its functions are step, plain",
    "order model.py": "say which function: model.py:NAME; its functions are step, plain",
    "order empty.py": "it has no functions",
    "order empty.py:f": "empty.py has no function 'f'; it has no functions",
    "order .": "there is no file .",
    "order constant.py:f": "has no graph",
    "order constant.py:g": "g must return a Tensor, not int",
    "order waiting.py:f": "f must return a Tensor, not coroutine",
    "order freed.py:f": "was freed by backward",
    "order broken.py:f": "broken.py failed: SyntaxError: '(' was never closed (line 2)",
    "order failing.py:f": "failing.py failed: ZeroDivisionError: division by zero (line 3)",
    "order leaving.py:f": "leaving.py failed: SystemExit: 3 (line 2)",
    "order raising.py:f": "raising.py:f failed: RuntimeError: not today (line 2)",
    "order shapes.py:f": "mul of x (2,) float32 and y (3,) float32",
    "order no_inputs.py:f": "no_inputs.py does not say what x is: give it a default",
    "drill huge.py:f": "600 operations, and a worksheet up to 500",
    "drill constant.py:f": "has no graph",
    "drill model.py:step --out w.txt": "known suffixes are .py",
    "drill one.py --out nowhere/w.py": "cannot write nowhere/w.py",
    "bugs missing": "there is no bug 'missing'",
    "bugs --out bug.svg": "--out needs the NAME",
    "check nowhere.py": "nowhere.py cannot be read: No such file",
    "check sheet.py": "sheet.py is no Python: SyntaxError: '(' was never closed (line 1)",
    "check bytes.py": "is no Python",
    "check lost.py": "lost.py does not say what it is of, by a line `drill = tg.lab.drill_of(...)`; if a drill in a "
    "Python session wrote it, say there: print(drill.check('lost.py'))",
    "check one.py": "does not say what it is of",
    "hint lost.py d_x": "does not say what it is of",
    "": "required",
    "hint lost.py": "required",
    "ordr": "invalid choice",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_gets_one_sentence_and_touches_nothing(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    assert status(*command.split()) == 2
    said = capsys.readouterr()
    assert BAD[command] in said.err and not said.out
    assert said.err.startswith("tinygrad-rnn") and said.err.count("\n") == 1 and len(said.err) < 500
    assert sorted(here.rglob("*")) == before


def test_a_worksheet_is_checked_from_any_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "sheets").mkdir()
    (here / "elsewhere").mkdir()
    for path in (Path("w.py"), Path("sheets") / "w.py"):
        assert status("drill", "model.py:step", "--out", str(path)) == 0
        text = path.read_text()
        assert f"# To check it: tinygrad-rnn lab check {path}" in text
        path.write_text(filled(path))
    assert 'drill_of("../model.py:step", beside=__file__)' in text
    monkeypatch.chdir(here / "elsewhere")
    for path in (here / "w.py", Path("..", "sheets", "w.py")):
        assert status("check", str(path)) == 0
        done = subprocess.run([sys.executable, "-W", "error", str(path)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.chdir(here)
    assert status("drill", str(here / "model.py:step")) == 0
    assert 'drill = tg.lab.drill_of("model.py:step")\n' in capsys.readouterr().out


@pytest.mark.parametrize("text", ["x * w * w", "tg.tanh(x * w) * 2.0", "tg.tanh(w * x)", "tg.sin(x * w)"])
def test_a_worksheet_of_another_version_says_so(text: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status("drill", "one.py", "--out", "w.py")
    sheet = here / "w.py"
    sheet.write_text(sheet.read_text().replace("only = tg.tanh(v1)  # ()", "only=tg.tanh( v1 )"))
    assert status("check", "w.py") == 1
    one = here / "one.py"
    one.write_text(one.read_text().replace("tg.tanh(x * w)", text))
    capsys.readouterr()
    for words in (["check", "w.py"], ["hint", "w.py", "d_x"]):
        assert status(*words) == 2
        assert capsys.readouterr().err.endswith("w.py was written for another version of only: write it anew\n")


def test_a_worksheet_of_a_file_that_is_gone_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status("drill", "one.py", "--out", "w.py")
    (here / "one.py").unlink()
    assert status("check", "w.py") == 2
    assert "there is no file one.py" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--help", "order --help", "check --help", "drill --help"])
def test_help_is_there(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(*words.split()) == 0
    assert "usage: tinygrad-rnn lab" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error(here: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "tinygrad_rnn.cli", "lab", "order"]
    done = subprocess.run(command, cwd=here, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
