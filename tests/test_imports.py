"""Who knows whom. What is typed often, and what runs all the time, needs no policy: torch and lerobot stay unloaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "module",
    [
        "zk0.checkpoints",
        "zk0.pipeline.prepare",
        "zk0.operations.status",
        "zk0.operations.monitor.service",
        "zk0.network.server.steps",
        "zk0.network.server.runs",
        "zk0.network.client.status",
        "zk0.network.client.app",
    ],
)
def test_no_policy_is_loaded_for_what_needs_none(module: str) -> None:
    heavy = "{'torch', 'lerobot', 'transformers', 'mlflow', 'prefect'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_policy_is_loaded_without_what_nothing_uses_of_its_libraries() -> None:
    code = """
from zk0 import runtime_env
real = runtime_env.importlib.metadata.packages_distributions()
runtime_env.switch_off()
import sys, zk0.policy.start
from transformers.utils.import_utils import PACKAGE_DISTRIBUTION_MAPPING as found
print(sys.modules["sklearn"], set(found) == set(real), found["torch"], found["jinja2"], found["PIL"], "no" in found)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "None True ['torch'] ['Jinja2'] ['pillow'] False"


def test_rooms_know_only_those_below_them() -> None:
    """The contracts of pyproject.toml, with the imports inside functions and for types alone."""
    linter = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


ADAPTER = ROOT / "src/zk0/federation/flower.py"


def flower_imports(tree: ast.AST) -> set[str]:
    """Modules of Flower that code imports beyond its public ones."""
    public = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation")
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in names if name.split(".")[0] == "flwr" and not name.startswith(public)}


def test_flowers_private_names_are_in_one_file() -> None:
    trees = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "src/zk0").rglob("*.py")) if path != ADAPTER}

    found = {path.name: names for path, tree in trees.items() if (names := flower_imports(tree))}

    assert found == {}
    assert not [path for path in trees if "_runtime_client" in path.read_text()]


def test_flower_has_every_name_that_is_asked_of_it() -> None:
    """Those that a type checker sees are those that can be had."""
    from zk0.federation import flower

    known = [node for node in ast.walk(ast.parse(ADAPTER.read_text())) if isinstance(node, ast.ImportFrom)]
    names = {alias.asname for node in known if (node.module or "").startswith("flwr") for alias in node.names}

    assert names == {*flower._MODULE_OF, *flower._WHOLE}
    assert all(getattr(flower, name) is not None for name in names)
