"""A model taken from PyTorch: the same numbers here, and a page that goes through them step by step.

What you will see: the largest differences between what both libraries compute, values and gradients; the equations of
the GRU as torch has it, which is not the one of the papers; and a page that steps through the loss, operation by
operation, forward and then back.
"""

from pathlib import Path

import numpy as np
from commandline import run

import tinygrad_rnn as tg
from tinygrad_rnn import interop
from tinygrad_rnn.see import cell_equations


def main(*, steps: int = 3, inputs: int = 2, hidden: int = 4, seed: int = 0, out: Path = Path(".")) -> list[float]:
    """Returns the largest difference in the outputs, and in the gradients for the inputs."""
    import torch

    torch.manual_seed(seed)
    gru, head = torch.nn.GRU(inputs, hidden), torch.nn.Linear(hidden, 1)
    model = interop.from_torch(torch.nn.ModuleDict({"gru": gru, "head": head}))
    model.order = ["gru", "head"]  # which torch keeps in the code of a forward
    print(f"the GRU of torch computes\n{cell_equations(model['gru'])}")

    numbers = np.random.default_rng(seed).standard_normal((steps, 1, inputs)).astype(np.float32)
    there = torch.tensor(numbers, requires_grad=True)
    output_there = head(gru(there)[0])
    (output_there**2).sum().backward()

    x = tg.tensor(numbers, requires_grad=True, name="x")
    output = model(x)
    loss = (output**2).sum()
    loss.name = "loss"
    loss.backward()

    pairs = ((output, output_there.detach()), (x.grad, there.grad))
    differences = [float(np.abs(ours.numpy() - theirs.numpy()).max()) for ours, theirs in pairs]
    print("\nlargest difference of an output {:.1g}, of a gradient {:.1g}".format(*differences))
    page = out / "from_torch.html"
    tg.play(loss, page, title="A GRU from PyTorch, forward and back", expand=True)
    print(f"open {page} in a browser and press the right arrow key")
    return differences


if __name__ == "__main__":
    run(main)
