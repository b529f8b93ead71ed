"""The command: what each word does, and for every kind of bad input one sentence, status 2 and nothing touched."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tinygrad_rnn as tg
from tinygrad_rnn import cli
from tinygrad_rnn.cli import display, training
from tinygrad_rnn.see import flow
from tinygrad_rnn.train import checkpoint
from tinygrad_rnn.train.log import LOG, Log
from tinygrad_rnn.train.loop import load_model

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 12
COMMAND = [sys.executable, "-c", "import sys; from tinygrad_rnn.cli import main; sys.exit(main())"]
SMALL = ["--embedding", "3", "--hidden", "5", "--batch", "4", "--truncation", "6", "--steps", "6"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a finished run; never written to, only copied."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    assert cli.main(["train", "--text", str(folder / "text.txt"), *SMALL, "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is also the current directory."""
    for path in trained.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(trained)).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(trained)).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def status(*arguments: str) -> int:
    """The exit status, also where argparse leaves by itself."""
    try:
        return cli.main(list(arguments))
    except SystemExit as leaving:
        return int(leaving.code or 0)


def train(*arguments: str) -> int:
    return status("train", "--text", "text.txt", *SMALL, *arguments)


# -- what it does ----------------------------------------------------------------------------------------------------


def test_train_leaves_a_checkpoint_a_log_and_a_curve(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        train("--cell", "gru", "--reset", "after", "--update", "old", "--layers", "2", "--out", "new", "--seed", "3")
        == 0
    )
    assert sorted(os.listdir("new")) == ["arrays-6.safetensors", "checkpoint.json", "log.jsonl", "loss.svg"]
    (entry,) = map(json.loads, Path("new", LOG).read_text().splitlines())
    assert entry.keys() == {"step", "loss", "val_loss", "tokens_per_second"}
    assert entry["step"] == 6 and 1 < entry["loss"] < 4 and 1 < entry["val_loss"] < 4 and entry["tokens_per_second"] > 0
    ElementTree.parse("new/loss.svg")
    said = capsys.readouterr().out
    assert "step 6/6" in said and "nats" in said and "bits/char" in said and "tokens/s" in said
    assert "tinygrad-rnn sample --checkpoint new" in said
    settings = checkpoint.load("new")["configuration"]
    assert (settings["reset"], settings["update"], settings["layers"], settings["seed"]) == ("after", "old", 2, 3)


def test_without_out_every_run_gets_a_folder_of_its_own(here: Path) -> None:
    (here / "run").rename("elsewhere")
    assert [train(), train(), train()] == [0, 0, 0]
    assert [checkpoint.load(name)["step"] for name in ("run", "run-2", "run-3")] == [6, 6, 6]


def test_the_default_text_needs_no_file(here: Path) -> None:
    assert status("train", *SMALL[:-1], "1", "--out", "new") == 0
    assert checkpoint.load("new")["configuration"]["text"] is None


def test_the_agreement_task_has_its_own_defaults(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("train", "--task", "agreement", "--steps", "3", "--out", "new") == 0
    settings = checkpoint.load("new")["configuration"]
    assert (settings["embedding"], settings["hidden"]) == (16, 32)
    said = capsys.readouterr().out
    assert "right" in said and "bits/verb" in said
    assert json.loads(Path("new", LOG).read_text())["accuracy"] == pytest.approx(0.5, abs=0.3)
    assert status("sample", "--checkpoint", "new", "--prompt", "the cats , which ate fish ,", "--length", "1") == 0
    assert capsys.readouterr().out.startswith("the cats , which ate fish , ")


def test_resume_goes_on_with_the_configuration_of_the_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("train", "--resume", "--out", "run", "--steps", "9") == 0
    assert checkpoint.load("run")["step"] == 9 and "step 6 to 9" in capsys.readouterr().out
    assert train("--steps", "9", "--out", "whole") == 0
    got, whole = (checkpoint.load(name)["model"] for name in ("run", "whole"))
    assert all(got[name].tobytes() == whole[name].tobytes() for name in whole)


def test_sample_is_reproducible(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def written(*more: str) -> str:
        assert status("sample", "--checkpoint", "run", "--length", "50", *more) == 0
        return capsys.readouterr().out

    text = written("--prompt", "the ", "--temperature", "0.9", "--seed", "5")
    assert text == written("--prompt", "the ", "--temperature", "0.9", "--seed", "5")
    assert text.startswith("the ") and len(text) == 4 + 50 + 1
    assert text != written("--prompt", "the ", "--temperature", "0.9", "--seed", "6")
    assert len(set(written("--prompt", "t", "--temperature", "0"))) < len(
        set(written("--prompt", "t", "--temperature", "9"))
    )
    assert len(written()) == 1 + 50 + 1  # without a prompt, it starts from one symbol


def test_a_checkpoint_of_one_backend_opens_on_another(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--backend", "fakecupy", "--out", "gpu") == 0
    capsys.readouterr()
    texts = []
    for name, backend in (("gpu", "numpy"), ("gpu", "fakecupy"), ("run", "fakecupy"), ("run", "numpy")):
        assert status("sample", "--checkpoint", name, "--prompt", "the", "--backend", backend) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 1  # the same run, wherever it was made and read
    assert status("train", "--resume", "--out", "gpu", "--steps", "8", "--backend", "numpy") == 0


@pytest.mark.parametrize(("cell", "letter", "says"), [
    ("gru", "z", "update gate: 1 takes the new"), ("lstm", "i", "input gate"),
    ("minimal_gru", "z", "update gate"), ("rnn", "h", "hidden state"),
])  # fmt: skip
def test_gates_says_what_opens_them(
    here: Path, capsys: pytest.CaptureFixture[str], cell: str, letter: str, says: str
) -> None:
    assert train("--cell", cell, "--layers", "2", "--out", "new") == 0
    capsys.readouterr()
    assert status("gates", "--checkpoint", "new", "--prompt", "the cat, a dog", "--units", "3") == 0
    said = capsys.readouterr().out
    assert re.search(rf"layer 1: {letter}\b.* in 3 of 5 units", said)
    assert f"\n{letter}  {says}" in said and "the␣cat,␣a␣dog" in said
    assert said.count("\nunit ") == 3 and "\x1b" not in said and "scale: " in said
    assert (f"gate {letter} is most open at" in said) == (cell != "rnn")


def test_gates_are_those_of_the_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("gates", "--checkpoint", "run", "--prompt", "the cat") == 0
    said = capsys.readouterr().out
    model, vocabulary, _ = load_model("run")
    (found,) = flow.gates_over_text(model, vocabulary, "the cat")
    assert found.sentences()[0] in " ".join(said.split())
    assert status("gates", "--checkpoint", "run", "--prompt", "the cat", "--gate", "h", "--layer", "0") == 0
    assert "h  hidden state" in capsys.readouterr().out
    assert status("gates", "--checkpoint", "run", "--prompt", "the cat", "--gate", "") != 0
    assert "and no ''" in capsys.readouterr().err
    for name, starts in (("g.svg", "<svg"), ("g.html", "<!doctype html>"), ("g.txt", "GRU, layer 0")):
        assert status("gates", "--checkpoint", "run", "--prompt", "the cat", "--out", name) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{name} shows z, r, n, h.\n") and "The update gate z is most open at" in said
        assert Path(name).read_text().startswith(starts)
    assert ElementTree.parse("g.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_gates_over_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("train", "--task", "agreement", "--steps", "1", "--out", "new") == 0
    capsys.readouterr()
    assert status("gates", "--checkpoint", "new", "--prompt", "the cats , which ate fish ,") == 0
    said = capsys.readouterr().out
    assert re.search(r"\ncats +0\.\d\d \S", said) and re.search(r"\nfish +0\.\d\d \S", said)


def test_info_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("info") == 0
    said = capsys.readouterr().out
    assert f"tinygrad-rnn {tg.__version__}" in said and "numpy: usable" in said and "cupy: " in said
    assert status("--version") == 0 and tg.__version__ in capsys.readouterr().out
    for command in ([], ["train"], ["sample"], ["gates"], ["demo"], ["draw"], ["play"], ["info"]):
        assert status(*command, "--help") == 0
        assert "--help" in capsys.readouterr().out


def test_demo_leaves_everything_that_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "DEMO_SECONDS", 1.0)
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    assert status("demo") == 0
    assert time.monotonic() - started < 31  # what comes on top of the training
    said = capsys.readouterr().out
    assert said.index("What it writes before") < said.index("step ") < said.index("What it writes after")
    files = {"checkpoint.json", "log.jsonl", "loss.svg", "gru_step.svg", "README.txt"}
    assert files < set(os.listdir("demo-run")) and len(os.listdir("demo-run")) == len(files) + 1
    readme = Path("demo-run/README.txt").read_text()
    assert all(name in readme for name in files)
    step = checkpoint.load("demo-run")["step"]
    commands = [line.strip() for line in readme.splitlines() if " -m tinygrad_rnn.cli " in line]
    assert len(commands) == 3 and f"after {step} steps" in readme
    for command in commands[:2]:  # from anywhere, in no environment
        shorter = re.sub(r"--steps \d+", f"--steps {step + 1}", command)
        done = subprocess.run(shorter, shell=True, cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True)
        assert done.returncode == 0 and not done.stderr
    assert checkpoint.load("demo-run")["step"] == step + 1
    for picture in ("loss.svg", "gru_step.svg"):
        assert ElementTree.parse(f"demo-run/{picture}").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "sigmoid" in Path("demo-run/gru_step.svg").read_text()


def interrupted(here: Path, number: int, *options: str, out: str = "long") -> tuple[int, str]:
    process = subprocess.Popen(
        [*COMMAND, "train", "--text", "text.txt", *SMALL[:-1], "1000000", f"--out={out}", *options],
        cwd=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (here / out / LOG).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_says_how_to_go_on(here: Path, number: int) -> None:
    code, said = interrupted(here, number)
    step = checkpoint.load(here / "long")["step"]
    assert code == 130 and "Traceback" not in said
    assert f"stopped after step {step}, all is saved" in said and "tinygrad-rnn train --resume --out long" in said
    assert step % 100 or step == 100  # that very step, not the last one that was due
    assert status("train", "--resume", "--out", "long", "--steps", str(step + 2)) == 0


def test_a_signal_in_the_midst_of_a_line_is_no_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Raw(io.RawIOBase):
        """Whoever writes here is interrupted, while the buffer above is locked."""

        written = b""

        def writable(self) -> bool:
            return True

        def write(self, content: Any) -> int:
            first = b"step 10/" not in self.written
            self.written += bytes(content)
            if first and b"step 10/" in self.written:
                signal.raise_signal(signal.SIGTERM)
            return len(content)

    raw = Raw()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), write_through=True))
        assert status("train", "--text", "text.txt", *SMALL[:-1], "3000", "--out", "long") == 130
    assert b"stopped after step" in raw.written and checkpoint.load("long")["step"] >= 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_training_ends_the_command_quietly(here: Path, number: int) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("pipes with names are a thing of Unix")
    os.mkfifo(here / "pipe")  # the command waits for its text
    process = subprocess.Popen(
        [*COMMAND, "train", "--text", "pipe", "--out", "new"], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    handle = os.open(here / "pipe", os.O_WRONLY)  # returns when it has come so far
    process.send_signal(number)
    assert process.communicate(timeout=60) == (b"", b"") and process.returncode == 130
    os.close(handle)
    assert not (here / "new").exists()


def test_the_way_to_go_on_repeats_what_the_checkpoint_does_not_keep(here: Path) -> None:
    chosen = ["--log-every", "3", "--save-every", "70", "--threads", "2", "--backend", "numpy"]
    code, said = interrupted(here, signal.SIGINT, *chosen, out="my run's")
    (command,) = (shlex.split(line)[1:] for line in said.splitlines() if "--resume" in line)
    assert code == 130 and command[:4] == ["train", "--resume", "--out", "my run's"]
    given = dict(zip(command[4::2], command[5::2]))
    assert given == {"--log-every": "3", "--save-every": "70", "--threads": "2", "--backend": "numpy"}
    assert status(*command, "--steps", str(checkpoint.load(here / "my run's")["step"] + 1)) == 0


def test_an_interrupted_demo_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    real = display.Display.show

    def show(shown: display.Display, report: Any) -> None:
        real(shown, report)
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(display.Display, "show", show)
    assert status("demo", "--out", "my demo") == 130
    said = capsys.readouterr().out
    assert "stopped after step 3, all is saved" in said
    command = shlex.split(said.splitlines()[-1])[1:]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert status(*command, "--steps", "4") == 0 and checkpoint.load("my demo")["step"] == 4


def test_folders_that_look_like_options_are_named_so_that_they_are_none(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--out=-x") == 0
    said = capsys.readouterr().out
    assert status(*shlex.split(said.splitlines()[-1])[1:], "--length", "3") == 0
    capsys.readouterr()
    assert train("--out=-x") == 2
    said = capsys.readouterr().err
    assert "train --resume --out=-x, or" in said
    code, said = interrupted(here, signal.SIGINT, out="-long")
    assert code == 130 and "tinygrad-rnn train --resume --out=-long\n" in said


def test_names_with_spaces_are_quoted_in_what_is_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", "my run") == 0
    said = capsys.readouterr().out
    assert status(*shlex.split(next(line for line in said.splitlines() if "sample" in line))[1:]) == 0
    assert train("--out", "my run") == 2
    assert "--resume --out 'my run'" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_bytes_in_two_processes(here: Path) -> None:
    for name in ("one", "two"):
        command = [*COMMAND, "train", "--text", "text.txt", *SMALL, "--seed", "3", "--out", name]
        subprocess.run([*command, "--layers", "2", "--dropout", "0.3"], cwd=here, check=True, capture_output=True)
    one, two = (listing(here / name) for name in ("one", "two"))
    assert one.pop(LOG) and two.pop(LOG)  # it says how fast it was
    assert one == two and {"arrays-6.safetensors", "checkpoint.json", "loss.svg"} == one.keys()


def test_the_command_runs_in_any_thread(here: Path) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(train("--out", "new")))
    thread.start()
    thread.join()
    assert found == [0]


def shown_in_a_terminal(here: Path, columns: int) -> str:
    pty = pytest.importorskip("pty", reason="pseudo-terminals are a thing of Unix")
    master, slave = pty.openpty()
    command = [*COMMAND, "train", "--text", "text.txt", *SMALL, "--out", "new", "--log-every", "1"]
    process = subprocess.Popen(
        command, cwd=here, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            if not (part := os.read(master, 10_000)):
                break
        except OSError:  # Linux says so at the end of a terminal
            break
        shown += part
    os.close(master)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("columns", [150, 80, 40])
def test_in_a_terminal_there_is_a_live_bar(here: Path, columns: int) -> None:
    shown = shown_in_a_terminal(here, columns)
    assert "\x1b[" in shown and "━" in shown  # it moves, and has a bar
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in shown.splitlines()]
    bar = [line for line in lines if "━" in line][-1]
    below = lines[len(lines) - lines[::-1].index(bar)]
    assert re.search(r"step 6/6 .* 0:00 left", bar) and len(bar) <= columns
    assert re.search(r"\d\.\d{3} nats .*\d\.\d{3} bits.*\d tokens/s", below) and len(below) <= columns
    assert ("bits/char" in below) == (columns > 40) and "…" not in shown


def test_the_first_step_already_says_loss_and_speed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", "new") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["1/6", "6/6"]
    assert all(re.search(r"loss \d\.\d{3} nats .* \d[\d,]* tokens/s", line) for line in lines)


def test_a_reader_that_leaves_early_is_no_error(here: Path) -> None:
    command = [*COMMAND, "sample", "--checkpoint", "run", "--length", "20000"]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.read(5)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0
    process.stderr.close()


def test_a_reader_of_a_run_that_leaves_early_ends_it_in_good_order(here: Path) -> None:
    command = [*COMMAND, "train", "--text", "text.txt", *SMALL[:-1], "1000000", "--out", "long"]
    command += ["--log-every", "1", "--validate-every", "1", "--save-every", "100000"]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    for _ in range(3):
        process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0
    process.stderr.close()
    assert checkpoint.load(here / "long")["step"] == Log(here / "long" / LOG, 10**6).entries()[-1]["step"] >= 2


@pytest.mark.parametrize(
    "command",
    [
        "info",
        "--version",
        "train --help",
        "sample --checkpoint run",
        "gates --checkpoint run --prompt a",
        "train --out new",
    ],
)
def test_nobody_who_reads_at_all_is_no_error(here: Path, command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, *command.split()], cwd=here, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the disk that is always full is a thing of Linux")
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "command",
    ["info", "--version", "sample --checkpoint run", "gates --checkpoint run --prompt a", "train --out new", "demo"],
)
def test_an_output_on_a_full_disk_gets_one_sentence(here: Path, command: str, buffered: bool) -> None:
    with open("/dev/full", "w") as full:
        done = run_command(command, here, buffered, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "the output could not be written (No space left on device)" in done.stderr
        assert run_command(command, here, buffered, stdout=full, stderr=full).returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the disk that is always full is a thing of Linux")
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("command", ["train --hidden 0", "train --frob", "sample --checkpoint nowhere"])
def test_a_sentence_that_cannot_be_written_leaves_the_status(here: Path, command: str, buffered: bool) -> None:
    with open("/dev/full", "w") as full:
        assert run_command(command, here, buffered, stderr=full).returncode == 2


def run_command(command: str, here: Path, buffered: bool, **options: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own, whose Python does or does not keep back what it writes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    return subprocess.run([*COMMAND, *command.split()], cwd=here, env=environment, **options)


def test_a_run_that_runs_away_keeps_its_last_good_checkpoint(here: Path) -> None:
    command = [*COMMAND, "train", "--text", "text.txt", *SMALL[:-1], "50", "--out", "away", "--lr", "1e38"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "is nan at step" in done.stderr and "checkpoint of step 0 is kept" in done.stderr and "--lr" in done.stderr
    assert status("sample", "--checkpoint", "away", "--length", "3") == 0


@pytest.mark.parametrize("log", [None, b'{"step": 3}\n{"step": "4", "loss": "low"}\n{"step": 5, "loss": NaN}\n[]\n7\n'])
def test_a_log_of_other_make_or_none_is_no_obstacle(here: Path, log: bytes | None) -> None:
    path = here / "run" / LOG
    path.unlink() if log is None else path.write_bytes(log)
    for steps in ("6", "8"):
        assert status("train", "--resume", "--out", "run", "--steps", steps) == 0
    assert Log(path, 10**6).entries()[-1]["step"] == 8
    ElementTree.parse(here / "run" / "loss.svg")


def test_words_need_no_particular_spacing_but_some(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("train", "--task", "agreement", "--steps", "1", "--out", "new") == 0
    capsys.readouterr()
    assert status("sample", "--checkpoint", "new", "--prompt", "  the  cats ,\nwhich ", "--length", "1") == 0
    assert capsys.readouterr().out.startswith("the cats , which ")
    for prompt, says in (("the cats, which", "'cats,' never occurred"), (" \n ", "the prompt is empty")):
        assert status("sample", "--checkpoint", "new", "--prompt", prompt) == 2
        said = capsys.readouterr().err
        assert says in said and len(said) < 500
    assert status("sample", "--checkpoint", "new", "--prompt", "the cats, which") == 2
    assert "a space on either side" in capsys.readouterr().err


def test_a_new_run_leaves_the_files_of_others_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = ("arrays-0.safetensors", "arrays-6.safetensors", "arrays-best.safetensors", "thesis.partial")
    (here / "new").mkdir()
    for name in mine:
        (here / "new" / name).write_bytes(b"mine")
    assert train("--out", "new") == 0 and status("sample", "--checkpoint", "new") == 0
    assert all((here / "new" / name).read_bytes() == b"mine" for name in mine)
    (here / "other").mkdir()
    (here / "other" / "checkpoint.json.partial").write_bytes(b"mine")
    assert train("--out", "other") == 2 and "holds a file checkpoint.json.partial already" in capsys.readouterr().err
    (here / "other" / "checkpoint.json.partial").write_bytes(Path("run/checkpoint.json").read_bytes()[:200])
    assert train("--out", "other") == 0  # that was left behind by a kill


def test_a_folder_that_may_not_be_searched(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def guarded(path: Any, *more: Any, real: Any = os.stat, **options: Any) -> Any:
        if str(path).startswith("run/"):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **options)

    before = listing(here)
    monkeypatch.setattr(os, "stat", guarded)
    for command in (GO_ON, "train --out run", "demo --out run"):
        assert status(*command.split()) == 2
        assert "run cannot be looked into (Permission denied)" in capsys.readouterr().err
    monkeypatch.undo()
    assert listing(here) == before


# -- bad input -------------------------------------------------------------------------------------------------------


def edit_json(**changes: object) -> Callable[[], None]:
    def edit() -> None:
        head = json.loads(Path("run/checkpoint.json").read_text())
        Path("run/checkpoint.json").write_text(json.dumps({**head, **changes}))

    return edit


def forged(**changes: object) -> Callable[[], None]:
    return lambda: checkpoint.save("run", {**checkpoint.load("run"), **changes}, step=6)


def edit_arrays(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[], None]:
    def edit() -> None:
        arrays = load_file("run/arrays-6.safetensors")
        change(arrays)
        save_file(arrays, "run/arrays-6.safetensors")

    return edit


def write(name: str, content: bytes) -> Callable[[], None]:
    return lambda: (Path(name).write_bytes(content), None)[1]


def cut() -> None:
    path = Path("run/arrays-6.safetensors")
    path.write_bytes(path.read_bytes()[:-100])


def link(name: str, target: str) -> Callable[[], None]:
    return lambda: os.symlink(target, name)


def edit_weights(value: float) -> Callable[[], None]:
    def edit() -> None:
        state = checkpoint.load("run")
        state["model"]["head.W"][1, 2] = value
        state["model"]["head.b"][:] = value
        checkpoint.save("run", state, step=6)

    return edit


def log_as_a_folder() -> None:
    os.remove(f"run/{LOG}")
    os.mkdir(f"run/{LOG}")


def nothing() -> None:
    pass


WEIGHT = "model/head.W"
TRAIN, SAMPLE, GO_ON = "train --out new", "sample --checkpoint run --prompt the", "train --resume --out run --steps 9"
GATES = "gates --checkpoint run --prompt the"
BAD: dict[str, tuple[Callable[[], None], str, str]] = {
    "missing text": (nothing, f"{TRAIN} --text nowhere.txt", "there is no file"),
    "text of a mark alone": (write("t", b"\xef\xbb\xbf"), f"{TRAIN} --text t", "is empty"),
    "empty text": (write("t", b""), f"{TRAIN} --text t", "is empty"),
    "binary text": (write("t", bytes(range(256))), f"{TRAIN} --text t", "is a binary file"),
    "text not UTF-8": (write("t", "Gr\u00fc\u00dfe".encode("latin-1") * 999), f"{TRAIN} --text t", "iconv"),
    "short text": (write("t", b"abc" * 50), f"{TRAIN} --text t", "too short: it has 150 characters"),
    "unseen character": (nothing, "sample --checkpoint run --prompt Q", "the character 'Q' never occurred"),
    "empty prompt": (nothing, "sample --checkpoint run --prompt=", "the prompt is empty"),
    "bad temperature": (nothing, f"{SAMPLE} --temperature -1", "the temperature is -1"),
    "bad length": (nothing, f"{SAMPLE} --length -1", "the length is -1"),
    "bad seed": (nothing, f"{SAMPLE} --seed -1", "--seed is -1"),
    "gates without a prompt": (nothing, "gates --checkpoint run", "--prompt"),
    "gates over nothing": (nothing, "gates --checkpoint run --prompt=", "the text is empty"),
    "gates over what was never seen": (
        nothing,
        "gates --checkpoint run --prompt Q",
        "the character 'Q' never occurred",
    ),
    "no such layer": (nothing, f"{GATES} --layer 1", "--layer is 1; the model has 1, counted from 0"),
    "a layer below 0": (nothing, f"{GATES} --layer -2", "--layer is -2"),
    "no such gate": (nothing, f"{GATES} --gate i", "GRUCell defines z, r, n, h, and no 'i'"),
    "no units": (nothing, f"{GATES} --units 0", "0 is not a whole number of at least 1"),
    "gates in an unknown form": (nothing, f"{GATES} --out new.gif", "known suffixes are .svg, .html, .txt"),
    "gates in no folder": (nothing, f"{GATES} --out nowhere/new.svg", "cannot write nowhere/new.svg"),
    "gates of no checkpoint": (nothing, "gates --checkpoint nowhere --prompt a", "there is no checkpoint in nowhere"),
    "no checkpoint": (nothing, "sample --checkpoint nowhere", "there is no checkpoint in nowhere"),
    "truncated checkpoint": (cut, SAMPLE, "is truncated"),
    "wrong header": (write("run/arrays-6.safetensors", b"\x08" + bytes(7) + b"notjson!"), SAMPLE, "wrong header"),
    "missing tensor": (edit_arrays(lambda a: a.pop(WEIGHT)), SAMPLE, f"lacks the tensor '{WEIGHT}'"),
    "extra tensor": (edit_arrays(lambda a: a.update(spy=np.ones(2))), SAMPLE, "the extra tensor 'spy'"),
    "wrong shape": (
        edit_arrays(lambda a: a.update({WEIGHT: np.ones((2, 3), "f")})),
        SAMPLE,
        "has shape (2, 3) instead",
    ),
    "wrong dtype": (edit_arrays(lambda a: a.update({WEIGHT: a[WEIGHT].astype("d")})), SAMPLE, "has dtype float64"),
    "newer format": (edit_json(format_version=99), SAMPLE, "pip install --upgrade"),
    "checkpoint.json cut": (write("run/checkpoint.json", b'{"format'), SAMPLE, "is truncated or damaged"),
    "resuming a truncated checkpoint": (cut, GO_ON, "is truncated"),
    "resuming nothing": (nothing, "train --resume --out nowhere", "there is no run in nowhere to go on with"),
    "resuming nowhere": (nothing, "train --resume", "--resume needs --out"),
    "resuming another model": (nothing, f"{GO_ON} --hidden 7", "--hidden is 7, but the run in run has 5"),
    "no such backend": (nothing, f"{TRAIN} --backend abacus", "there is no backend 'abacus'"),
    "hidden size of 0": (nothing, f"{TRAIN} --hidden 0", "--hidden is 0; it must be at least 1"),
    "hidden size of nothing": (nothing, f"{TRAIN} --hidden many", "invalid int value: 'many'"),
    "log at no step": (nothing, f"{TRAIN} --log-every 0", "0 is not a whole number of at least 1"),
    "no such cell": (nothing, f"{TRAIN} --cell gur", "choose from"),
    "a reset gate for an LSTM": (
        nothing,
        f"{TRAIN} --cell lstm --reset after",
        "--reset has no meaning with --cell lstm",
    ),
    "a text for agreement": (nothing, f"{TRAIN} --task agreement --text text.txt", "--text has no meaning"),
    "a checkpoint of NaN": (edit_weights(float("nan")), SAMPLE, "a weight in the checkpoint in run is nan"),
    "going on from NaN": (edit_weights(float("nan")), GO_ON, "a weight in the checkpoint in run is nan"),
    "a checkpoint that is a file": (nothing, "sample --checkpoint text.txt", "text.txt is a file"),
    "a checkpoint in a file": (nothing, "sample --checkpoint text.txt/run", "there is no checkpoint in"),
    "a checkpoint of no name": (nothing, "sample --checkpoint=", "the name is empty"),
    "a folder of no name": (nothing, "train --out=", "the name is empty"),
    "a text of no name": (nothing, f"{TRAIN} --text=", "the name is empty"),
    "a text that is a link to nowhere": (link("t", "gone"), f"{TRAIN} --text t", "t is a link to gone, which is not"),
    "a text that is a link to itself": (link("t", "t"), f"{TRAIN} --text t", "cannot be read"),
    "a folder that is a link to nowhere": (link("new", "gone"), TRAIN, "new is a link to gone, which is not there"),
    "a folder that is a link to itself": (link("new", "new"), TRAIN, "cannot be looked into"),
    "resuming a link to nowhere": (link("new", "gone"), "train --resume --out new", "there is no run in new"),
    "a log that is a folder": (log_as_a_folder, GO_ON, "log.jsonl cannot be read and written (Is a directory)"),
    "another text": (
        write("text.txt", b"something else entirely. " * 99),
        f"{GO_ON} --text text.txt",
        "the text is not the one",
    ),
    "an altered number": (edit_json(step=5), SAMPLE, "were altered since they were saved"),
    "too many layers": (nothing, f"{TRAIN} --layers 1000000000", "not enough memory"),
    "a size beyond all numbers": (nothing, f"{TRAIN} --hidden {10**30}", "not enough memory"),
    "too much memory": (nothing, f"{TRAIN} --hidden 100000000000", "not enough memory"),
    "a file in the way": (nothing, "train --out text.txt", "cannot be made"),
    "a file on the way": (nothing, "train --out text.txt/new", "cannot be made"),
    "a name too long": (nothing, f"train --out {'x' * 300}", "(File name too long): name another folder"),
    "JSON without end": (write("run/checkpoint.json", b"[" * 100_000), SAMPLE, "is damaged"),
    "resuming JSON without end": (write("run/checkpoint.json", b"[" * 100_000), GO_ON, "is damaged"),
    "a forged step": (forged(step=-5), GO_ON, "step is a whole number out of range"),
    "a forged state": (forged(carried="x"), GO_ON, "carried is of type str"),
    "another run": (nothing, "train --out run", "run holds another run: go on with it"),
    "another demo": (nothing, "demo --out run", "run holds another run"),
    "somebody's file": (write("README.txt", b"mine"), "demo --out .", "holds a file README.txt already"),
    "no command": (nothing, "", "required"),
    "no such command": (nothing, "trian", "invalid choice"),
    "no such option": (nothing, f"{TRAIN} --hiden 3", "unrecognized arguments"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gets_one_sentence_and_touches_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    prepare, command, says = BAD[kind]
    prepare()
    before = listing(here)
    assert status(*command.split()) == 2
    said = capsys.readouterr()
    assert says in said.err and "Traceback" not in said.err
    assert said.err.startswith("tinygrad-rnn") and said.err.count("\n") == 1 and len(said.err) < 500
    assert listing(here) == before


def test_cupy_that_cannot_be_used_is_named_with_its_remedy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if tg.backends()["cupy"].usable:
        pytest.skip("CuPy can be used here")
    before = listing(here)
    for command in (TRAIN, SAMPLE):
        assert status(*command.split(), "--backend", "cupy") == 2
        said = capsys.readouterr().err
        assert "upy" in said and "nstall" in said and said.count("\n") == 1
    assert listing(here) == before


@pytest.mark.parametrize("command", [SAMPLE, GO_ON])
def test_a_backend_that_cannot_be_used_is_not_blamed_on_the_checkpoint(here: Path, command: str) -> None:
    environment = {**os.environ, "TINYGRAD_RNN_BACKEND": "abacus"}
    done = subprocess.run([*COMMAND, *command.split()], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "there is no backend 'abacus'" in done.stderr and "checkpoint" not in done.stderr


def test_bad_input_in_a_process_of_its_own(here: Path) -> None:
    done = subprocess.run([*COMMAND, "train", "--text", "nowhere.txt"], cwd=here, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("tinygrad-rnn: there is no file") and done.stderr.count("\n") == 1


def test_a_folder_that_may_not_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = here / "locked"
    locked.mkdir(0o555)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert train("--out", "locked") == 2
    assert "Permission denied" in capsys.readouterr().err and not os.listdir(locked)


@pytest.fixture
def small_disk(here: Path) -> Iterator[Path]:
    disk = here / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small disk is not permitted here: {error}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_may_only_be_read(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small_disk / "empty").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for out in ("disk/empty", "disk/new"):
        for command in (f"train --text text.txt {' '.join(SMALL)}", "demo"):
            assert status(*command.split(), "--out", out) == 2
            said = capsys.readouterr().err
            assert "Read-only file system" in said and "--out" in said and said.count("\n") == 1
    assert os.listdir(small_disk) == ["empty"] and not os.listdir(small_disk / "empty")


def test_a_disk_that_fills_up_while_training(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--out", "disk/run") == 0
    disk = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes((disk.f_bavail - 1) * disk.f_bsize))
    before = listing(small_disk)
    assert status("train", "--resume", "--out", "disk/run", "--steps", "500", "--log-every", "100") == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said and "make room" in said and said.count("\n") == 1
    assert checkpoint.load(small_disk / "run")["step"] >= 6 and not list(small_disk.rglob("*.partial"))
    assert listing(small_disk)["ballast"] == before["ballast"]
    (small_disk / "ballast").unlink()
    assert status("train", "--resume", "--out", "disk/run", "--steps", "12") == 0


def test_draw_and_play_show_a_cell_or_a_model(here, capsys):
    assert status("play", "--cell", "lstm", "--steps", "2", "--out", "lstm.html") == 0
    assert status("draw", "--out", "gru.svg") == 0
    assert status("play", "--checkpoint", "run", "--prompt", "the cat", "--out", "open.html") == 0
    assert status("play", "--checkpoint", "run", "--prompt", "the cat", "--fused", "--out", "fused.html") == 0
    assert status("draw", "--checkpoint", "run", "--prompt", "the cat", "--out", "model.svg") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["lstm.html", "gru.svg", "open.html", "fused.html", "model.svg"]
    steps = [int(re.search(r"through (\d+) steps", line)[1]) for line in said if "steps" in line]
    assert steps[1] > 5 * steps[2] > 50
    ElementTree.fromstring((here / "gru.svg").read_text())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("play", "--out"),
        ("play --out page.txt", "known suffixes are .html"),
        ("draw --out picture.bmp", "known suffixes"),
        ("play --cell tree --out page.html", "invalid choice"),
        ("play --steps 0 --out page.html", "at least 1"),
        ("draw --steps 41 --out page.svg", "from 1 to 40"),
        ("play --prompt the --out page.html", "without --checkpoint"),
        ("play --fused --out page.html", "without --checkpoint"),
        ("play --checkpoint run --out page.html", "--prompt"),
        ("play --checkpoint run --cell gru --prompt the --out page.html", "leave them out"),
        ("play --checkpoint run --prompt t --out page.html", "the prompt is 1 long"),
        ("play --checkpoint run --prompt THE --out page.html", ""),
        ("play --checkpoint nowhere --prompt the --out page.html", "nowhere"),
        ("play --out no/page.html", "cannot write"),
    ],
)
def test_draw_and_play_refuse_in_one_sentence(words, reason, here, capsys):
    before = listing(here)
    assert status(*shlex.split(words)) == 2
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1 and listing(here) == before
