"""Names that do not repeat: whoever wishes for one that is taken gets it with a number."""

from __future__ import annotations


class Names:
    """The names that are taken so far."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def free(self, wish: str) -> str:
        """The name that is wished for, or that with the next number, as in "gru_2"; it is taken from then on."""
        name = wish
        while name in self._times:
            self._times[wish] += 1
            name = f"{wish}_{self._times[wish]}"
        self._times[name] = 1
        return name
