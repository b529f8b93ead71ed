"""The training loop: one generator that anybody can step, show or stop, and that goes on exactly where it stopped."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, Protocol

import numpy as np

from ..backend import random
from ..core.tensor import Tensor, tensor
from ..errors import (
    BackendUnavailable,
    CheckpointError,
    NumericalError,
    OptionError,
    TextError,
    TinygradError,
)
from ..optim import Adam, CosineLR, clip_grad_norm_
from . import checkpoint
from .agreement import AgreementTask
from .language import LanguageTask
from .log import LOG, Log
from .model import CELLS, LanguageModel, State
from .text import Vocabulary, read_text


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Everything that decides what a run computes: two runs of equal configurations are equal to the last bit.

    task: "text" or "agreement". text: a UTF-8 file, None is the default text.
    cell, reset, update, embedding, hidden, layers, dropout: the model, as in `LanguageModel`.
    batch: N. truncation: T, after how many symbols back-propagation is cut. steps: how many weight updates.
    lr: Adam's step size. schedule: "constant", or "cosine", which takes it down to 0 at the last step.
    clip: the largest norm of the gradient. seed: of every random number.

    Raises: OptionError for a value outside of its choices or its range.
    """

    task: str = "text"
    text: str | None = None
    cell: str = "gru"
    reset: str = "before"
    update: str = "new"
    embedding: int = 32
    hidden: int = 128
    layers: int = 1
    dropout: float = 0.0
    batch: int = 32
    truncation: int = 64
    steps: int = 1500
    lr: float = 3e-3
    schedule: str = "constant"
    clip: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, _TYPES[each.type]):
                raise OptionError(f"--{each.name} is {value!r}; it must be of type {each.type}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(f"--{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}")
        for name in ("embedding", "hidden", "layers", "batch", "truncation", "steps"):
            if getattr(self, name) < 1:
                raise OptionError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(f"--{name} is {getattr(self, name)}; it must be a positive number")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"--dropout is {self.dropout}; it must be at least 0 and less than 1")
        if self.dropout and self.layers == 1:
            raise OptionError("--dropout acts between layers: leave it out, or take --layers 2 or more")
        if self.seed < 0:
            raise OptionError(f"--seed is {self.seed}; it must be 0 or more")


_TYPES: dict[Any, Any] = {"str": str, "str | None": (str, NoneType), "int": Integral, "float": Real}
CHOICES = {
    "task": ("text", "agreement"),
    "cell": tuple(CELLS),
    "reset": ("before", "after"),
    "update": ("new", "old"),
    "schedule": ("constant", "cosine"),
}
TASK_DEFAULTS = {"text": {}, "agreement": {"embedding": 16, "hidden": 32, "lr": 2e-3}}
"""Where a task's recipe differs from the defaults of `Configuration`."""


class Task(Protocol):
    """What a run needs of its task."""

    vocabulary: Vocabulary

    @property
    def tokens(self) -> int: ...
    def loss(self, model: LanguageModel, carried: State) -> tuple[Tensor, State]: ...
    def validate(self, model: LanguageModel) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Report:
    """Where a run stands: losses in nats, per symbol read or, for agreement, per verb asked for.

    loss: the mean since the last line of the log, at each of its lines and at the first step; else None.
    measured: "val_loss", and what else the task measures, where they were just measured.
    """

    step: int
    steps: int
    loss: float | None = None
    tokens_per_second: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """The entry in `log.jsonl`; its val_loss is null where it was not measured."""
        line = {"step": self.step, "loss": self.loss, "val_loss": None, "tokens_per_second": self.tokens_per_second}
        return {**line, **self.measured}


def model_of(configuration: Configuration, vocabulary: int) -> LanguageModel:
    """A new model, its weights drawn from the package's generator."""
    c = configuration
    return LanguageModel(
        vocabulary, c.embedding, c.hidden, c.layers, cell=c.cell, reset=c.reset, update=c.update, dropout=c.dropout
    )


class Run:
    """A model, its optimiser and its task, at some step. Making one seeds the package's random numbers.

    Raises: TextError, OptionError; MemoryError for sizes that this machine cannot hold.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = c = configuration
        random.seed(c.seed)
        self.task: Task = (
            AgreementTask(c.batch, c.seed)
            if c.task == "agreement"
            else LanguageTask(read_text(c.text), c.batch, c.truncation)
        )
        _check_memory(c, len(self.task.vocabulary))
        self.model = model_of(c, len(self.task.vocabulary))
        self.optimizer = Adam(self.model.named_parameters(), lr=c.lr)
        self.schedule = CosineLR(self.optimizer, c.steps) if c.schedule == "cosine" else None
        self.step = self._saved = 0
        self.stopping = False
        self._carried: State = None
        self._summed: Any = 0.0  # of the losses since the last report, on the device
        self._since = 0

    @classmethod
    def resumed(cls, folder: str | Path, **options: Any) -> Run:
        """The run in a folder, at the step of its checkpoint; it goes on to the bit as if it had never stopped.

        options: of the `Configuration`. `text` (where the same text lies now) and `steps` (another last step) may
            differ from the run's, all others must not.
        Raises: CheckpointError, if the checkpoint is damaged; TextError, if the text is another one; OptionError, if
            options contradict the run's.
        """
        state = checkpoint.load(folder)
        configuration = _configuration(folder, state)
        free = {"text", "steps"} if configuration.schedule == "constant" else {"text"}
        for name, value in options.items():
            if name not in free and value != getattr(configuration, name):
                raise OptionError(
                    f"--{name} is {value}, but the run in {folder} has {getattr(configuration, name)}; "
                    f"leave it out: {' and '.join(f'--{other}' for other in sorted(free))} alone may change on the way"
                )
        configuration = dataclasses.replace(configuration, **options)
        try:
            run = cls(configuration)
            run.load_state_dict(state)
        except (TextError, BackendUnavailable):
            raise
        except _DAMAGE as error:
            raise _misfit(folder, error) from error
        _refuse_unless_finite(folder, run.model)
        if run.step > run.configuration.steps:
            raise OptionError(
                f"--steps is {run.configuration.steps}, but the run in {folder} is at {run.step} already: ask for more"
            )
        return run

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes next."""
        return {
            "configuration": dataclasses.asdict(self.configuration),
            "vocabulary": {"symbols": list(self.task.vocabulary.symbols), "separator": self.task.vocabulary.separator},
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "random": random.get_state(),
            "task": self.task.state_dict(),
            "carried": self._carried,
            "summed": float(self._summed),
            "since": self._since,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where `state_dict` was called. The arrays may come from any backend, and go to the default one.

        Raises: TextError, if it has learned another text; CheckpointError, if it is the state of another run.
        """
        mine = self.state_dict()
        if wrong := sorted(mine.keys() ^ state.keys()):
            raise CheckpointError(f"{wrong[0]} is missing or unknown")
        self.task.load_state_dict(state["task"])
        if mine["vocabulary"] != state["vocabulary"]:
            raise CheckpointError("the vocabulary is another one")
        if state["step"] and self.configuration.task == "text":
            mine["carried"] = self._state_of_zeros()
        mine["configuration"] = state["configuration"]  # it was checked when it was made
        checkpoint.check_form(state, mine)
        if state["since"] > state["step"]:
            raise CheckpointError(f"since is {state['since']}, and step only {state['step']}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self._carried = _as_tensors(state["carried"])
        self._summed, self._since = state["summed"], state["since"]
        self.step = self._saved = state["step"]
        random.set_state(state["random"])

    def _state_of_zeros(self) -> State:
        c = self.configuration
        h = np.zeros((c.layers, c.batch, c.hidden), np.float32)
        return (h, h) if c.cell == "lstm" else h

    def advance(self) -> None:
        """One weight update. Nothing is read back from the device."""
        self.optimizer.zero_grad()
        loss, self._carried = self.task.loss(self.model, self._carried)
        loss.backward(retain_graph=False)
        clip_grad_norm_(self.model.parameters(), self.configuration.clip)
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        self._summed = loss.detach() + self._summed
        self._since += 1
        self.step += 1

    def validate(self) -> dict[str, float]:
        """The task's validation loss in nats, and what else it measures, with dropout switched off."""
        self.model.eval()
        measured = self.task.validate(self.model)
        self.model.train()
        return measured

    def train(
        self, folder: str | Path, *,
        log_every: int = 10, validate_every: int = 250, save_every: int = 100, seconds: float = math.inf,
    ) -> Iterator[Report]:  # fmt: skip
        """Advance to the last step; hand out a report after every step; write the log and the checkpoints.

        Set `stopping` to end after the current step, with everything saved; `seconds` does the same by the clock.
        The order within one step is: log, checkpoint. A log that is ahead of its checkpoint is cut back on resuming.

        Raises: OutputError, if a file cannot be written: the last checkpoint is whole. It is known before the first
            step, by saving. NumericalError, if a loss or a weight is no longer finite: the last checkpoint is good.
        """
        folder = Path(folder)
        log = Log(folder / LOG, self.step)
        self._save(folder)
        ends, busy, read, first = time.monotonic() + seconds, 0.0, self.task.tokens, self.step + 1
        while self.step < self.configuration.steps and not self.stopping:
            started = time.perf_counter()
            self.advance()
            last = self.step == self.configuration.steps or time.monotonic() > ends
            logged, report = last or self.step % log_every == 0, Report(self.step, self.configuration.steps)
            if logged or self.step == first:
                loss = float(self._summed) / self._since  # waits for the device, so that the time is right
                self._stop_unless_finite("the loss", loss)
            busy += time.perf_counter() - started
            if logged or self.step == first:
                speed = round((self.task.tokens - read) / busy, 1)
                report = dataclasses.replace(report, loss=loss, tokens_per_second=speed)
            if logged:
                measured = self.validate() if last or self.step % validate_every == 0 else {}
                self._stop_unless_finite("the validation loss", measured.get("val_loss", 0.0))
                report = dataclasses.replace(report, measured=measured)
                log.append(report.line())
                self._summed, self._since, busy, read = 0.0, 0, 0.0, self.task.tokens
            self.stopping = self.stopping or last
            yield report
            if self.step % save_every == 0:
                self._save(folder)
        if self._saved != self.step:
            self._save(folder)

    def _save(self, folder: Path) -> None:
        self._stop_unless_finite("the loss", float(self._summed))
        self._stop_unless_finite("a weight", _largest_weight(self.model))
        checkpoint.save(folder, self.state_dict(), step=self.step)
        self._saved = self.step

    def _stop_unless_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise NumericalError(
                f"{what} is {value} at step {self.step}: the weights have run away; the checkpoint of step "
                f"{self._saved} is kept; train anew with a smaller --lr or --clip"
            )


def load_model(folder: str | Path) -> tuple[LanguageModel, Vocabulary, Configuration]:
    """The model in a checkpoint, its vocabulary and how it was trained; the text itself is not needed.

    Raises: CheckpointError.
    """
    state = checkpoint.load(folder)
    configuration = _configuration(folder, state)
    try:
        vocabulary = Vocabulary(state["vocabulary"]["symbols"], state["vocabulary"]["separator"])
        model = model_of(configuration, len(vocabulary))
        model.load_state_dict(state["model"])
    except BackendUnavailable:
        raise
    except _DAMAGE as error:
        raise _misfit(folder, error) from error
    _refuse_unless_finite(folder, model)
    model.eval()
    return model, vocabulary, configuration


_DAMAGE = (TinygradError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)
"""What reading a state of another shape than expected can raise."""


def _configuration(folder: str | Path, state: dict[str, Any]) -> Configuration:
    try:
        configuration = Configuration(**state["configuration"])
        there = sum(weight.size for weight in state["model"].values())
        if _least_weights(configuration, len(state["vocabulary"]["symbols"])) > there:
            raise CheckpointError(f"its configuration asks for more than the {there:,} weights of these shapes")
        return configuration
    except _DAMAGE as error:
        raise _misfit(folder, error) from error


def _misfit(folder: str | Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint in {folder} does not fit the model that it describes ({error}): "
        "restore the folder from a copy, or train anew into another one"
    )


def _largest_weight(model: LanguageModel) -> float:
    """The largest size of a weight; nan, if one is nan."""
    return float(np.max([np.abs(weight.numpy()).max() for weight in model.state_dict().values()]))


def _refuse_unless_finite(folder: str | Path, model: LanguageModel) -> None:
    if not math.isfinite(size := _largest_weight(model)):
        raise CheckpointError(
            f"a weight in the checkpoint in {folder} is {size}: restore the folder from a copy, "
            "or train anew with a smaller --lr or --clip"
        )


def _least_weights(c: Configuration, vocabulary: int) -> int:
    """How many numbers the smallest cell of these sizes has to learn."""
    return vocabulary * (c.embedding + c.hidden) + c.hidden * (c.embedding + (2 * c.layers - 1) * c.hidden)


def _check_memory(c: Configuration, vocabulary: int) -> None:
    """Refuse at once what would only fail after filling all memory.

    What the smallest cell of these sizes takes: each weight with its gradient and Adam's two means, and for each layer
    15 kB of Python's and what one window leaves for back-propagation (more than 6 arrays of its outputs' size).
    """
    shortest = c.truncation if c.task == "text" else 5  # of a window, and of a sentence up to its verb
    window = shortest * c.batch * c.hidden
    needed = 16 * _least_weights(c, vocabulary) + c.layers * (4 * 6 * window + 15_000)
    if hasattr(os, "sysconf") and needed > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise MemoryError(f"this model takes at least {needed // 2**30:,} GiB")


def _as_tensors(value: Any) -> Any:
    """What `state_dict` held Tensors and tuples of them in."""
    if isinstance(value, list):
        return tuple(_as_tensors(part) for part in value)
    return tensor(value) if isinstance(value, np.ndarray) else value
