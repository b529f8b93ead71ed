"""`python -m tinygrad_rnn.cli` is the command `tinygrad-rnn`."""

import sys

from .command import main

sys.exit(main())
