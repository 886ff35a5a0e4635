"""Whether Python and its packages are those that the project asks for, and those that were locked."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from zk0.checks import Check

LOCK_FILE = Path("requirements/lock.txt")
PYTHON = (3, 12)
# What the numbers of a run depend on.
PACKAGES = (
    "torch", "torchvision", "lerobot", "transformers", "numpy", "safetensors", "av",
    "mujoco", "so101-nexus", "flwr", "dvc", "prefect", "mlflow",
)  # fmt: skip
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*])?==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a run's numbers."""
    return {name: version for name in PACKAGES if (version := installed(name))}


def installed(name: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_python() -> Check:
    """Whether this is the Python that the packages were resolved for."""
    return Check(
        "python",
        sys.version_info[:2] == PYTHON,
        platform.python_version(),
        ".".join(map(str, PYTHON)),
        "install Python 3.12 and make the environment anew: `make install`",
    )


def check_required_packages(root: Path) -> Check:
    """pyproject.toml's own dependencies: without these versions the code is not known to work."""
    expected, advice = "what pyproject.toml asks for", "install them: `make install`"
    file = root / "pyproject.toml"
    if not file.is_file():
        return Check("packages", False, "pyproject.toml not found", expected, "run from the project's root", "warning")
    project = tomllib.loads(file.read_text()).get("project", {})
    wanted = [Requirement(text) for text in project.get("dependencies", [])]
    wrong = [
        f"{item.name} {installed(item.name) or 'missing'} (needs {item.specifier or 'any'})"
        for item in wanted
        if (item.marker is None or item.marker.evaluate())
        and not item.specifier.contains(installed(item.name) or "0.dev0", prereleases=bool(installed(item.name)))
    ]
    return Check("packages", not wrong, _some(wrong) or f"all {len(wanted)}", expected, advice)


def check_locked_packages(root: Path) -> Check:
    """The lock file's exact versions: others may work, but give other numbers."""
    expected, advice = f"the versions in {LOCK_FILE}", "reinstall them: `make install`; needed to repeat a run exactly"
    file = root / LOCK_FILE
    if not file.is_file():
        return Check("locked packages", False, f"{LOCK_FILE} not found", expected, advice, "warning")
    wanted = [
        (name, version)
        for name, version, marker in _PINNED.findall(file.read_text())
        if not marker or Requirement(f"{name}; {marker}").marker.evaluate()  # type: ignore[union-attr]
    ]
    wrong = [
        f"{name} {found or 'missing'} (lock: {version})"
        for name, version in wanted
        # A build tag such as +cpu is the same release for another machine.
        if (found := installed(name)) is None or found.partition("+")[0] != version.partition("+")[0]
    ]
    return Check("locked packages", not wrong, _some(wrong) or f"all {len(wanted)}", expected, advice, "warning")


def check_video() -> Check:
    """Whether recordings and rollouts can be encoded and decoded."""
    found = importlib.util.find_spec("av") is not None
    expected = "PyAV, with its own FFmpeg"
    return Check("video", found, f"PyAV {installed('av')}" if found else "no PyAV", expected, "run `make install`")


def _some(items: list[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
