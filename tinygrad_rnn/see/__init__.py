"""Looking at computations: pictures of the tape, formulas of the rules. A side room: imports anything below it."""
