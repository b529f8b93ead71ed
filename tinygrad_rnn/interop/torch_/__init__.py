"""PyTorch: modules and state_dicts to layers here, and layers to modules; the names are read and written without it.

`names` (what torch calls layers and arrays).
Reading: `modules` and `states` (what is in either), as layers that were `found`; `reading` (`from_torch`).
Writing: `writing` (`to_torch`, `torch_state`).
"""

from .reading import from_torch
from .writing import to_torch, torch_state

__all__ = ["from_torch", "to_torch", "torch_state"]
