"""What happens through time: the gates of a recurrent layer over a text, and its gradients from step to step.

Each function here measures and returns numbers that can be looked at: `print` shows them as text, `.save(path)` writes
a picture, a page or the text, as its suffix says.
"""

from .by_step import Shares, Truncation, shares, truncation
from .gradients import Decay, GradientThroughTime, decay, gradient_through_time
from .over_text import MOST, Gates, gates, gates_over_text

__all__ = [
    "MOST", "Decay", "Gates", "GradientThroughTime", "Shares", "Truncation",
    "decay", "gates", "gates_over_text", "gradient_through_time", "shares", "truncation",
]  # fmt: skip
