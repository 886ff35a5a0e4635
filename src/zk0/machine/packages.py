"""What zk0 asks for, by role, and whether Python and its packages are that, and those that were locked.

The one place that knows what is to be installed is pyproject.toml: in a clone it is read itself, elsewhere as the
wheel's metadata holds it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from zk0.checks import Check
from zk0.errors import StageError

Extra = Literal["site", "server", "sim", "scale", "view", "dev", "all"]
LOCK_FILE = Path("requirements/lock.txt")
PYTHON = (3, 12)
# What the numbers of a run depend on.
PACKAGES = (
    "torch", "torchvision", "lerobot", "transformers", "numpy", "safetensors", "av",
    "mujoco", "so101-nexus", "flwr", "dvc", "prefect", "mlflow",
)  # fmt: skip
# In the order in which one is named that brings a package.
_ROLES: tuple[Extra, ...] = ("site", "server", "sim", "scale", "view", "dev")
# Extras that have a lock of their own; all.txt has more than the roles, and lock.txt what is beyond that.
_LOCKS, _BEYOND = ("site", "server", "view"), {"scale", "view", "dev"}
_TEMPLATE = Path(__file__).parents[1] / "projects" / "template"  # in an installation: zk0/projects/template.py
# Modules that come by another name, or with another package that is asked for.
_BROUGHT_BY = {
    "google": "protobuf",
    "markupsafe": "jinja2",
    "draccus": "lerobot",
    "huggingface_hub": "lerobot",
    "PIL": "lerobot",
    "rerun": "rerun-sdk",
    "tokenizers": "transformers",
}
# Which roles a system serves. Windows, where files could not be locked, is refused by zk0/__main__.py.
_SYSTEMS = {"linux": ("site", "server"), "darwin": ("site",)}
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*])?==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a run's numbers."""
    return {name: version for name in PACKAGES if (version := installed(name))}


def installed(name: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    # A wheel's metadata end in its README; to parse all of that for one line takes most of half a second for a lock.
    _, named, rest = (found.read_text("METADATA") or "").partition("\nVersion: ")
    return rest.partition("\n")[0].strip() if named else found.version


def clone() -> Path | None:
    """The clone that this code lies in; None where it was installed from a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if _is_zk0(root / "pyproject.toml") else None


def asked(extras: Iterable[str] = (), root: Path | None = None) -> list[Requirement]:
    """What zk0 asks for.

    Args:
        extras: For which roles; what an extra names of the others is in it.
        root: Of a clone whose pyproject.toml is read, where it is one; else this code's own.
    """
    place = root if root and _is_zk0(root / "pyproject.toml") else clone()
    if place:
        project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
        lines = list(project.get("dependencies", []))
        for extra, more in project.get("optional-dependencies", {}).items():
            lines += [f'{text}; extra == "{extra}"' for text in more]
    else:
        lines = importlib.metadata.requires("zk0") or []
    known, wanted = [Requirement(line) for line in lines], set(extras)
    while True:
        found = [item for item in known if _holds(item, wanted)]
        further = set().union(*(item.extras for item in found if item.name == "zk0")) - wanted
        if not further:
            return [item for item in found if item.name != "zk0"]
        wanted |= further


def missing(error: BaseException) -> str | None:
    """What to tell of an error where a module is not installed that an extra brings; None of any other."""
    module = ((isinstance(error, ModuleNotFoundError) and error.name) or "").partition(".")[0]
    name = _BROUGHT_BY.get(module, module.replace("_", "-"))
    extra = next((role for role in _ROLES if name in {item.name for item in asked([role])}), None)
    return extra and f"this needs the package {name}, which zk0[{extra}] brings; {install([extra])}"


def demand(extra: Extra, what: str) -> None:
    """Refuse where an extra is not installed, before what needs it in another process starts.

    Raises:
        StageError: Names what is missing, and what installs it.
    """
    lacking = [item.name for item in asked([extra]) if installed(item.name) is None]
    if lacking:
        raise StageError(f"{what} needs zk0[{extra}], of which is missing: {_some(lacking)}; {install([extra])}")


def install(extras: Sequence[Extra]) -> str:
    """The command that installs what some extras bring, in the versions that were tested; in words."""
    if clone():
        return "`make install` installs it"
    own = len(extras) == 1 and extras[0] in _LOCKS
    name = extras[0] if own else "lock" if _BEYOND & set(extras) else "all"
    lock = Path("requirements", f"{name}.txt")
    return f"`pip install --no-deps -r {lock if lock.is_file() else _TEMPLATE / lock}` installs it"


def check_system(role: Extra) -> Check:
    """Whether this system serves a role: a site, or all that a server and the pipeline do."""
    serves = _SYSTEMS.get(sys.platform, ())
    known = "Linux" if role != "site" else "Linux or macOS"
    found = f"{platform.system()} {platform.machine()}"
    advice = "use such a system; docs/join.md tells which were tried"
    return Check("system", role in serves, found, known, advice, "warning" if serves else "error")


def check_python() -> Check:
    """Whether this is the Python that the packages were resolved for."""
    return Check(
        "python",
        sys.version_info[:2] == PYTHON,
        platform.python_version(),
        ".".join(map(str, PYTHON)),
        "install Python 3.12 and make the environment anew",
    )


def check_required_packages(root: Path, extras: Sequence[Extra]) -> Check:
    """What is asked for by roles: without these versions the code is not known to work."""
    wanted = asked(extras, root)
    wrong = [
        f"{item.name} {installed(item.name) or 'missing'} (needs {item.specifier or 'any'})"
        for item in wanted
        if not item.specifier.contains(installed(item.name) or "0.dev0", prereleases=bool(installed(item.name)))
    ]
    expected = f"what zk0[{','.join(extras)}] asks for"
    return Check("packages", not wrong, _some(wrong) or f"all {len(wanted)}", expected, install(extras))


def check_locked_packages(root: Path) -> Check:
    """The lock file's exact versions: others may work, but give other numbers. What a role needs not is not missed."""
    expected, advice = f"the versions in {LOCK_FILE}", "reinstall them from it; needed to repeat a run exactly"
    file = root / LOCK_FILE
    if not file.is_file():
        return Check("locked packages", False, f"{LOCK_FILE} not found", expected, advice, "warning")
    pinned = [
        (name, version, installed(name))
        for name, version, marker in _PINNED.findall(file.read_text())
        if not marker or Requirement(f"{name}; {marker}").marker.evaluate()  # type: ignore[union-attr]
    ]
    there = [(name, version, found) for name, version, found in pinned if found]
    # A build tag such as +cpu is the same release for another machine.
    wrong = [
        f"{name} {found} (lock: {version})"
        for name, version, found in there
        if found.partition("+")[0] != version.partition("+")[0]
    ]
    told = _some(wrong) or f"all {len(there)}"
    return Check("locked packages", not wrong, told, expected, advice, "warning")


def check_video() -> Check:
    """Whether recordings and rollouts can be encoded and decoded."""
    found = importlib.util.find_spec("av") is not None
    expected = "PyAV, with its own FFmpeg"
    return Check("video", found, f"PyAV {installed('av')}" if found else "no PyAV", expected, install(["site"]))


def _some(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _holds(item: Requirement, extras: set[str]) -> bool:
    return item.marker is None or any(item.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _is_zk0(file: Path) -> bool:
    """Whether it is zk0's own pyproject.toml, and not that of who uses it."""
    return file.is_file() and tomllib.loads(file.read_text()).get("project", {}).get("name") == "zk0"
