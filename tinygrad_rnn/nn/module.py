"""A Module owns Tensors and other Modules, finds them again by their attribute names, and is called like a function.

The rule: every leaf Tensor that a module holds, as an attribute or inside lists, tuples and dictionaries, is its
state, which `state_dict` saves; the part of the state that requires gradients are its parameters. Attributes whose
names begin with an underscore are private and are neither. Order of definition is order of iteration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar

from ..backend import as_array, resolve
from ..core.modes import scope
from ..core.tensor import Tensor, next_age
from ..errors import CheckpointError

M = TypeVar("M", bound="Module")


class Module:
    """The base of everything with parameters: subclass it, set attributes in `__init__`, compute in `forward`.

    Calling a module runs `forward` in a scope named after the attribute that holds it, so that pictures, messages
    and tapes can say where a Tensor was born. Each Tensor of its state is named after its path, such as "cells.0.W".

    training: whether layers such as Dropout act; changed by `train()` and `eval()`.
    """

    training: bool = True
    _name: str
    _settled: bool = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls._name = cls.__name__.lower()

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} is a Module without a forward(self, ...)")

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if not self._settled:
            self._label()
            for _, module in self.named_modules():
                module.__dict__["_settled"] = True
        with self.scope():
            return self.forward(*args, **keywords)

    def scope(self) -> scope:
        """The scope of one call: the attribute that holds this module, or its class in lower case, and its class."""
        return scope(self._name, type(self).__name__)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if isinstance(value, (Module, list, tuple, dict)) or (isinstance(value, Tensor) and value.op is None):
            self._label()

    def _label(self) -> None:
        """Tell what is held here its name as seen from here; whoever comes to hold this module does so again.

        It runs when an attribute is set, and once more at the first call, for lists that were filled meanwhile.
        """
        named = {id(self)}
        for _, module in self.named_modules():
            for path, part in module._parts():
                if isinstance(part, Module) and id(part) not in named:
                    named.add(id(part))
                    part.__dict__["_name"] = path
        for path, tensor in self._named_state():
            tensor.name = path

    def _parts(self) -> Iterator[tuple[str, Tensor | Module]]:
        """The Tensors and Modules held directly, with their paths."""
        for name, value in vars(self).items():
            if not name.startswith("_"):
                yield from _parts_of(value, name)

    def _walk(self, path: str, seen: set[int]) -> Iterator[tuple[str, Tensor | Module]]:
        """This module, then all Modules and leaf Tensors in it, in order of definition, with their paths; each once."""
        seen.add(id(self))
        yield path, self
        for name, part in self._parts():
            inner = f"{path}.{name}" if path else name
            if id(part) in seen:
                continue
            if isinstance(part, Module):
                yield from part._walk(inner, seen)
            elif part.op is None:
                seen.add(id(part))
                yield inner, part

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module (under the name "") and all inside it, with their paths; each once."""
        return ((path, part) for path, part in self._walk("", set()) if isinstance(part, Module))

    def _named_state(self) -> Iterator[tuple[str, Tensor]]:
        return ((path, part) for path, part in self._walk("", set()) if isinstance(part, Tensor))

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """What there is to learn, with its paths, in the order of definition; a shared Tensor comes once."""
        return ((name, tensor) for name, tensor in self._named_state() if tensor.requires_grad)

    def parameters(self) -> list[Tensor]:
        """What there is to learn: the leaf Tensors in here that require gradients."""
        return [tensor for _, tensor in self.named_parameters()]

    def state_dict(self) -> dict[str, Tensor]:
        """All state by its path, detached: what later training does to the module does not reach it."""
        return {name: tensor.detach() for name, tensor in self._named_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Take over Tensors or arrays by their paths; on an error nothing has changed.

        strict: refuse missing and unexpected names, too.
        Returns the names that were missing and those that were unexpected; both are empty if `strict`.

        Raises: CheckpointError that names everything that is missing, unexpected, or of a wrong shape or dtype.
        """
        own = dict(self._named_state())
        missing, unexpected = [name for name in own if name not in state], [name for name in state if name not in own]
        wrong = [f"{name} is missing" for name in missing] + [f"{name} is unexpected" for name in unexpected]
        wrong = wrong if strict else []
        values = {name: state[name] if hasattr(state[name], "dtype") else as_array(state[name], "numpy", t.dtype)
                  for name, t in own.items() if name in state}  # fmt: skip
        for name, value in values.items():
            if tuple(value.shape) != own[name].shape:
                wrong.append(f"{name} has shape {tuple(value.shape)}, and {own[name].shape} is needed")
            elif value.dtype != own[name].dtype:
                wrong.append(f"{name} is {value.dtype}, and {own[name].dtype} is needed")
        if wrong:
            raise CheckpointError(f"this state does not fit {type(self).__name__}: {'; '.join(wrong)}")
        for name, value in values.items():
            own[name].assign_(value)
        return missing, unexpected

    def train(self, training: bool = True) -> Self:
        """Switch layers such as Dropout on (or off), here and in all modules inside."""
        for _, module in self.named_modules():
            module.training = training
        return self

    def eval(self) -> Self:
        """Switch layers such as Dropout off."""
        return self.train(False)

    def to(self, backend: str) -> Self:
        """Move all state to a backend such as "cupy". The Tensors stay the same objects; gradients move along.

        Raises: BackendUnavailable.
        """
        resolve(backend)
        arrays = [(tensor, as_array(tensor, backend)) for _, tensor in self._named_state()]
        arrays += [(t.grad, as_array(t.grad, backend)) for t, _ in arrays if t.grad is not None]
        for tensor, array in arrays:  # all copies were made: from here on nothing can fail half-way
            tensor._array, tensor.modified = array, next_age()
        return self

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for tensor in self.parameters():
            tensor.grad = None

    def __repr__(self) -> str:
        """The settings, then each Tensor of the state with its shape, then how many numbers there are to learn."""
        plain = {k: v for k, v in vars(self).items() if isinstance(v, (bool, int, float, str)) and k[0] != "_"}
        plain.pop("training", None)
        head = f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"
        state = list(self._named_state())
        width = max((len(name) for name, _ in state), default=0)
        lines = [f"  {name:{width}}  {t.shape}{'' if t.requires_grad else '  not learned'}" for name, t in state]
        total = sum(t.size for t in self.parameters())
        return "\n".join([head, *lines, f"  {total:,} parameters"]) if state else head


Module._name = "module"


def twin_of(module: M, **changes: Any) -> M:
    """A module with the same attributes but for some; none of its tensors is told a new name."""
    twin: M = object.__new__(type(module))
    vars(twin).update({**vars(module), "_settled": True, **changes})
    return twin


def replaced(part: Any, found: dict[int, Any], **changes: Any) -> Any:
    """A module with other tensors and modules in place of some, by their id; all other modules in it are copied.

    found: what takes their place; the copies are added to it. changes: attributes that every copy gets.
    """
    if isinstance(part, (Tensor, Module)) and id(part) in found:
        return found[id(part)]
    if isinstance(part, Module):
        found[id(part)] = twin = twin_of(part, **changes)
        vars(twin).update({name: replaced(value, found, **changes) for name, value in vars(twin).items()})
        return twin
    if isinstance(part, dict):
        return {key: replaced(value, found, **changes) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return getattr(type(part), "_make", type(part))([replaced(value, found, **changes) for value in part])
    return part


def _parts_of(value: Any, path: str) -> Iterator[tuple[str, Tensor | Module]]:
    if isinstance(value, (Tensor, Module)):
        yield path, value
    elif isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            yield from _parts_of(each, f"{path}.{i}")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _parts_of(each, f"{path}.{key}")
