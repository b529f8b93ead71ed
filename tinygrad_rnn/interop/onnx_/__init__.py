"""ONNX: graphs to modules that run, and modules to graphs.

Reading: `files` (bytes, checked), `graph` (what it says, and how it runs), `operators` (the table), `nodes` (recurrent
nodes as layers), `reading` (`from_onnx`), `layers` (the chain of layers that a graph is).
Writing: `tracing` (what a model does, at several sizes), `emission` (primitives as nodes), `indexing` (x[key]),
`recurrent` (layers as nodes or Scan), `building` (the graph that is made), `runtime` (onnxruntime), `proof`, `writing`
(`to_onnx`).
"""

from .layers import as_layers
from .reading import OnnxModel, from_onnx
from .writing import to_onnx

__all__ = ["OnnxModel", "as_layers", "from_onnx", "to_onnx"]
