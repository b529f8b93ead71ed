"""Looking at computations. A side room: imports anything below it.

Words and numbers: `words`, `notation` (LaTeX, MathML, text), `formula` (rules run on symbols), `naming`, `summary`.
The way back, written down: `ledger`; from it `tables`, `explain` and `reasons` (why there is no gradient).
Pictures: `graph` (the one model), `view` (what is shown of it), `look`, the writers `dot` and `svg`, `layout`,
`drawing`. Pages: `player` steps through a computation, `flow` shows what happens through time; `publishing` makes
them, with the scripts and style sheets in `page/`.
"""
