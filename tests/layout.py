"""The rules of the layout, as functions of a tree: each returns what breaks it, one line a case."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Module:
    """File of an area, with its imports and the names that it offers."""

    path: Path
    names: tuple[tuple[str, str | None], ...]
    """Each module that it imports with the name that it takes from it, None for the module itself. Anywhere in the
    file: an import inside a function, or for type checkers alone, ties two modules as any other does."""
    public: frozenset[str] | None
    """Its `__all__`; None where it has none."""
    defined: frozenset[str]
    """Names that it defines itself, at its top level."""
    types: frozenset[str]
    """Names that it defines for type checkers alone: at run time there is nothing to list."""
    bare: bool
    """Whether it defines nothing: a package's docstring, or a program of one call."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A checkout."""

    root: Path
    areas: dict[str, tuple[str, ...]]
    """By name, what each may import beside itself."""
    programs: tuple[str, ...] = ()
    """Folders whose modules no area imports; files at the root are programs too."""
    rooms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By area, its rooms from the lowest up; `graph.passes` is a room of its own."""

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The file of every module of every area, by its dotted name; nothing is read."""
        return {
            module_of(self.root, path): path
            for area in self.areas
            for path in sorted((self.root / area / "bertport").rglob("*.py"))
        }

    @cached_property
    def modules(self) -> dict[str, Module]:
        """Every module of every area, by its dotted name."""
        return {name: _read(path) for name, path in self.paths.items()}

    @cached_property
    def imports(self) -> dict[str, dict[str, set[str]]]:
        """By module, the modules of the areas that it imports, each with the names that it takes from there."""
        found: dict[str, dict[str, set[str]]] = {}
        for name, module in self.modules.items():
            taken: dict[str, set[str]] = defaultdict(set)
            for source, attribute in module.names:
                whole = f"{source}.{attribute}"
                if attribute is None or whole in self.modules:
                    taken[whole if attribute else source].update()
                else:
                    taken[source].add(attribute)
            found[name] = {each: names for each, names in taken.items() if each in self.modules and each != name}
        return found

    def room(self, name: str) -> str:
        """The room of a module inside its area, `graph.passes`; empty for the area's own modules."""
        parts = name.split(".")[2:]
        return ".".join(parts if self.modules[name].path.name == "__init__.py" else parts[:-1])

    def upward(self) -> set[str]:
        """Imports of an area that is not below one's own, of a program, or of a room above one's own.

        An area's own modules, in no room, are the ground (`errors`) or the roof (`cli`): circles alone bind them.
        """
        found = set()
        for name, taken in self.imports.items():
            area = area_of(name)
            order = self.rooms.get(area, ())
            for other in taken:
                if area_of(other) != area:
                    if area_of(other) not in self.areas[area]:
                        found.add(f"{name} -> {other}")
                elif self.room(name) in order and self.room(other) in order[order.index(self.room(name)) + 1 :]:
                    found.add(f"{name} -> {other}")
        return found | self._programs()

    def _programs(self) -> set[str]:
        inside = (path for folder in self.programs for path in (self.root / folder).iterdir())
        names = {*self.programs, *(path.stem for path in self.root.glob("*.py"))}
        names |= {path.stem for path in inside if path.suffix == ".py" or path.is_dir()}
        return {
            f"{name} -> {source}"
            for name, module in self.modules.items()
            for source, _ in module.names
            if source.split(".")[0] in names
        }

    def circles(self) -> set[str]:
        """Groups of modules that import each other, directly or by way of others."""
        return {" <-> ".join(sorted(group)) for group in _components(self.imports) if len(group) > 1}

    def unregistered(self) -> set[str]:
        """Areas and rooms that are on disk and in no list, or in a list and not on disk."""
        areas = {path.parent.name for path in self.root.glob("*/bertport")}
        found = areas ^ set(self.areas)
        for area in areas & set(self.areas):
            base = self.root / area / "bertport" / area
            rooms = {".".join(path.relative_to(base).parent.parts) for path in base.rglob("*.py")} - {""}
            found |= {f"{area}: {each}" for each in rooms ^ set(self.rooms.get(area, ()))}
        return found

    def untyped(self) -> set[str]:
        """Areas without the mark that tells type checkers that they are typed."""
        return {area for area in self.areas if not (self.root / area / "bertport" / area / "py.typed").is_file()}

    def unlisted(self) -> set[str]:
        """Modules without `__all__`, and names that one module takes from another whose `__all__` lacks them."""
        found = {name for name, module in self.modules.items() if module.public is None and not module.bare}
        for name, taken in self.imports.items():
            for source, names in taken.items():
                offered = (self.modules[source].public or frozenset()) | self.modules[source].types
                found |= {f"{name} -> {source}.{each}" for each in names - offered}
        return found

    def borrowed(self) -> set[str]:
        """Names in a module's `__all__` that it does not define; a package may offer those of its modules."""
        return {
            f"{name}.{each}"
            for name, module in self.modules.items()
            for each in (module.public or frozenset()) - module.defined
            if module.path.name != "__init__.py"
        }


def area_of(name: str) -> str:
    """The area of a module of the project."""
    return name.split(".")[1]


def module_of(root: Path, path: Path) -> str:
    """The dotted name of a file of an area."""
    parts = path.relative_to(root).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _read(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[tuple[str, str | None]] = []
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, None) for alias in node.names]
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [(node.module, alias.name) for alias in node.names]
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):  # a name that is taken by way of its module: `tensors.plan`
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            names.append((aliases[node.value.id], node.attr))
    listed = [
        node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and _names(node) == {"__all__"}
    ]
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return Module(
        path=path,
        names=tuple(dict.fromkeys(each for each in names if not re.match(r"__\w+__$", each[1] or ""))),
        public=frozenset(ast.literal_eval(listed[0])) if listed else None,
        defined=frozenset().union(*map(_names, tree.body)),
        types=frozenset().union(*(_names(each) for node in guarded for each in node.body)),
        bare=not any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign)
            for node in tree.body
        ),
    )


def _names(node: ast.stmt) -> set[str]:
    """The names that a statement at the top level defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}


def _components(graph: dict[str, dict[str, set[str]]]) -> list[set[str]]:
    """The strongly connected components: those of which each reaches each."""
    reached = {start: _reached(graph, start) for start in graph}
    seen: set[str] = set()
    components = []
    for start in graph:
        if start not in seen:
            group = {start} | {each for each in reached[start] if start in reached[each]}
            seen |= group
            components.append(group)
    return components


def _reached(graph: dict[str, dict[str, set[str]]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()].keys() - found
        found |= new
        waiting += new
    return found
