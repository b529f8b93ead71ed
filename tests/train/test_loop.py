"""The loop: a run that was stopped anywhere, even by a kill, ends exactly like one that never was."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakecupy
import numpy as np
import pytest
from devices import without_kernels

import tinygrad_rnn as tg
from tinygrad_rnn.errors import CheckpointError, NumericalError, OptionError, OutputError, TextError
from tinygrad_rnn.train import checkpoint
from tinygrad_rnn.train.log import LOG, Log
from tinygrad_rnn.train.loop import Configuration, Run, load_model

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 12
STEPS = 11
SMALL: dict[str, Any] = {"embedding": 3, "hidden": 5, "batch": 4, "truncation": 6, "steps": STEPS, "lr": 0.05}
KINDS: dict[str, dict[str, Any]] = {
    "gru": {},
    "lstm, two layers, dropout": {"cell": "lstm", "layers": 2, "dropout": 0.4},
    "cosine": {"cell": "minimal_gru", "schedule": "cosine"},
    "agreement": {"task": "agreement", "cell": "rnn"},
}


@pytest.fixture(autouse=True)
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def configuration(text: Path, **options: Any) -> Configuration:
    return Configuration(**{"text": str(text), **SMALL, **options})


def drained(reports: Iterator[Any]) -> None:
    for _ in reports:
        pass


def train(run: Run, folder: Path, **options: Any) -> None:
    folder.mkdir(exist_ok=True)
    drained(run.train(folder, **{"log_every": 4, "validate_every": 5, "save_every": 3, **options}))


def outcome(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on its interruptions: all but speeds."""
    log = [{k: v for k, v in entry.items() if k != "tokens_per_second"} for entry in Log(folder / LOG, 10**9).entries()]
    state = checkpoint.load(folder)
    state["configuration"]["text"] = None
    arrays = {str(path): (a.dtype, a.shape, a.tobytes()) for path, a in _leaves(state, ())}
    return {"log": log, "rest": json.dumps(state, default=lambda a: "array", sort_keys=True), **arrays}


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], np.ndarray]]:
    if isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, (dict, list)):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(part, (*path, name))


def test_the_loss_goes_down_and_the_log_says_so(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text, steps=60, hidden=12)), tmp_path / "run", log_every=10, validate_every=30)
    entries = Log(tmp_path / "run" / LOG, 60).entries()
    assert [e["step"] for e in entries] == [10, 20, 30, 40, 50, 60]
    assert [e["step"] for e in entries if e["val_loss"] is not None] == [30, 60]
    assert entries[-1]["loss"] < 1.3 < 2.0 < entries[0]["loss"] < np.log(18) + 0.3
    assert entries[-1]["val_loss"] < 1.3 and all(e["tokens_per_second"] > 0 for e in entries)


def test_the_reported_loss_is_the_mean_since_the_last_report(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text)), tmp_path / "coarse")
    train(Run(configuration(text)), tmp_path / "fine", log_every=1)
    coarse, fine = (Log(tmp_path / name / LOG, STEPS).entries() for name in ("coarse", "fine"))
    each = [e["loss"] for e in fine]
    assert [e["step"] for e in coarse] == [4, 8, 11]
    wanted = [np.mean(each[:4]), np.mean(each[4:8]), np.mean(each[8:])]
    np.testing.assert_allclose([e["loss"] for e in coarse], wanted, rtol=1e-6)


def test_the_validation_loss_is_that_of_the_held_back_tenth(text: Path) -> None:
    run = Run(configuration(text, batch=1))
    ids = run.task.vocabulary.encode(TEXT)[-(len(TEXT) // 10) :]
    logits = run.model(ids[:-1, None])[0].numpy()[:, 0].astype(np.float64)
    chosen = logits[np.arange(len(ids) - 1), ids[1:]]
    wanted = (np.log(np.exp(logits).sum(1)) - chosen).mean()
    assert run.validate()["val_loss"] == pytest.approx(wanted, rel=1e-5)


def test_a_validation_leaves_dropout_as_it_was(text: Path) -> None:
    run = Run(configuration(text, layers=2, dropout=0.4))
    seen = []
    run.task.validate = lambda model: seen.append(model.recurrent.training) or {}  # type: ignore[method-assign]
    run.validate()
    assert seen == [False] and all(module.training for _, module in run.model.named_modules())


def test_no_step_follows_a_gradient_longer_than_the_clip(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, norms = Run(configuration(text, clip=0.01)), []

    def seen(real: Any = run.optimizer.step) -> None:
        norms.append(np.sqrt(sum(np.square(p.grad.numpy()).sum() for p in run.model.parameters())))
        real()

    monkeypatch.setattr(run.optimizer, "step", seen)
    run.advance()
    assert norms == [pytest.approx(0.01, rel=1e-3)]


def test_the_speed_is_that_since_the_last_line(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, clock = Run(configuration(text)), [0.0]
    real = run.advance

    def timed() -> None:
        real()
        clock[0] += 0.25 if run.step <= 4 else 0.5

    monkeypatch.setattr(run, "advance", timed)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    train(run, tmp_path / "run")
    speeds = [entry["tokens_per_second"] for entry in Log(tmp_path / "run" / LOG, STEPS).entries()]
    assert speeds == [4 * 6 / 0.25, 4 * 6 / 0.5, 4 * 6 / 0.5]


def test_the_first_step_is_reported_at_once_and_not_logged(tmp_path: Path, text: Path) -> None:
    run, folder = Run(configuration(text)), tmp_path / "run"
    folder.mkdir()
    reports = list(run.train(folder, log_every=4))
    assert [report.step for report in reports if report.loss is not None] == [1, 4, 8, 11]
    assert all((report.loss is None) == (report.tokens_per_second is None) for report in reports)
    assert reports[0].loss == pytest.approx(np.log(18), abs=0.3)
    assert [entry["step"] for entry in Log(folder / LOG, STEPS).entries()] == [4, 8, 11]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_after_any_step_ends_like_one_that_never_was(tmp_path: Path, text: Path, kind: str) -> None:
    config = configuration(text, **KINDS[kind])
    train(Run(config), tmp_path / "whole")
    whole = outcome(tmp_path / "whole")
    for stop in range(1, STEPS):
        run, folder = Run(config), tmp_path / f"stopped{stop}"
        folder.mkdir()
        for report in run.train(folder, log_every=4, validate_every=5, save_every=3):
            run.stopping = report.step == stop
        assert run.step == stop == checkpoint.load(folder)["step"]
        np.random.default_rng().random()
        tg.seed(999)  # another program ran meanwhile
        train(Run.resumed(folder), folder)
        assert outcome(folder) == whole


@pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "random", "task", "carried", "summed"])
def test_each_part_of_the_state_is_needed(tmp_path: Path, text: Path, part: str) -> None:
    """What would a run be that did not restore this part? Another one; so the comparison above sees every part."""
    config = configuration(text, layers=2, dropout=0.3, schedule="cosine")
    train(Run(config), tmp_path / "whole")
    run, folder = Run(config), tmp_path / "stopped"
    folder.mkdir()
    for report in run.train(folder, log_every=4, validate_every=5, save_every=3):
        run.stopping = report.step == 7
    resumed = Run.resumed(folder)
    fresh = Run(config)
    if part == "random":
        tg.seed(config.seed)
    elif part == "carried":
        resumed._carried = None
    elif part == "summed":
        resumed._summed = 0.0
    else:
        getattr(resumed, part).load_state_dict(getattr(fresh, part).state_dict())
    if part != "random":  # making `fresh` has used random numbers
        tg.backend.random.set_state(checkpoint.load(folder)["random"])
    if part == "schedule":
        resumed.schedule.optimizer.lr = config.lr  # type: ignore[union-attr]
    train(resumed, folder)
    assert outcome(folder) != outcome(tmp_path / "whole")


def test_a_log_ahead_of_its_checkpoint_or_torn_is_cut_back(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text)), tmp_path / "whole")
    run, folder = Run(configuration(text)), tmp_path / "stopped"
    folder.mkdir()
    for report in run.train(folder, log_every=1, validate_every=5, save_every=3):
        if report.step == 5:
            break  # as a kill would: saved at 3, logged to 5
    with open(folder / LOG, "ab") as file:
        file.write(b'{"step": 2, "lo')
    assert Run.resumed(folder).step == 3
    train(Run.resumed(folder), folder, log_every=1)
    assert [e["step"] for e in Log(folder / LOG, STEPS).entries()] == list(range(1, STEPS + 1))


def test_a_run_goes_on_past_its_last_step_if_asked(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text, steps=5)), tmp_path / "short")
    train(Run.resumed(tmp_path / "short", steps=STEPS), tmp_path / "short")
    train(Run(configuration(text)), tmp_path / "whole")
    short, whole = outcome(tmp_path / "short"), outcome(tmp_path / "whole")
    assert short["('model', 'head.W')"] == whole["('model', 'head.W')"]
    with pytest.raises(OptionError, match=r"--steps is 7, but the run in .* is at 11 already: ask for more"):
        Run.resumed(tmp_path / "short", steps=7)


@pytest.mark.parametrize(("first", "second"), [("fakecupy", "numpy"), ("numpy", "fakecupy")])
def test_a_checkpoint_of_one_backend_goes_on_on_another(tmp_path: Path, text: Path, first: str, second: str) -> None:
    config = configuration(text, cell="lstm", layers=2, dropout=0.4)
    train(Run(config), tmp_path / "whole")
    folder = tmp_path / "moved"
    folder.mkdir()
    with without_kernels(), tg.use_backend(first):  # in NumPy's arithmetic, to the last bit
        run = Run(config)
        for report in run.train(folder, log_every=4, validate_every=5, save_every=3):
            run.stopping = report.step == 6
    with without_kernels(), tg.use_backend(second):
        resumed = Run.resumed(folder)
        assert {p.backend for p in resumed.model.parameters()} == {second}
        train(resumed, folder)
    assert outcome(folder) == outcome(tmp_path / "whole")


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_nothing_back_from_the_device(text: Path, kind: str) -> None:
    with tg.use_backend("fakecupy"):
        run = Run(configuration(text, **KINDS[kind]))
        run.advance()
        with fakecupy.counting() as seen:
            run.advance()
            run.advance()
    assert seen["launches"] > 0 and seen["d2h"] == 0 and seen["syncs"] == 0


def test_time_ends_a_run_in_good_order(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text, steps=10**6)), tmp_path / "run", seconds=0.2)
    state, entries = checkpoint.load(tmp_path / "run"), Log(tmp_path / "run" / LOG, 10**6).entries()
    assert 0 < state["step"] == entries[-1]["step"] < 10**6 and entries[-1]["val_loss"] is not None


def test_a_loss_that_runs_away_is_reported(tmp_path: Path, text: Path) -> None:
    with (
        np.errstate(all="ignore"),
        pytest.raises(NumericalError, match=r"the loss is \w+ at step \d+: .* smaller --lr"),
    ):
        train(Run(configuration(text, lr=1e38, steps=50)), tmp_path / "run")


@pytest.mark.parametrize("log_every", [1, 1000])
def test_weights_that_ran_away_never_replace_good_ones(tmp_path: Path, text: Path, log_every: int) -> None:
    run, folder = Run(configuration(text, steps=50)), tmp_path / "run"
    folder.mkdir()
    with np.errstate(all="ignore"), pytest.raises(NumericalError, match=r"at step 8: .*checkpoint of step 6 is kept"):
        for report in run.train(folder, log_every=log_every, save_every=2):
            if report.step == 7:
                run.optimizer.lr = float("inf")
    state = checkpoint.load(folder)
    assert state["step"] == 6 and all(np.isfinite(weight).all() for weight in state["model"].values())
    assert all(np.isfinite(entry["loss"]) for entry in Log(folder / LOG, 50).entries())


def test_a_validation_loss_that_is_no_number_never_reaches_the_log(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(configuration(text))
    monkeypatch.setattr(run.task, "validate", lambda model: {"val_loss": float("inf")})
    with pytest.raises(NumericalError, match="the validation loss is inf at step 5"):
        train(run, tmp_path / "run", log_every=1)
    assert [entry["step"] for entry in Log(tmp_path / "run" / LOG, 50).entries()] == [1, 2, 3, 4]


@pytest.mark.parametrize("opened", [Run.resumed, load_model])
def test_a_checkpoint_whose_weights_are_not_numbers_is_refused(tmp_path: Path, text: Path, opened: Any) -> None:
    train(Run(configuration(text)), tmp_path / "run")
    state = checkpoint.load(tmp_path / "run")
    state["model"]["head.W"][2, 3] = np.nan
    checkpoint.save(tmp_path / "run", state, step=STEPS)
    with pytest.raises(CheckpointError, match=r"a weight in the checkpoint in .* is nan"):
        opened(tmp_path / "run")


def test_a_run_that_cannot_be_saved_computes_nothing(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(Run(configuration(text, steps=5)), tmp_path / "run")
    run = Run.resumed(tmp_path / "run", steps=STEPS)

    def full(path: Path, content: bytes) -> None:
        raise OutputError("there is no room")

    monkeypatch.setattr(run, "advance", lambda: pytest.fail("it computed"))
    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(OutputError, match="no room"):
        train(run, tmp_path / "run")


def test_a_log_that_is_a_folder_is_named(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text, steps=5)), tmp_path / "run")
    (tmp_path / "run" / LOG).unlink()
    (tmp_path / "run" / LOG).mkdir()
    run = Run.resumed(tmp_path / "run", steps=STEPS)
    with pytest.raises(OutputError, match=r"log.jsonl cannot be .* \(Is a directory\).*move it away"):
        train(run, tmp_path / "run")


def test_a_log_without_permission_is_named_before_anything_is_computed(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(Run(configuration(text, steps=5)), tmp_path / "run")
    run = Run.resumed(tmp_path / "run", steps=STEPS)

    def guarded(path: Any, chosen: str = "r", *more: Any, real: Any = open, **options: Any) -> Any:
        if str(path).endswith(LOG):
            raise PermissionError(13, "Permission denied")
        return real(path, chosen, *more, **options)

    monkeypatch.setattr("builtins.open", guarded)
    monkeypatch.setattr(run, "advance", lambda: pytest.fail("it computed"))
    with pytest.raises(OutputError, match=r"log.jsonl cannot be read and written \(Permission denied\)"):
        train(run, tmp_path / "run")


def test_a_log_that_cannot_be_written_is_taken_back(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / LOG, 0)
    log.append({"step": 1})
    before = log.path.read_bytes()

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *exception: object) -> None:
            self.file.close()

        def write(self, line: bytes) -> None:
            self.file.write(line[:3])
            self.file.flush()
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda path, mode, real=open: Full(real(path, mode)))
        with pytest.raises(OutputError, match=r"No space left on device.*the last checkpoint is whole"):
            log.append({"step": 2})
    assert log.path.read_bytes() == before


def test_the_model_of_a_checkpoint_is_there_without_the_text(tmp_path: Path, text: Path) -> None:
    run = Run(configuration(text, layers=2, dropout=0.5))
    train(run, tmp_path / "run")
    text.unlink()
    model, vocabulary, config = load_model(tmp_path / "run")
    assert vocabulary.symbols == run.task.vocabulary.symbols and config == run.configuration and not model.training
    ids = vocabulary.encode("the cat")[:, None]
    np.testing.assert_array_equal(model(ids)[0].numpy(), run.model.eval()(ids)[0].numpy())


def test_another_text_is_refused(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text)), tmp_path / "run")
    moved = text.with_name("moved.txt")
    text.rename(moved)
    assert Run.resumed(tmp_path / "run", text=str(moved)).step == STEPS
    moved.write_text(TEXT.replace("cat", "tac"))
    with pytest.raises(TextError, match="not the one that this run has learned so far"):
        Run.resumed(tmp_path / "run", text=str(moved))


@pytest.mark.parametrize("content", ["another text, of other symbols: 0123456789 " * 20, TEXT.upper()])
def test_a_text_of_other_symbols_is_another_text_too(tmp_path: Path, text: Path, content: str) -> None:
    train(Run(configuration(text)), tmp_path / "run")
    text.write_text(content)
    with pytest.raises(TextError, match="not the one that this run has learned so far"):
        Run.resumed(tmp_path / "run")


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch": 10**12, "task": "agreement"},
        {"hidden": 10**11},
        {"hidden": 10**30},
        {"layers": 10**8, "hidden": 1},
        {"embedding": 10**12},
    ],
)
def test_a_model_that_no_memory_can_hold_is_refused_at_once(text: Path, sizes: dict[str, Any]) -> None:
    with pytest.raises(MemoryError, match=r"takes at least [\d,]+ GiB"):
        Run(configuration(text, **sizes))


def test_layers_are_refused_for_what_they_take_besides_weights(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**24}.__getitem__)  # 64 GiB
    with pytest.raises(MemoryError, match=r"takes at least \d+ GiB"):
        Run(configuration(text, layers=10**6, embedding=4, hidden=8, batch=9, truncation=32))


def test_a_state_of_another_model_is_refused(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text)), tmp_path / "run")
    for change, says in (
        ({"hidden": 6}, "shape"),
        ({"cell": "lstm"}, "does not fit the model"),
        ({"hidden": 0}, "--hidden is 0"),
        ({"cake": 1}, "cake"),
    ):
        state = checkpoint.load(tmp_path / "run")
        state["configuration"].update(change)
        (tmp_path / "other").mkdir(exist_ok=True)
        checkpoint.save(tmp_path / "other", state, step=1)
        for opened in (Run.resumed, load_model):
            with pytest.raises(CheckpointError, match=says):
                opened(tmp_path / "other")
    for missing in checkpoint.load(tmp_path / "run"):
        state = checkpoint.load(tmp_path / "run")
        del state[missing]
        checkpoint.save(tmp_path / "other", state, step=2)
        with pytest.raises(CheckpointError, match=missing):
            Run.resumed(tmp_path / "other")


FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "carried of another shape": ({"carried": np.zeros((1, 4, 7), np.float32)}, r"carried is an array of shape .*7\)"),
    "carried of another dtype": ({"carried": np.zeros((1, 4, 5))}, "carried is .* dtype float64 instead of"),
    "carried of an LSTM": ({"carried": [np.zeros((1, 4, 5), np.float32)] * 2}, "carried is"),
    "carried of nothing": ({"carried": None}, "carried is"),
    "a word for the step": ({"step": "x"}, "step is of type str instead of of type int"),
    "a step before the first": ({"step": -5}, "step is a whole number out of range"),
    "half a step": ({"step": 1.5}, "step is of type float"),
    "a step that is a truth": ({"step": True}, "step is of type bool"),
    "a word for since": ({"since": "q"}, "since is of type str"),
    "since before the start": ({"since": 12}, "since is 12, and step only 11"),
    "a word for the sum": ({"summed": "x"}, "summed is of type str"),
    "a sum that is no number": ({"summed": float("nan")}, "summed is nan"),
    "a broken position": ({"task": {"position": 1e30}}, "task/position is of type float"),
    "a position before the text": ({"task": {"position": -1}}, "task/position is a whole number out of range"),
    "a task that is none": ({"task": 7}, "does not fit"),
    "a number for the text": ({"configuration": {"text": 7}}, "--text is 7; it must be of type"),
    "a broken size": ({"configuration": {"hidden": 8.0}}, "--hidden is 8.0; it must be of type int"),
    "a size that is a truth": ({"configuration": {"layers": True}}, "--layers is True"),
    "more layers than weights": ({"configuration": {"layers": 10**5}}, "asks for more than the"),
    "a size beyond all numbers": ({"configuration": {"hidden": 10**30}}, "asks for more than the"),
    "a number for the separator": ({"vocabulary": {"separator": 5}}, "vocabulary"),
    "numbers for symbols": ({"vocabulary": {"symbols": [1] * 18}}, "vocabulary"),
    "a symbol twice": ({"vocabulary": {"symbols": ["a"] * 18}}, "vocabulary"),
    "a broken counter": ({"random": {"counter": {"seed": 0, "call": 0.5}}}, "random/counter/call is of type float"),
    "a random state of another length": ({"random": {"host": {"uinteger": 2**70}}}, "does not fit"),
    "an option in words": ({"optimizer": {"betas": [0.9, "x"]}}, "optimizer/betas/1 is of type str"),
    "a list too long": ({"optimizer": {"betas": [0.9, 0.9, 0.9]}}, "optimizer/betas/2 is missing or unknown"),
    "a schedule from nowhere": ({"schedule": {}}, "schedule is of type dict instead of of type NoneType"),
}
OF_THE_MODEL = ("configuration", "vocabulary")


@pytest.mark.parametrize("kind", FORGED)
def test_a_state_of_other_make_is_refused_as_a_whole(tmp_path: Path, text: Path, kind: str) -> None:
    train(Run(configuration(text)), tmp_path / "run")
    state, (change, says) = checkpoint.load(tmp_path / "run"), FORGED[kind]
    for part, value in change.items():
        state[part] = {**state[part], **value} if isinstance(value, dict) and state[part] else value
    checkpoint.save(tmp_path / "run", state, step=STEPS)  # with fingerprints that are right
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for opened in (Run.resumed, load_model) if change.keys() & {*OF_THE_MODEL} else (Run.resumed,):
        with pytest.raises(CheckpointError, match=says) as refusal:
            opened(tmp_path / "run")
        assert "restore the folder from a copy" in str(refusal.value) and len(str(refusal.value)) < 500
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_position_beyond_all_numbers_is_one_of_a_ring(text: Path) -> None:
    run, far = Run(configuration(text)), 10**30
    run.task.load_state_dict({**run.task.state_dict(), "position": far})
    x, _ = run.task._streams.take(3)  # type: ignore[attr-defined]
    ring = run.task.learned  # type: ignore[attr-defined]
    assert x[:, 0].tolist() == [ring[(far + i) % len(ring)] for i in range(3)]


def test_resuming_with_other_options_is_refused(tmp_path: Path, text: Path) -> None:
    train(Run(configuration(text, schedule="cosine")), tmp_path / "run")
    Run.resumed(tmp_path / "run", hidden=5)
    with pytest.raises(OptionError, match=r"--hidden is 6, but the run in .* has 5; leave it out: --text alone"):
        Run.resumed(tmp_path / "run", hidden=6)
    with pytest.raises(OptionError, match="--steps is 99, but the run"):
        Run.resumed(tmp_path / "run", steps=99)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("hidden", 0), ("embedding", -1), ("layers", 0), ("batch", 0), ("truncation", 0), ("steps", 0), ("lr", 0.0)),
        *(("lr", float("nan")), ("clip", -1.0), ("dropout", 1.0), ("dropout", 0.5), ("seed", -1), ("cell", "gur")),
        *(("task", "cake"), ("reset", "during"), ("update", "newer"), ("schedule", "sine")),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"--{option} "):
        Configuration(**{option: value})


def test_equal_configurations_give_equal_runs_and_another_seed_another(tmp_path: Path, text: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(Run(dataclasses.replace(configuration(text), seed=seed)), tmp_path / name)
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b") != outcome(tmp_path / "c")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path, text: Path) -> None:
    chance, kills, apart, endless = random.Random(), 20, 45, 10**9
    print(f"random state: {chance.getstate()[1][:4]}")
    options = ["--text", str(text), "--embedding", "3", "--hidden", "5", "--batch", "2", "--truncation", "4"]
    command = [sys.executable, "-c", "import sys; from tinygrad_rnn.cli import main; sys.exit(main())", "train"]
    whole, folder = tmp_path / "whole", tmp_path / "killed"

    def start(out: Path, steps: int) -> subprocess.Popen[bytes]:
        known = ["--resume"] if checkpoint.exists(out) else options
        often = ["--steps", str(steps), "--log-every", "7", "--validate-every", "50", "--save-every", "3"]
        return subprocess.Popen([*command, *known, "--out", str(out), *often], stdout=subprocess.DEVNULL)

    for _ in range(5):  # while it starts, reads its checkpoint or writes the first one
        process = start(folder, endless)
        time.sleep(chance.random() * 0.3)
        process.kill()
        process.wait()
    moments = [0]
    for _ in range(kills):
        process, target = start(folder, endless), moments[-1] + chance.randrange(1, apart)
        while process.poll() is None and (not checkpoint.exists(folder) or checkpoint.load(folder)["step"] < target):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.02)
        process.kill()
        assert process.wait() == -9  # it ran to the very moment
        moments.append(checkpoint.load(folder)["step"])  # whole, at any moment
    last = moments[-1] + apart
    assert start(folder, last).wait() == start(whole, last).wait() == 0
    assert moments == sorted(set(moments))
    assert outcome(folder) == outcome(whole)
