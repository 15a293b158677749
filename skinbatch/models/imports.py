"""Import timm, torchvision and mmdet without packages that scoring never uses.

timm and torchvision import the whole of `torch._dynamo` for two small functions, which matter only
to `torch.compile`. mmdet imports scikit-learn for following objects in videos, and mmengine the
distributed optimisers of torch; both do without. Other packages, such as matplotlib for drawings,
cannot be left out, so they are imported when something of them is first used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_DYNAMO = "torch._dynamo"
_PACKAGES = ("timm", "torchvision")


def install() -> None:
    """Let timm and torchvision be imported without `torch._dynamo`, from now on, in this process."""
    if not any(isinstance(finder, _LightFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LightFinder())


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Let packages that are not imported yet look as if they were not installed."""
    with _instead(dict.fromkeys(packages)):
        yield


@contextmanager
def later(*modules: str) -> Iterator[None]:
    """Let modules that are not imported yet be imported when something of them is first used.

    It is for code that takes functions and classes of these modules and only calls them. Code that
    is imported inside the context keeps stand-ins; code that is imported afterwards gets the
    modules themselves.

    >>> with later("this"):  # which prints a poem when it is imported
    ...     import this
    """
    stand_ins = {name: _Later(name) for name in modules if name not in sys.modules}
    with _instead(stand_ins):
        yield
    for module in stand_ins.values():
        module.__dict__["_is_open"] = False


class _Later(ModuleType):
    """Stand in for a module that is not imported yet."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._is_open = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not self._is_open:
            return getattr(importlib.import_module(self.__name__), name)

        inner = sys.modules.get(f"{self.__name__}.{name}")
        return inner if inner is not None else _LaterName(self, name)


class _LaterName:
    """Stand in for a function or class of a module that is not imported yet."""

    def __init__(self, module: _Later, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *args: Any, **named: Any) -> Any:
        return getattr(self._module, self._name)(*args, **named)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, getattr(self._module, self._name))


class _LightFinder(MetaPathFinder):
    """Find timm and torchvision for a loader that keeps `torch._dynamo` out."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _LightLoader(spec.loader.name, spec.loader.path)
        return spec


class _LightLoader(SourceFileLoader):
    """Run a package's code with stand-ins for what it takes from `torch._dynamo`."""

    def exec_module(self, module: ModuleType) -> None:
        dynamo, utils = ModuleType(_DYNAMO), ModuleType(f"{_DYNAMO}.utils")
        dynamo.__dict__.update(utils=utils, disable=_disable)
        utils.__dict__.update(is_compile_supported=_is_compile_supported)
        with _instead({_DYNAMO: dynamo, utils.__name__: utils}):
            super().exec_module(module)


def _disable(
    function: Callable[..., Any] | None = None, recursive: bool = True, *, reason: str | None = None
) -> Any:
    """Return the function, or a decorator, that changes nothing: `torch.compile` is not used here."""
    return _disable if function is None else function


def _is_compile_supported(device_type: str) -> bool:
    """Ask torch itself, which imports `torch._dynamo` now."""
    utils = importlib.import_module(f"{_DYNAMO}.utils")
    return bool(utils.is_compile_supported(device_type))


@contextmanager
def _instead(modules: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Put modules in the place of those that are not imported yet. None: cannot be imported."""
    mine = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(mine)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in mine:
            sys.modules.pop(name, None)
