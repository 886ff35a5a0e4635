"""What a project is laid out from: a wheel's own data, or the clone whose code this is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from zk0.machine.packages import clone

# The tests are not part of an installation, so neither is the flow that runs them.
_OF_A_CLONE = (Path("flows/testing.py"), Path("tasks/testing.py"))
_DEPLOYMENTS = Path("prefect.yaml")


def content() -> dict[Path, bytes]:
    """Every file of a new project, by its place in it."""
    found = {}
    for place, file in _files():
        if place not in _OF_A_CLONE:
            raw = file.read_bytes()
            found[place] = _without_tests(raw.decode()).encode() if place == _DEPLOYMENTS else raw
    return found


def _files() -> list[tuple[Path, Path]]:
    """Each file's place in a project, and where it is now; pyproject.toml says what a wheel takes of a clone."""
    if root := clone():
        settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        places = [root / name for name in settings["force-include"]]
    else:
        root = Path(__file__).with_name("template")
        places = [root]
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    return [
        (file.relative_to(root), file)
        for file in files
        if file.is_file() and "__pycache__" not in file.relative_to(root).parts
    ]


def _without_tests(text: str) -> str:
    """prefect.yaml without the tests' deployment, and without benchmarks beside peers, which are a clone's too."""
    parts = re.split(r"(?m)^(?=  - name: )", text)
    kept = [part for part in parts if str(_OF_A_CLONE[0]) not in part]
    entry = "flows/benchmark.py:benchmark\n"
    return "".join(kept).replace(entry, f"{entry}    parameters:\n      peers: false\n")
