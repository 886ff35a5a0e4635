"""Containerfile and compose.yaml: no builder is asked, but all that they name is there, and each command is one."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from docs_commands import path_of
from tests_support import REPO

from zk0 import __version__
from zk0.machine.packages import PYTHON
from zk0.network.config import Ports

INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in (REPO / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
COMPOSE = yaml.safe_load((REPO / "compose.yaml").read_text())
SERVER = COMPOSE["services"]["server"]
DOCS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", (REPO / "docs/operate.md").read_text(), re.S)
    for line in block.splitlines()
    if line.startswith("docker compose")
]


def all_of(instruction: str) -> list[str]:
    return [words for name, words in INSTRUCTIONS if name == instruction]


def test_what_is_copied_is_there_or_is_what_make_wheel_writes() -> None:
    (copied,) = all_of("COPY")
    lock, wheel, _ = copied.split()
    let_in = [line[1:] for line in (REPO / ".dockerignore").read_text().split() if line.startswith("!")]

    for role in ("server", "all"):
        file = lock.replace("${ROLE}", role)
        assert (REPO / file).is_file() and any(fnmatch(file, pattern) for pattern in let_in)
    made = f"dist/zk0-{__version__}-py3-none-any.whl"
    assert fnmatch(made, wheel) and any(fnmatch(made, pattern) for pattern in let_in)
    assert "hatchling build -t wheel" in (REPO / "Makefile").read_text()


def test_the_image_has_the_locked_python_and_its_user_is_not_root() -> None:
    names = [name for name, _ in INSTRUCTIONS]

    assert all_of("FROM") == [f"python:{PYTHON[0]}.{PYTHON[1]}-slim-bookworm"]
    assert all_of("USER") == ["zk0"] and names.index("USER") < names.index("CMD")
    assert any("useradd" in words and " zk0" in words for words in all_of("RUN"))


def test_the_commands_of_both_files_are_zk0s() -> None:
    typed = [yaml.safe_load(words) for words in all_of("CMD")] + [SERVER["healthcheck"]["test"][1:]]
    typed += [shlex.split(part) for words in all_of("RUN") for part in words.split("&&") if "zk0 " in part.lstrip()[:4]]

    assert len(typed) == 3
    for words in typed:
        path_of(shlex.join(words))


def test_the_port_is_the_gateways_and_the_rest_stays_on_loopback() -> None:
    assert all_of("EXPOSE") == [str(Ports().gateway)]
    assert SERVER["network_mode"] == "host" and "ports" not in SERVER


def test_what_must_be_kept_lies_in_named_volumes() -> None:
    mounted = dict(line.split(":") for line in SERVER["volumes"])

    assert set(mounted) == set(COMPOSE["volumes"])
    assert all_of("WORKDIR")[-1] == mounted["project"]


@pytest.mark.parametrize("line", DOCS)
def test_what_the_docs_say_of_it_is_of_this_service_and_of_such_commands(line: str) -> None:
    words: list[Any] = shlex.split(line, comments=True)[2:]

    assert words[0] in ("build", "up", "run", "exec", "cp", "down", "logs")
    if words[0] in ("run", "exec"):
        rest = [word for word in words[1:] if word not in ("--rm", "-T")]
        assert rest[0] in COMPOSE["services"]
        path_of(shlex.join(rest[1:]))


def test_the_docs_say_how() -> None:
    assert len(DOCS) > 5
