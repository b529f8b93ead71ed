"""The command `tinygrad-rnn`.

`command` has its words and what becomes of errors; `training`, `showing`, `converting` and `lab` do what they say.
"""

from .command import main

__all__ = ["main"]
