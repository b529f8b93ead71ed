"""Writes cupy_names.pyi, the names and signatures of CuPy that the fake refuses to go beyond.

Run it with the Python of an environment that has CuPy (no GPU or driver is needed):

    python tests/make_cupy_names.py > tests/cupy_names.pyi
"""

import inspect
import re
import sys

import numpy as np


def parameters(text):
    """The parameters of a signature, as text without types and with `...` for the default values."""
    text = re.sub(r"\b(?:Py_ssize_t|int|bint|_ndarray_base) (?=\w)", "", text)
    scope = {"float": None, "inf": None, "nan": None}
    exec(f"def f({text}): ...", scope)
    kept = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else ...)
        for p in inspect.signature(scope["f"]).parameters.values()
    ]
    return str(inspect.Signature(kept))[1:-1].replace("Ellipsis", "...")


def of_function(function):
    kept = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else None)
        for p in inspect.signature(function).parameters.values()
    ]
    return parameters(str(inspect.Signature(kept))[1:-1])


def of_method(method):
    """Cython keeps the signature of a method in the first line of its docstring."""
    found = re.match(r"[\w.]+\((.*)\)(?: ->.*)?$", (method.__doc__ or "").partition("\n")[0])
    return parameters(found[1]) if found else None


def table(cupy):
    """The lines of the table: methods of ndarray, functions, ufuncs with their numbers of arrays, constants."""
    yield "# ruff: noqa"
    yield f"# Made by make_cupy_names.py from CuPy {cupy.__version__}: names and parameters, nothing else."
    methods = {name: getattr(cupy.ndarray, name) for name in dir(cupy.ndarray)}
    yield "class ndarray:"
    for name, value in methods.items():
        if name.startswith("_"):
            continue
        if not callable(value):
            yield f"    {name}: attribute"
        elif (text := of_method(value)) is not None:
            yield f"    def {name}({text}): ..."
    yield ""
    for name in dir(cupy):
        value = getattr(cupy, name)
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if isinstance(value, cupy.ufunc):
            yield f"{name}: ufunc[{value.nin}, {value.nout}]"
        elif type(value).__name__ == "_GUFunc":
            yield f"def {name}(*args, **kwargs): ..."
        elif inspect.isfunction(value):
            yield f"def {name}({of_function(value)}): ..."
        elif isinstance(value, (float, int, type(None))) or (isinstance(value, type) and issubclass(value, np.generic)):
            yield f"{name}: constant"


if __name__ == "__main__":
    import cupy

    sys.stdout.write("\n".join(table(cupy)) + "\n")
