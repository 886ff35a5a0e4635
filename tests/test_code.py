"""Which code makes a stage stale: found by imports, told by digest, written by `zk0 validate`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zk0.digests import FileCache
from zk0.environment.code import LEFT_OUT, OTHER_PACKAGES, STAGES, Installed

REPO = Path(__file__).resolve().parents[1]
SOURCE = REPO / "src" / "zk0"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("code") / "zk0"
    shutil.copytree(SOURCE, root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture(scope="module")
def before(copy: Path) -> dict[str, dict[str, str]]:
    return Installed(copy).digests()


def test_every_stage_but_validate_depends_on_its_code() -> None:
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]

    assert set(stages) == {"validate", *STAGES}
    for stage in STAGES:
        (locked,) = [one["code.lock.json"] for one in stages[stage]["params"] if "code.lock.json" in one]
        assert f"code.{stage}" in locked
    assert {"code.lock.json": ["code.report", "study"]} in stages["report"]["params"]


def test_what_is_left_out_is_there_and_would_be_followed() -> None:
    """No row of the table speaks of a module that has moved, or that no stage imports."""
    installed = Installed()
    followed = set().union(*(installed.modules(stage) for stage in STAGES))
    imported = set().union(*(installed.imports(module) for module in followed))

    for name, why in LEFT_OUT.items():
        path = SOURCE.joinpath(*name.split(".")[1:])
        assert path.is_dir() or path.with_suffix(".py").is_file(), name
        assert any(other == name or other.startswith(f"{name}.") for other in imported), name
        assert why


@pytest.mark.parametrize(
    ("module", "stale"),
    [
        ("evaluation/rollouts.py", {"evaluate"}),
        ("evaluation/held_out.py", {"federate", "evaluate"}),
        ("evaluation/judge.py", {"evaluate"}),
        ("training/local.py", {"federate", "evaluate", "benchmark"}),
        ("data/check.py", {"prepare"}),
        ("data/convert.py", set()),
        ("reporting/templates/styles.css", {"report"}),
        ("tracking/plot.py", {"track"}),
        ("operations/health.py", set()),
        ("console.py", set()),
    ],
)
def test_an_edit_makes_stale_what_it_decides_and_nothing_else(
    copy: Path, before: dict[str, dict[str, str]], module: str, stale: set[str]
) -> None:
    file = copy / module
    text = file.read_text()
    file.write_text(text + "\nEDITED = 1\n")
    try:
        after = Installed(copy).digests()
    finally:
        file.write_text(text)

    assert {stage for stage in STAGES if before[stage] != after[stage]} == stale


def test_comments_docstrings_layout_and_version_count_for_nothing(
    copy: Path, before: dict[str, dict[str, str]]
) -> None:
    file, package = copy / "training" / "local.py", copy / "__init__.py"
    kept = {path: path.read_text() for path in (file, package)}
    file.write_text('"""Other words."""\n\n\n' + kept[file].partition('"""\n')[2] + "\n\n# a comment\n")
    package.write_text(kept[package].replace("__version__ = ", "__version__ = '9.9' or "))
    try:
        assert Installed(copy).digests() == before
    finally:
        for path, text in kept.items():
            path.write_text(text)


def test_what_was_read_is_kept_until_a_file_is_another(
    copy: Path, before: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    def digests() -> dict[str, dict[str, str]]:
        with FileCache(tmp_path / "code.json", by="this") as cache:
            return Installed(copy, cache).digests()

    file = copy / "tracking" / "plot.py"
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))  # settled long ago
    assert digests() == before
    kept = (tmp_path / "code.json").read_bytes()
    assert str(file) in json.loads(kept)["files"]
    assert digests() == before and (tmp_path / "code.json").read_bytes() == kept

    text = file.read_text()
    file.write_text(text + "\nEDITED = 1\n")
    try:
        after = digests()
    finally:
        file.write_text(text)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == {"track"}


def test_packages_that_decide_numbers_are_named_by_version() -> None:
    digests = Installed().digests()

    for name in ("torch", "lerobot", "numpy", "mujoco", "so101-nexus"):
        assert f"{name} " in digests["prepare"][OTHER_PACKAGES]
    assert "+" not in digests["federate"][OTHER_PACKAGES]
    assert "mlflow" not in digests["federate"][OTHER_PACKAGES]


@pytest.mark.parametrize("stage", ["report", pytest.param("federate", marks=pytest.mark.services)])
def test_what_python_loads_for_a_stage_is_among_what_is_followed(stage: str) -> None:
    code = f"import json, sys, zk0.pipeline.{stage}; print(json.dumps([m for m in sys.modules if m.startswith('zk0')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)

    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    installed = Installed()
    left_out = {module for module in loaded if module.startswith(tuple(LEFT_OUT))}
    reached, waiting = set(left_out), list(left_out)  # loaded for what is left out, and for nothing else
    while waiting:
        for name in installed.imports(waiting.pop()):
            found = {module for module in loaded - reached if f"{name}.".startswith(f"{module}.")}
            reached |= found
            waiting += found
    assert loaded - installed.modules(stage) - reached == set()


def test_a_lock_that_git_holds_is_of_this_pipeline() -> None:
    """As shipped there is none: every run writes its own. Whoever commits one has it fresh."""
    held = subprocess.run(["git", "ls-files", "dvc.lock"], cwd=REPO, capture_output=True, text=True, check=False).stdout
    lock = yaml.safe_load((REPO / "dvc.lock").read_text())["stages"] if held.strip() else {}
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]

    for name, stage in lock.items():
        outs = [*stages[name].get("outs", []), *stages[name].get("metrics", [])]
        assert {out["path"] for out in stage.get("outs", [])} == set(outs), f"dvc.lock is stale: stage {name}"
