"""The project's own code as syntax trees, and the texts that its expressions stand for."""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = ("tulu_jax", "tasks", "eval")
"""What users run."""

MOST_TEXTS = 40
"""So many wordings of one expression are told apart; beyond that it stays a blank."""

DEEPEST = 3
"""Through so many calls a text is followed back to where it is written."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an expression stands: a file, and the innermost function around it."""

    path: str
    function: Function | None


def blank(node: ast.expr) -> str:
    """What stands in a message for a value, as `‹name›`.

    >>> blank(ast.parse("repr(self.slice)", mode="eval").body)
    '‹slice›'
    """
    return f"‹{_short(node)}›"


def _short(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id.strip("_")
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_")
    if isinstance(node, ast.Subscript | ast.Starred | ast.Await):
        return _short(node.value)
    if isinstance(node, ast.Call):
        name = _short(node.func)
        told = name in ("str", "repr", "sorted", "join", "set", "list", "map", "first_line")
        return _short(node.args[-1]) if told and node.args else name
    if isinstance(node, ast.BinOp):
        return _short(node.left)
    return "…"


class Source:
    """All files of the project, with who calls whom by name."""

    def __init__(self, root: Path = ROOT) -> None:
        """Reads and parses every file."""
        self.trees = {
            path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
            for folder in FOLDERS
            for path in sorted((root / folder).rglob("*.py"))
        }
        self.calls: dict[str, list[tuple[Place, ast.Call]]] = defaultdict(list)
        self.classes: list[ast.ClassDef] = []
        for path, tree in self.trees.items():
            for place, node in _calls_and_classes(tree, path):
                if isinstance(node, ast.ClassDef):
                    self.classes.append(node)
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else None
                name = node.func.id if isinstance(node.func, ast.Name) else name
                if name is not None:
                    self.calls[name].append((place, node))

    def texts(
        self, node: ast.expr, place: Place, *, follow: bool = False, deep: int = 0
    ) -> list[str]:
        """The wordings of an expression; values that are known at run time alone are blanks.

        Args:
          node: the expression.
          place: where it stands.
          follow: also names are followed, to their assignments and to the calls of the function.
          deep: through how many calls it was reached.
        """
        texts = list(dict.fromkeys(self._texts(node, place, follow, deep)))
        return texts if len(texts) <= MOST_TEXTS else [blank(node)]

    def _texts(self, node: ast.expr, place: Place, follow: bool, deep: int) -> list[str]:
        again = functools.partial(self.texts, place=place, follow=follow, deep=deep)
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if isinstance(node, ast.JoinedStr):
            parts = [self._part(value, place, follow, deep) for value in node.values]
            return _joined(parts)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return _joined([again(node.left), again(node.right)])
        if isinstance(node, ast.IfExp):
            return again(node.body) + again(node.orelse)
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            return [text for value in node.values for text in again(value)]
        if isinstance(node, ast.Name) and follow:
            return self._named(node, place, deep) or [blank(node)]
        return [blank(node)]

    def _part(self, node: ast.expr, place: Place, follow: bool, deep: int) -> list[str]:
        """Wordings of a part of an f-string; `{value}` counts for its value."""
        if isinstance(node, ast.FormattedValue):
            return self.texts(node.value, place, follow=follow, deep=deep)
        return self.texts(node, place, follow=follow, deep=deep)

    def _named(self, node: ast.Name, place: Place, deep: int) -> list[str]:
        assigned = [
            value
            for scope in (place.function, self.trees[place.path])
            if scope is not None
            for value in _assigned(scope, node.id)
        ]
        if assigned:
            return [text for value in assigned for text in self.texts(value, place, deep=deep)]
        if place.function is None or deep >= DEEPEST:
            return []
        return [
            text
            for other, value in self._arguments(place, node.id)
            for text in self.texts(value, other, follow=True, deep=deep + 1)
        ]

    def _arguments(self, place: Place, name: str) -> Iterator[tuple[Place, ast.expr]]:
        """What callers of a function give for one of its parameters, and its default."""
        function = place.function
        assert function is not None
        every = [*function.args.posonlyargs, *function.args.args]
        if name not in {argument.arg for argument in (*every, *function.args.kwonlyargs)}:
            return
        position = next((i for i, argument in enumerate(every) if argument.arg == name), None)
        if position is not None and every[0].arg in ("self", "cls"):
            position -= 1
        for other, call in self.calls[function.name]:
            if other.path != place.path and not self._imports(other.path, place.path):
                continue
            given = [keyword.value for keyword in call.keywords if keyword.arg == name]
            if not given and position is not None and position < len(call.args):
                given = [call.args[position]]
            yield from ((other, value) for value in given)

    @functools.cache  # noqa: B019 - one object, for one build
    def _imports(self, path: str, from_path: str) -> bool:
        module = from_path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        package, _, leaf = module.rpartition(".")
        for node in ast.walk(self.trees[path]):
            if (
                isinstance(node, ast.ImportFrom)
                and node.module in (module, package)
                and (node.module == module or leaf in {alias.name for alias in node.names})
            ):
                return True
        return False


def _joined(parts: Sequence[list[str]]) -> list[str]:
    return [
        "".join(choice) for choice in itertools.islice(itertools.product(*parts), MOST_TEXTS + 1)
    ]


def _calls_and_classes(
    tree: ast.Module, path: str
) -> Iterator[tuple[Place, ast.Call | ast.ClassDef]]:
    """Every call and class of a file with where it stands, in order."""
    left: list[tuple[Place, ast.AST]] = [(Place(path, None), tree)]
    while left:
        place, node = left.pop()
        if isinstance(node, ast.Call | ast.ClassDef):
            yield place, node
        if isinstance(node, Function):
            place = Place(path, node)
        left += [(place, child) for child in reversed(list(ast.iter_child_nodes(node)))]


def _assigned(scope: ast.AST, name: str) -> list[ast.expr]:
    """The texts that a name is given in a function, or at the top of a file."""
    body = scope.body if isinstance(scope, ast.Module) else list(ast.walk(scope))
    found = []
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        for target in targets:
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=False))
            found += [
                got for to, got in pairs if isinstance(to, ast.Name) and to.id == name and got
            ]
    plain = all(
        isinstance(value, ast.JoinedStr | ast.IfExp | ast.BinOp)
        or (isinstance(value, ast.Constant) and isinstance(value.value, str))
        for value in found
    )
    return found if plain else []
