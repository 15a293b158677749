"""Read an mmdet config file as a plain dict without executing it.

mmengine's own reader runs the file as a program.
"""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from skinbatch.errors import PackError

Values = dict[str, Any]

DELETE = "_delete_"
BASE = "_base_"
SUFFIXES = (".py", ".json", ".yaml", ".yml")
# The most bytes of a file, and elements of a list or text that arithmetic makes.
LARGEST = 4_000_000
# The most items of `range()` and of a list comprehension.
MOST_ITEMS = 1000
# The most values of a whole file, including computed intermediate values. A value that occurs twice
# counts twice.
MOST_VALUES = 500_000
_PLACEHOLDER = re.compile(r"\{\{\s*_base_\.([\w.]+)\s*\}\}")
_NUMBERS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def read_file(path: Path) -> Values:
    """Return all values of a config and its `_base_` files, merged as in mmengine.

    `_delete_` is supported. The file may be .json, .yaml or Python with: literals, dict(), list(),
    tuple() and range(), names assigned before, `_base_.x` and `{{_base_.x}}`, indices, arithmetic,
    joining texts and lists, and a list made item by item from another.

    Raises PackError naming file and line of anything else (imports, `read_base`, calls,
    attributes), and the way out.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> Values:
    """Read one file. above: the files that have this one as a base, directly or not."""
    if path.suffix not in SUFFIXES:
        raise PackError(f"{path}: not a config; there are {', '.join(SUFFIXES)}")
    if path.resolve() in above:
        raise PackError(f"{path}: is its own base; remove it from {BASE}")
    text = _text(path)
    try:
        if path.suffix == ".py":
            return _PythonFile(path, above).read(text)
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        if not isinstance(values, dict):
            raise PackError(
                f"{path}: a config is a table of names and values, this is {type(values).__name__}"
            )
        base = _read_bases(values.pop(BASE, None), path, 1, above)
        return _finished(values, base, path)
    except SyntaxError as e:
        raise PackError(f"{path}:{e.lineno}: not Python: {e.msg}") from None
    except (
        ValueError,
        yaml.YAMLError,
    ) as e:  # Python raises ValueError for a number of 5000 digits
        raise PackError(f"{path}: not readable as {path.suffix[1:]}: {e}") from None
    except RecursionError:
        raise PackError(f"{path}: nested too deeply to be a config") from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise PackError(f"{path}: larger than {LARGEST / 1e6:.0f} MB; that is not a config")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise PackError(f"{path}: config cannot be read: {e}") from None


def _read_bases(named: Any, path: Path, line: int, above: tuple[Path, ...]) -> Values:
    """Read the files of `_base_`. They are local and named relative to the file that has them."""
    base: Values = {}
    for name in [named] if isinstance(named, str) else named or []:
        if not isinstance(name, str) or "::" in name or Path(name).is_absolute():
            _refuse(path, line, f"base `{name}` is not a file beside the config")
        values = _read(path.parent / name, (*above, path.resolve()))
        twice = sorted(base.keys() & values.keys())
        if twice:
            raise PackError(
                f"{path}:{line}: `{twice[0]}` is in two of its bases; remove it from one"
            )
        base |= values
    return base


def _merged(new: Values, base: Values, path: Path) -> Values:
    """Merge `new` over `base`, table into table; `_delete_` in a table drops the base's."""
    merged = dict(base)
    for key, value in new.items():
        if isinstance(value, dict) and key in base and not value.get(DELETE, False):
            if not isinstance(base[key], dict):
                raise PackError(
                    f"{path}: `{key}` is a table here but not in the base; set {DELETE}=True in it"
                )
            merged[key] = _merged(value, base[key], path)
        else:
            merged[key] = _without_delete(value)
    merged.pop(DELETE, None)
    return merged


def _without_delete(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_delete(item) for key, item in value.items() if key != DELETE}
    if isinstance(value, list | tuple):
        return type(value)(_without_delete(item) for item in value)
    return value


def _finished(values: Values, base: Values, path: Path) -> Values:
    """Return `values` over the base, with their references resolved."""
    _check_number(values, path)  # before copying, as one list may be in many places
    whole = _substituted(values, base, path)
    _check_number(whole, path)
    return _merged(whole, base, path)


def _check_number(values: Values, path: Path) -> None:
    """Raise PackError for more than MOST_VALUES.

    A list may occur in many places at once, so a short file can be endless.
    """
    sizes: dict[int, int] = {}

    def size(value: Any) -> int:
        if not isinstance(value, dict | list | tuple):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = 1 + sum(
                map(size, value.values() if isinstance(value, dict) else value)
            )
        return sizes[id(value)]

    if size(values) > MOST_VALUES:
        raise PackError(f"{path}: makes more than {MOST_VALUES:,} values; that is not a config")


def _substituted(value: Any, base: Values, path: Path) -> Any:
    """Replace `{{_base_.x}}` inside texts, by which .json and .yaml refer to a base."""
    if isinstance(value, dict):
        return {key: _substituted(item, base, path) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_substituted(item, base, path) for item in value)
    if not isinstance(value, str):
        return value
    if whole := _PLACEHOLDER.fullmatch(value):
        return _of_base(base, whole[1], path, 1)
    values = [
        str(_of_base(base, name, path, 1)) for name in dict.fromkeys(_PLACEHOLDER.findall(value))
    ]
    if sum(map(len, values)) * value.count("_base_.") > MOST_VALUES:
        raise PackError(
            f"{path}: a text of more than {MOST_VALUES:,} characters; that is not a config"
        )
    return _PLACEHOLDER.sub(lambda match: str(_of_base(base, match[1], path, 1)), value)


def _of_base(base: Values, name: str, path: Path, line: int) -> Any:
    value: Any = base
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise PackError(f"{path}:{line}: {BASE}.{name} is in none of its bases")
        value = value[part]
    return value


def _refuse(path: Path, line: int, what: str) -> NoReturn:
    raise PackError(
        f"{path}:{line}: {what}. A config is read, never executed. If you trust it, write it out flat and give that "
        f"file: python -c \"from mmengine import Config; Config.fromfile('{path.name}').dump('flat.json')\""
    )


class _PythonFile:
    """Read one Python config: its statements in order, each an assignment."""

    def __init__(self, path: Path, above: tuple[Path, ...]) -> None:
        self.path, self.above = path, above
        self.base: Values = {}
        self.names: Values = {}
        self.computed = 0

    def read(self, text: str) -> Values:
        for statement in ast.parse(text, str(self.path)).body:
            self._statement(statement)
        names = {name: value for name, value in self.names.items() if not name.startswith("__")}
        return _finished(names, self.base, self.path)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name == BASE:
                self.base = _read_bases(self._value(value), self.path, node.lineno, self.above)
            case ast.Assign(targets=targets, value=value) if all(
                isinstance(t, ast.Name) for t in targets
            ):
                result = self._value(value)
                self.names |= {t.id: result for t in targets if isinstance(t, ast.Name)}
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                self.names[name] = self._join(
                    node, op, self._name(node.target, name), self._value(value)
                )
            case ast.Import() | ast.ImportFrom():
                self._no(node, f"`{ast.unparse(node)}` imports code")
            case ast.With():
                self._no(node, f"`with {ast.unparse(node.items[0])}` imports code")
            case _:
                self._no(node, f"`{_short(node)}` is more than an assignment")

    def _value(self, node: ast.expr) -> Any:
        self.computed += 1
        if self.computed > MOST_VALUES:
            self._no(node, f"more than {MOST_VALUES:,} values")
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.List(elts=items):
                return self._items(items)
            case ast.Tuple(elts=items):
                return tuple(self._items(items))
            case ast.Dict(keys=keys, values=values):
                return self._table(node, keys, values)
            case ast.Set(elts=[ast.Set(elts=[ast.Attribute() as inner])]):  # {{_base_.x}}
                return self._value(inner)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
            case ast.ListComp(
                elt=item,
                generators=[ast.comprehension(target=ast.Name(id=name), iter=over, ifs=[])],
            ):
                return self._list_comprehension(item, name, self._sequence(over))
            case ast.Subscript():
                return self._subscript(node)
            case ast.BinOp(left=left, op=op, right=right):
                return self._join(node, op, self._value(left), self._value(right))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                number = self._value(operand)
                if not isinstance(number, int | float):
                    self._no(
                        node, f"`{_short(node)}`: a sign before something that is not a number"
                    )
                return -number if isinstance(op, ast.USub) else number
            case ast.JoinedStr(values=parts):
                return self._text(node, [self._value(part) for part in parts])
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return self._value(value)
        self._no(node, f"`{_short(node)}` is not a plain value")

    def _text(self, node: ast.AST, parts: list[Any]) -> str:
        if any(isinstance(part, list | tuple | dict) for part in parts):
            self._no(node, f"`{_short(node)}` puts a list or table into a text")
        text = "".join(map(str, parts))
        if len(text) > MOST_VALUES:
            self._no(node, f"`{_short(node)}` is too long")
        return text

    def _name(self, node: ast.AST, name: str) -> Any:
        if name not in self.names:
            self._no(node, f"`{name}` was not assigned before")
        return self.names[name]

    def _items(self, nodes: list[ast.expr]) -> list[Any]:
        items: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                items += self._sequence(node.value)
            else:
                items.append(self._value(node))
        return items

    def _sequence(self, node: ast.expr) -> list[Any]:
        value = self._value(node)
        if not isinstance(value, list | tuple):
            self._no(node, f"`{_short(node)}` is not a list")
        return list(value)

    def _list_comprehension(self, item: ast.expr, name: str, over: list[Any]) -> list[Any]:
        outside = self.names
        if len(over) > MOST_ITEMS:
            self._no(item, f"a list of {len(over)} items")
        items = []
        for value in over:
            self.names = outside | {name: value}
            items.append(self._value(item))
        self.names = outside
        return items

    def _table(self, node: ast.expr, keys: list[ast.expr | None], values: list[ast.expr]) -> Values:
        """Return a table. Keys are None if another table is unpacked."""
        table: Values = {}
        for key, value in zip(keys, values, strict=True):
            evaluated = self._value(value)
            if key is not None:
                name = self._value(key)
                if not isinstance(name, str | int):
                    self._no(key, f"`{_short(key)}` as a key")
                table[str(name)] = evaluated
            elif isinstance(evaluated, dict):
                table |= evaluated
            else:
                self._no(node, f"`**{_short(value)}` is not a table")
        return table

    def _call(self, node: ast.Call) -> Any:
        match node:
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
                keys = [ast.Constant(k.arg) if k.arg is not None else None for k in keywords]
                return self._table(node, list(keys), [k.value for k in keywords])
            case ast.Call(func=ast.Name(id="list" | "tuple" as kind), args=args, keywords=[]) if (
                len(args) < 2
            ):
                items = self._sequence(args[0]) if args else []
                return items if kind == "list" else tuple(items)
            case ast.Call(func=ast.Name(id="range"), args=[length], keywords=[]):
                number = self._value(length)
                if isinstance(number, int) and number <= MOST_ITEMS:
                    return list(range(number))
        self._no(node, f"`{_short(node.func)}(...)` calls code")

    def _attribute(self, node: ast.expr) -> Any:
        parts: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if not (isinstance(inner, ast.Name) and inner.id == BASE):
            self._no(node, f"`{_short(node)}` looks into an object")
        return _of_base(self.base, ".".join(parts), self.path, node.lineno)

    def _subscript(self, node: ast.Subscript) -> Any:
        of = self._value(node.value)
        try:
            if isinstance(node.slice, ast.Slice):
                parts = (node.slice.lower, node.slice.upper, node.slice.step)
                return of[slice(*(None if part is None else self._value(part) for part in parts))]
            return of[self._value(node.slice)]
        except (TypeError, KeyError, IndexError, ValueError):
            raise PackError(f"{self.path}:{node.lineno}: there is no `{_short(node)}`") from None

    def _join(self, node: ast.AST, op: ast.operator, left: Any, right: Any) -> Any:
        """Compute with numbers, and join and repeat texts, lists and tuples, within bounds."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        joined = isinstance(op, ast.Add) and any(
            isinstance(left, kind) and isinstance(right, kind) for kind in (str, list, tuple)
        )
        repeated = (
            isinstance(op, ast.Mult)
            and isinstance(left, str | list | tuple)
            and isinstance(right, int)
        )
        if type(op) not in _NUMBERS or not (numbers or joined or repeated):
            self._no(node, f"`{_short(node)}` is not simple arithmetic")
        if repeated and len(left) * right > LARGEST:
            self._no(node, f"`{_short(node)}` is too long")
        try:
            result = _NUMBERS[type(op)](left, right)
        except (ArithmeticError, ValueError) as e:
            raise PackError(
                f"{self.path}:{getattr(node, 'lineno', 1)}: `{_short(node)}`: {e}"
            ) from None
        if (numbers and abs(result) > 1e18) or (joined and len(result) > LARGEST):
            self._no(node, f"`{_short(node)}` is too large")
        return result

    def _no(self, node: ast.AST, what: str) -> NoReturn:
        _refuse(self.path, getattr(node, "lineno", 1), what)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else text[:57] + "..."
