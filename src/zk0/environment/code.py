"""Which of the installed code decides what a stage makes, by digest.

A stage of dvc.yaml is stale when the code behind it has changed, and only then. That code is found by
following imports from the stage's module, also those inside functions. What is followed and still decides
no result is left out by :data:`LEFT_OUT`, the one table to look at when modules move.

`zk0 validate` writes the digests to ``code.lock.json``, on which every stage depends as DVC params. They
are of the code that is installed, so they hold outside a clone as well.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zk0.digests import FileCache, digest_file
from zk0.machine.packages import PACKAGES, installed

CODE_LOCK = Path("code.lock.json")
_CODE_CACHE = Path(".cache/code.json")
STAGES = ("prepare", "federate", "evaluate", "benchmark", "report", "track")
OTHER_PACKAGES = "packages"
_LENGTH = 16
_BY_NAME = ("import_module", "find_spec")  # calls that name a module as text

# Beginnings of modules' names that stages import and that decide no result, and why.
LEFT_OUT = {
    "zk0.console": "prints",
    "zk0.environment": "finds out whether a run would get through",
    "zk0.errors": "names what went wrong",
    "zk0.federation.scale": "decides where sites train, not what comes of it",
    "zk0.files": "reads and writes whole files, whatever is in them",
    "zk0.machine": "notes machine and versions beside the results",
    "zk0.hub": "fetches what sources.lock.json names by commit",
    "zk0.params": "checks params; dvc.yaml depends on their values, and a param that is left out is off",
    "zk0.pipeline.summary": "prints",
    "zk0.tracking": "holds models; sources.lock.json names the one that is started from",
}
# Of these, what a stage is there for.
_KEPT = {"track": ("zk0.tracking",)}


@dataclass(frozen=True)
class _Module:
    """What counts of a module: whatever it imports, anywhere in it, and what its code says."""

    imports: frozenset[str]
    digest: bytes


class Installed:
    """The installed code, or another copy of it.

    Args:
        root: Folder of the package ``zk0``; the installed one by default.
        cache: Where what is read of modules is kept.
    """

    def __init__(self, root: Path | None = None, cache: FileCache | None = None) -> None:
        self._root = root or Path(__file__).resolve().parents[1]
        self._cache = cache
        self._read: dict[str, _Module] = {}
        self._file = functools.cache(self._found)

    def digests(self) -> dict[str, dict[str, str]]:
        """By stage, then by room of ``zk0``: 16 hex digits; and the versions of packages that decide numbers.

        Comments, docstrings, layout and the version's own number count for nothing.
        """
        return {stage: self._of_stage(stage) for stage in STAGES}

    def modules(self, stage: str) -> set[str]:
        """The modules that decide what a stage makes, in their full names."""
        found: set[str] = set()
        waiting = [f"zk0.pipeline.{stage}"]
        while waiting:
            for name in _with_parents(waiting.pop()):
                if name not in found and not _left_out(name, stage) and self._file(name):
                    found.add(name)
                    waiting += [other for other in self._module(name).imports if _below(other, "zk0")]
        return found

    def imports(self, module: str) -> frozenset[str]:
        """What a module imports, anywhere in it, by names that may be modules."""
        return self._module(module).imports

    def _of_stage(self, stage: str) -> dict[str, str]:
        rooms: dict[str, list[_Module]] = {}
        for name in sorted(self.modules(stage)):
            rooms.setdefault(_room(name), []).append(self._module(name))
        found = {room: _joined(modules) for room, modules in sorted(rooms.items())}
        imported = {name.partition(".")[0] for modules in rooms.values() for one in modules for name in one.imports}
        versions = {name: installed(name) for name in PACKAGES if name.replace("-", "_") in imported}
        # A build tag such as +cpu is the same release for another machine.
        told = ", ".join(f"{name} {version.partition('+')[0]}" for name, version in versions.items() if version)
        return {**found, **({OTHER_PACKAGES: told} if told else {})}

    def _found(self, module: str) -> Path | None:
        place = self._root.joinpath(*module.split(".")[1:])
        return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)

    def _module(self, name: str) -> _Module:
        if name not in self._read:
            file = self._file(name)
            assert file is not None
            imports, meaning = self._cache.of(file, _parsed) if self._cache else _parsed(file)
            digest = hashlib.sha256(f"{name}\0{meaning}\0".encode())
            for other in _beside_code(file.parent) if file.name == "__init__.py" else ():
                digest.update(f"{other.name}\0".encode() + hashlib.sha256(other.read_bytes()).digest())
            self._read[name] = _Module(frozenset(imports), digest.digest())
        return self._read[name]


def code_lock(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """The content of ``code.lock.json``: one key, by which `dvc exp show --drop code` leaves all of it out.

    Args:
        root: Of a project, whose cache has what was read of modules: to read all of them takes a second.
    """
    with FileCache(root / _CODE_CACHE, by=digest_file(Path(__file__))) as cache:
        return {"code": Installed(cache=cache).digests()}


def _parsed(file: Path) -> list[Any]:
    """What a module imports, and a digest of what its code says."""
    tree = ast.parse(file.read_text())
    imports = sorted(set(_imported(tree)))
    return [imports, hashlib.sha256(_meaning(tree).encode()).hexdigest()]


def _joined(modules: list[_Module]) -> str:
    return hashlib.sha256(b"".join(module.digest for module in modules)).hexdigest()[:_LENGTH]


def _below(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _left_out(module: str, stage: str) -> bool:
    kept = _KEPT.get(stage, ())
    return any(_below(module, name) for name in LEFT_OUT if name not in kept)


def _with_parents(module: str) -> Iterator[str]:
    """A module and the packages that are imported before it."""
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _room(module: str) -> str:
    """The part of ``zk0`` that a module is in; a stage's own module is a room by itself."""
    parts = module.split(".")[1:]
    return "-".join(parts[: 2 if parts[:1] == ["pipeline"] else 1]) or "zk0"


def _imported(tree: ast.AST) -> Iterator[str]:
    """Names that may be modules, without those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(_BY_NAME):
                yield from (
                    word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)
                )
            yield from _imported(node)


def _meaning(tree: ast.Module) -> str:
    """Code without comments, docstrings, layout and ``__version__``; the tree is spent."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _says_nothing(part)]
    return ast.dump(tree)


def _says_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return [name.id for name in node.targets if isinstance(name, ast.Name)] == ["__version__"]
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _beside_code(folder: Path) -> list[Path]:
    """What a package holds besides modules, such as templates; also in folders below that are no packages."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not (path / "__init__.py").exists() and path.name != "__pycache__":
            found += [file for file in sorted(path.rglob("*")) if file.is_file() and "__pycache__" not in file.parts]
        elif path.is_file() and path.suffix not in (".py", ".pyc"):
            found.append(path)
    return found
