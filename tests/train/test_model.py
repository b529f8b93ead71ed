"""The language model: its convention options arrive, its state is carried, what it writes is reproducible."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import NumericalError, OptionError, TextError
from tinygrad_rnn.train.model import CELLS, LanguageModel, detached, write_on
from tinygrad_rnn.train.text import Vocabulary

VOCABULARY = Vocabulary.of("abcdefg")
IDS = np.array([[0, 3], [6, 2], [1, 1], [5, 4], [2, 0]])  # (T, N) = (5, 2)


def model(cell: str = "gru", **options: object) -> LanguageModel:
    return LanguageModel(7, 3, 4, 2, cell=cell, rng=np.random.default_rng(5), **options)  # type: ignore[arg-type]


def written(temperature: float = 1.0, seed: int = 0, prompt: str = "bad", length: int = 40) -> str:
    rng = np.random.default_rng(seed)
    return "".join(write_on(model(), VOCABULARY, prompt, length=length, temperature=temperature, rng=rng))


@pytest.mark.parametrize("cell", CELLS)
def test_two_windows_with_the_state_carried_over_are_one(cell: str) -> None:
    m = model(cell)
    whole, _ = m(IDS)
    first, state = m(IDS[:2])
    second, _ = m(IDS[2:], detached(state))
    assert whole.shape == (5, 2, 7)
    np.testing.assert_allclose(tg.concatenate([first, second]).numpy(), whole.numpy(), rtol=0, atol=1e-6)
    assert abs(m(IDS[2:])[0].numpy() - second.numpy()).max() > 1e-3  # a state that is lost shows


def test_back_propagation_ends_where_the_window_begins() -> None:
    m = model()
    _, state = m(IDS[:2])
    assert state.requires_grad and not detached(state).requires_grad


def test_the_conventions_of_the_gru_arrive() -> None:
    outputs = [model(reset=r, update=u)(IDS)[0].numpy() for r in ("before", "after") for u in ("new", "old")]
    assert all(abs(a - b).max() > 1e-4 for i, a in enumerate(outputs) for b in outputs[:i])
    with pytest.raises(OptionError, match="no cell 'gur'; choose one of rnn, minimal_gru, gru, lstm"):
        model("gur")


def test_writing_is_reproducible_and_the_seed_and_the_prompt_matter() -> None:
    assert written() == written() and len(written()) == 40
    assert written() != written(seed=1) and written(0.1) != written(0.1, prompt="g")


def test_temperature_zero_takes_the_likeliest_at_every_step() -> None:
    text, m = "bad", model()
    for _ in range(6):
        logits, _ = m(VOCABULARY.encode(text)[:, None])
        text += VOCABULARY.symbols[int(logits.numpy()[-1, 0].argmax())]
    assert "bad" + written(0.0, length=6) == text == "bad" + written(0.0, seed=9, length=6)
    assert written(1e-9, length=6) == text[3:]  # cold, but not yet frozen: nothing overflows


def test_symbols_come_as_often_as_the_model_says() -> None:
    m, draws = model(), 4000
    logits = m(VOCABULARY.encode("bad")[:, None])[0].numpy()[-1, 0].astype(np.float64) / 0.7
    wanted = np.exp(logits) / np.exp(logits).sum()
    rng = np.random.default_rng(3)
    first = [next(write_on(m, VOCABULARY, "bad", length=1, temperature=0.7, rng=rng)) for _ in range(draws)]
    counts = np.array([first.count(symbol) for symbol in VOCABULARY.symbols])
    squares = ((counts - draws * wanted) ** 2 / (draws * wanted)).sum()
    assert squares < 22.5  # chi-squared with 6 degrees of freedom exceeds this once in a thousand
    uniform = ((counts - draws / 7) ** 2 / (draws / 7)).sum()
    assert uniform > 22.5  # so that a model that is not asked would be caught


def test_words_are_written_with_spaces() -> None:
    words = Vocabulary(["the", "cat", ",", "was", "were", "full", "fish"], separator=" ")
    text = "".join(write_on(model(), words, "the cat", length=3))
    assert text[0] == " " and len(text.split()) == 3


def test_weights_too_large_to_compute_with_are_named() -> None:
    m = model()
    m.head.W.assign_(np.full(m.head.W.shape, np.inf, np.float32))
    with np.errstate(all="ignore"), pytest.raises(NumericalError, match=r"too large to compute with: .* smaller --lr"):
        list(write_on(m, VOCABULARY, "bad", length=30))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"prompt": "bax"}, TextError, "the character 'x' never occurred"),
        ({"prompt": ""}, OptionError, "the prompt is empty"),
        ({"temperature": -0.1}, OptionError, "the temperature is -0.1"),
        ({"temperature": float("nan")}, OptionError, "the temperature is nan"),
        ({"temperature": float("inf")}, OptionError, "the temperature is inf"),
        ({"length": -1}, OptionError, "the length is -1"),
    ],
)
def test_bad_requests_are_refused_at_once(options: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        write_on(model(), VOCABULARY, **{"prompt": "bad", **options})  # type: ignore[arg-type]
