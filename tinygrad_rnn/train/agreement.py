"""The long-term dependency of the lectures: "the cat , which already ate ... , was full", "the cats , ... , were full".

The verb depends on the subject alone, across a clause of any words, among them nouns of the other number. The model
is asked at the place of the verb, and only there: what it has to carry is one bit, over as many steps as words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.modes import no_grad
from ..core.tensor import Tensor, tensor
from ..nn.losses import cross_entropy
from .model import LanguageModel, State
from .text import Ids, Vocabulary

VERBS = ("was", "were")
FRAME = ("the", ",", "which", *VERBS, "full")
NOUNS = ("cat", "dog", "bird", "child", "teacher", "boat", "car", "girl")
PLURALS = ("cats", "dogs", "birds", "children", "teachers", "boats", "cars", "girls")
FILLERS = (
    *("already", "ate", "drank", "saw", "with", "some", "fish", "and", "a", "lot", "of", "old", "big", "red", "near"),
    *("by", "house", "trees", "milk", "in", "from", "cold", "often", "slowly", "ducks", "had", "found"),
)
VOCABULARY = Vocabulary([*FRAME, *NOUNS, *PLURALS, *FILLERS], separator=" ")
LONGEST_LEARNED, LONGEST_TESTED = 30, 60
_AFTER_FRAME = len(FRAME)


def sentences(rng: np.random.Generator, subjects: Ids, plural: Ids, fillers: int) -> Ids:
    """Sentences up to the verb, which is next, as numbers (T, N) with T = 5 + fillers.

    subjects: which noun, (N,). plural: whether there are several of it, (N,), 0 or 1.
    fillers: how many words the clause has; they are drawn from all nouns in both numbers and the other words.
    """
    clause = rng.integers(_AFTER_FRAME, len(VOCABULARY), (fillers, len(subjects)))
    the, comma, which = (np.full((1, len(subjects)), VOCABULARY.symbols.index(word)) for word in ("the", ",", "which"))
    return np.concatenate([the, (_AFTER_FRAME + subjects + len(NOUNS) * plural)[None], comma, which, clause, comma])


class AgreementTask:
    """Endless sentences with 0 to 30 words between subject and verb; tested with 0 to 60.

    All sentences of one batch have the same length, so that none needs padding; the length changes from batch to batch.
    tokens: how many words were read so far.
    """

    vocabulary = VOCABULARY

    def __init__(self, batch: int, seed: int) -> None:
        self._batch, self._rng, self.tokens = batch, np.random.default_rng((seed, 1)), 0

    def loss(self, model: LanguageModel, carried: State) -> tuple[Tensor, State]:
        """The mean cross-entropy of the verbs of a new batch, in nats; nothing is carried over."""
        plural = self._rng.integers(0, 2, self._batch)
        subjects = self._rng.integers(0, len(NOUNS), self._batch)
        ids = sentences(self._rng, subjects, plural, int(self._rng.integers(0, LONGEST_LEARNED + 1)))
        self.tokens += ids.size
        return _surprise(_at_the_verb(model, ids), plural), None

    def validate(self, model: LanguageModel) -> dict[str, float]:
        """Loss in nats and share of right verbs over clauses of 0, 4, 8, ... 60 words."""
        found = [self.tested(model, fillers) for fillers in range(0, LONGEST_TESTED + 1, 4)]
        loss, right = np.mean(found, axis=0)
        return {"val_loss": float(loss), "accuracy": float(right)}

    def tested(self, model: LanguageModel, fillers: int, clauses: int = 8) -> tuple[float, float]:
        """Loss in nats and share of right verbs for one length of clause, always on the same sentences.

        Every noun meets every clause in both numbers, so that one who does not look at the subject is right in
        exactly half of them.
        """
        subjects, plural, _ = (axis.ravel() for axis in np.indices((len(NOUNS), 2, clauses)))
        ids = sentences(np.random.default_rng((2, fillers)), subjects, plural, fillers)
        ids[4:-1] = np.tile(ids[4:-1, :clauses], len(NOUNS) * 2)
        with no_grad():
            logits = _at_the_verb(model, ids)
            loss = _surprise(logits, plural).item()
        was, were = (logits.numpy()[:, VOCABULARY.symbols.index(verb)] for verb in VERBS)
        return loss, float(((were > was) == plural).mean())

    def state_dict(self) -> dict[str, Any]:
        """What decides the next sentences."""
        return {"generator": self._rng.bit_generator.state, "tokens": self.tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._rng.bit_generator.state, self.tokens = state["generator"], state["tokens"]


def _surprise(logits: Tensor, plural: Ids) -> Tensor:
    return cross_entropy(logits, tensor(VOCABULARY.symbols.index(VERBS[0]) + plural, backend=logits.backend))


def _at_the_verb(model: LanguageModel, ids: Ids) -> Tensor:
    output, _ = model.read(ids)
    logits: Tensor = model.head(output[-1])
    return logits
