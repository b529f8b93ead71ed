"""A GRU that learns to write like a text of yours, and shows what one of its gates does while it reads a line.

Without --text it learns the help pages that come with every Python. Any UTF-8 file of 20,000 characters or more will
do: a book, a list of names, your own programs. A shorter one will with a smaller --batch or --truncation.

What you will see: what it writes before and after learning, how surprised it is by text that it has not seen, and its
update gate over a line: a row for each unit, a column for each character, dark where the unit takes in the new.
"""

from pathlib import Path

import numpy as np
from commandline import progress, run

import tinygrad_rnn as tg
from tinygrad_rnn.see import flow
from tinygrad_rnn.train import LanguageModel, LanguageTask, read_text, write_on


def main(
    *, text: str | None = None, cell: str = "gru", hidden: int = 128, steps: int = 1000, lr: float = 4e-3,
    batch: int = 32, truncation: int = 64, length: int = 300, temperature: float = 0.6, seed: int = 0,
    out: Path = Path("."),
) -> tuple[float, str]:  # fmt: skip
    """Returns the loss on the tenth of the text that was held back, in nats per character, and what was written."""
    tg.seed(seed)
    learned = read_text(text)
    task = LanguageTask(learned, batch, truncation)
    start = "\n" if "\n" in learned else learned[0]
    model = LanguageModel(len(task.vocabulary), embedding=32, hidden=hidden, cell=cell)

    def written() -> str:
        rng = np.random.default_rng(seed)
        return "".join(write_on(model, task.vocabulary, start, length=length, temperature=temperature, rng=rng))

    print(f"Before learning:\n{written()}\n")
    optimizer, state = tg.optim.Adam(model.parameters(), lr=lr), None
    schedule = tg.optim.CosineLR(optimizer, steps)
    for _ in progress(steps, "learning"):
        loss, state = task.loss(model, state)
        optimizer.zero_grad()
        loss.backward(retain_graph=False)
        tg.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    after, unseen = written(), task.validate(model)["val_loss"]
    print(f"After {steps:,} steps:\n{after}\n")
    guess = np.log(len(task.vocabulary))
    print(f"It spends {unseen:.2f} nats on a character that it has not seen; a guess would cost {guess:.2f}.")

    line = max(learned.splitlines()[-200:], key=lambda line: sum(map(str.isalpha, line)))[:72]
    (gates,) = flow.gates_over_text(model, task.vocabulary, line)
    gate = gates.gate or "h"
    picture = gates.show(gate, units=14).save(out / "gates.svg")
    print(f"{picture} shows {gate} over the line {line!r}")
    return unseen, after


if __name__ == "__main__":
    run(main)
