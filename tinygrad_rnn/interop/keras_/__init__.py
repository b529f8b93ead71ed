"""Keras 3: layer objects and files to layers here, and layers to objects and files; the files need h5py, and no Keras.

`config` (models as plain data), `files` (`.keras` and `.weights.h5` as bytes), `hdf5` (HDF5, read in a process of its
own, `hdf5_child`).
Reading: `guessing` (layers by the shapes of weights), `layers` (layer by layer), `reading` (`from_keras`).
Writing: `writing` (`to_keras`).
"""

from .reading import from_keras
from .writing import to_keras

__all__ = ["from_keras", "to_keras"]
