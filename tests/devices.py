"""Devices that are none: tensors of the CPU that count as lying on several, and a mode under which
what torch refuses to mix between devices is refused.

A tensor's device is a note on it. Within `Devices()` every call of torch's Python interface notes
where its result lies, answers `tensor.device` by it, and raises where tensors of two devices meet.
torch's own exceptions are kept: a number of no dimension on the host may meet any device, an index
may lie on the host, a slice may be assigned from anywhere. What moves is copied.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

HOST = torch.device("cpu")
#: names of devices that are none; torch takes them for the CPU
FIRST, SECOND, THIRD = (torch.device("cpu", i) for i in (1, 2, 3))


class MixedDevices(RuntimeError):
    """Tensors of several devices met."""


def device_of(tensor: torch.Tensor) -> torch.device:
    return getattr(tensor, "_noted", HOST)


def put(tensor: torch.Tensor, device: torch.device) -> None:
    """Say that a tensor lies there."""
    tensor._noted = device


def tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def _name(func: Any) -> str:
    return getattr(func, "__name__", str(func))


class Devices(TorchFunctionMode):
    """See the module's docstring.

    Attributes:
        moves: (from, to) of every copy between devices of which neither is the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moves: list[tuple[torch.device, torch.device]] = []

    def __enter__(self) -> "Devices":
        made = self._parameter = torch.nn.Parameter.__new__

        def parameter(cls: Any, data: Any = None, requires_grad: bool = True) -> Any:
            out = made(cls, data, requires_grad)  # the one call that no mode sees
            put(out, device_of(data))
            return out

        torch.nn.Parameter.__new__ = parameter
        return super().__enter__()

    def __exit__(self, *how: Any) -> None:
        torch.nn.Parameter.__new__ = self._parameter
        super().__exit__(*how)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return device_of(args[0])
        name = _name(func)
        if hasattr(self, f"_{name.strip('_')}_"):
            return getattr(self, f"_{name.strip('_')}_")(func, args, kwargs)
        asked = kwargs.pop("device", None)
        home = self._common(name, [*tensors(args), *tensors(kwargs)])
        if asked is not None:
            home = torch.device(asked)
        elif home is None:
            home = HOST
        return self._noted(func(*args, **kwargs), args, home)

    # --- what is like no other call --------------------------------------------------------------
    def _to_(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensor, *rest = args
        where, kept = kwargs.pop("device", None), []
        for given in rest:
            if isinstance(given, torch.Tensor):
                where = device_of(given)
                kept.append(given.dtype)
            elif isinstance(given, str | torch.device):
                where = given
            elif given is not None:
                kept.append(given)
        out = func(tensor, *kept, **kwargs) if kept or kwargs else tensor
        return self._moved(tensor, out, device_of(tensor) if where is None else where)

    def _cpu_(self, func: Any, args: Any, kwargs: Any) -> Any:
        return self._moved(args[0], args[0], HOST)

    def _as_tensor_(self, func: Any, args: Any, kwargs: Any) -> Any:
        where = kwargs.pop("device", None)
        given = args[0]
        was = device_of(given) if isinstance(given, torch.Tensor) else HOST
        out = func(*args, **kwargs)
        if isinstance(given, torch.Tensor):
            return self._moved(given, out, was if where is None else where)
        put(out, HOST if where is None else torch.device(where))
        return out

    def _numpy_(self, func: Any, args: Any, kwargs: Any) -> Any:
        if device_of(args[0]) != HOST:
            raise MixedDevices(f"numpy() of a tensor on {device_of(args[0])}")
        return func(*args, **kwargs)

    def _array_(self, func: Any, args: Any, kwargs: Any) -> Any:
        return self._numpy_(func, args, kwargs)

    def _copy_(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)

    def _getitem_(self, func: Any, args: Any, kwargs: Any) -> Any:
        home = self._indexed(*args)
        return self._noted(func(*args), args, home)

    def _setitem_(self, func: Any, args: Any, kwargs: Any) -> None:
        table, index, value = args
        home = self._indexed(table, index)
        by_index = any(t.ndim for t in tensors(index))
        if by_index and isinstance(value, torch.Tensor) and value.ndim:
            self._common("setitem", [table, value])
        elif isinstance(value, torch.Tensor) and device_of(value) not in (home, HOST):
            self.moves.append((device_of(value), home))
        func(*args)

    def _grad_(self, func: Any, args: Any, kwargs: Any) -> Any:
        inputs = kwargs.get("inputs", args[1] if len(args) > 1 else ())
        found = func(*args, **kwargs)
        wanted = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
        for gradient, of in zip(found, wanted, strict=True):
            if gradient is not None:
                put(gradient, device_of(of))
        return found

    # --- rules -----------------------------------------------------------------------------------
    def _common(self, name: str, given: list[torch.Tensor]) -> torch.device | None:
        """The one device that all of them lie on."""
        found = {device_of(t) for t in given if t.ndim or device_of(t) != HOST}
        if len(found) > 1:
            raise MixedDevices(f"{name}: {', '.join(sorted(map(str, found)))}")
        return found.pop() if found else (HOST if given else None)

    def _indexed(self, table: torch.Tensor, index: Any) -> torch.device:
        home = device_of(table)
        others = {device_of(t) for t in tensors(index)} - {HOST, home}
        if others:
            raise MixedDevices(f"an index on {others.pop()} of a table on {home}")
        return home

    def _moved(self, was: torch.Tensor, out: torch.Tensor, where: Any) -> torch.Tensor:
        where, before = torch.device(where), device_of(was)
        if where == before and out is was:
            return out
        if where != before:
            out = out.clone()
            if HOST not in (where, before):
                self.moves.append((before, where))
        put(out, where)
        return out

    @staticmethod
    def _noted(out: Any, args: Any, home: torch.device) -> Any:
        given = {id(t) for t in tensors(args)}
        for tensor in tensors(out):
            if id(tensor) not in given:
                put(tensor, home)
        return out
