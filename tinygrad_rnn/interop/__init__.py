"""Models to and from other libraries, each conversion exact or refused. A side room: imports anything below it.

What all share: `conventions` is the table, as data: what each library's arrays hold. `packing` is the one code that
takes them apart and puts them together by it. `cells` has what other libraries' cells have beyond ours, `layers` holds
models of several layers and knows what a module is made of, `report` says what went where, `files` opens what nobody
has to trust and imports what is optional, `names` gives out names once.

The libraries, a folder each, with contents in its `__init__`: `torch_`, `keras_`, `onnx_`. `cudnn` is one vector of all
weights. `safetensors_` are files of any module, by its `description`.
Files: `filekinds` is the table of kinds, by suffix; `conversion` makes one of another, `running` runs them in the
libraries that they are for, `comparison` holds what comes out against the module, `agreement` says when numbers agree.
How a module is called is in `calling`; `nests` are what it returns.
"""

from .comparison import compared
from .conversion import convert
from .cudnn import from_cudnn, to_cudnn
from .keras_ import from_keras, to_keras
from .layers import Final, Layers
from .onnx_ import OnnxModel, as_layers, from_onnx, to_onnx
from .packing import from_arrays, to_arrays
from .report import Report
from .safetensors_ import load, read, save, save_arrays
from .torch_ import from_torch, to_torch, torch_state

__all__ = [
    "Final",
    "Layers",
    "OnnxModel",
    "Report",
    "as_layers",
    "compared",
    "convert",
    "from_arrays",
    "from_cudnn",
    "from_keras",
    "from_onnx",
    "from_torch",
    "load",
    "read",
    "save",
    "save_arrays",
    "to_arrays",
    "to_cudnn",
    "to_keras",
    "to_onnx",
    "to_torch",
    "torch_state",
]
