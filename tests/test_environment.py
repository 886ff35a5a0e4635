"""What the machine must have for a run, found out without importing anything heavy."""

from __future__ import annotations

import ast
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from zk0.checks import Check, passed
from zk0.cli.app import main
from zk0.environment import Environment, check_environment, needs, surroundings
from zk0.errors import StageError
from zk0.files import read_json, write_text
from zk0.machine import machine, packages
from zk0.machine.packages import versions
from zk0.params import Params, parse_params
from zk0.pipeline import validate
from zk0.records.paths import COMPARISON

ROOT = Path(__file__).parents[1]


def make_params(**sections: dict[str, Any]) -> Params:
    content: dict[str, Any] = {
        "policy": {"base": "random:nano"},
        "threads": 1,
        "data": {"sites": {"cube": "sim:push-red-cube-left"}},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    return parse_params(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one dependency and one locked package, both as installed."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "zk0"\ndependencies = ["pydantic>=2"]\n')
    (tmp_path / "requirements").mkdir()
    write_lock(tmp_path, f"pydantic=={packages.installed('pydantic')}")
    return tmp_path


def write_lock(root: Path, line: str) -> None:
    (root / "requirements" / "lock.txt").write_text(f"{line} \\\n    --hash=sha256:00\n    # via zk0\n")


def check_named(report: Environment, name: str) -> Check:
    (check,) = [check for check in report.checks if check.name == name]
    return check


def test_report_has_the_documented_form(root: Path) -> None:
    report = check_environment(make_params(), root)

    assert set(vars(report)) == {"created", "passed", "checks", "machine", "packages"}
    for check in report.checks:
        assert set(vars(check)) == {"name", "passed", "severity", "found", "expected", "advice"}
        assert check.severity in ("error", "warning") and check.found and check.advice
    assert set(report.machine) == {
        "platform", "cpu", "cores", "memory_bytes", "disk_free_bytes", "gpus", "python",
    }  # fmt: skip


def test_a_failed_warning_does_not_fail_the_whole() -> None:
    warning = Check("a", False, "x", "y", "z", "warning")

    assert passed([warning])
    assert not passed([warning, Check("b", False, "x", "y", "z")])


def test_other_version_than_locked_is_noted(root: Path) -> None:
    write_lock(root, "pydantic==1.0")

    check = check_named(check_environment(make_params(), root), "locked packages")

    assert not check.passed and check.severity == "warning"
    assert "pydantic" in check.found and "lock: 1.0" in check.found


@pytest.mark.parametrize(
    "line",
    ["no-such-package==1.0 ; sys_platform == 'nowhere'", "pydantic=={version}+cu130", "pydantic[email]=={version}"],
)
def test_lock_lines_that_do_hold_here(root: Path, line: str) -> None:
    write_lock(root, line.format(version=packages.installed("pydantic")))

    assert check_named(check_environment(make_params(), root), "locked packages").passed


def test_lock_file_that_is_missing_is_noted(root: Path) -> None:
    (root / "requirements" / "lock.txt").unlink()

    assert "not found" in check_named(check_environment(make_params(), root), "locked packages").found


@pytest.mark.parametrize(
    ("dependency", "found"), [("pydantic>=99", "needs >=99"), ("no-such-package", "no-such-package missing")]
)
def test_unmet_dependency_is_an_error(root: Path, dependency: str, found: str) -> None:
    (root / "pyproject.toml").write_text(f'[project]\nname = "zk0"\ndependencies = ["{dependency}"]\n')

    report = check_environment(make_params(), root)

    assert found in check_named(report, "packages").found
    assert not report.passed


def test_what_is_asked_for_goes_by_role(tmp_path: Path) -> None:
    """An owner's own pyproject.toml beside the params is not zk0's."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "kitchen"\ndependencies = ["no-such-package"]\n')

    bare, site, everything = ({one.name for one in packages.asked(extras)} for extras in ((), ("site",), ("all",)))

    assert bare < site < everything and "no-such-package" not in everything | {"zk0"}
    assert "torch" in site - bare and not site & {"prefect", "dvc", "mlflow", "mujoco", "matplotlib", "plotly"}
    assert {"prefect", "dvc", "mlflow", "mujoco", "matplotlib", "plotly"} <= everything
    assert {one.name for one in packages.asked(["site"], tmp_path)} == site


@pytest.mark.parametrize(
    ("source", "pipeline", "roles"),
    [
        ("local:a", False, "zk0[site]"),
        ("sim:push-red-cube-left", False, "zk0[site,sim]"),
        ("sim:push-red-cube-left", True, "zk0[server,sim]"),
    ],
)
def test_a_run_asks_for_the_roles_that_it_needs(tmp_path: Path, source: str, pipeline: bool, roles: str) -> None:
    if pipeline:
        (tmp_path / "dvc.yaml").touch()

    report = check_environment(make_params(data={"sites": {"a": source}}), tmp_path)

    assert check_named(report, "packages").expected == f"what {roles} asks for"


@pytest.mark.parametrize(
    ("system", "role", "severity"),
    [("linux", "server", None), ("darwin", "site", None), ("darwin", "server", "warning"), ("sunos5", "site", "error")],
)
def test_a_system_serves_roles(
    monkeypatch: pytest.MonkeyPatch, system: str, role: packages.Extra, severity: str | None
) -> None:
    monkeypatch.setattr(sys, "platform", system)

    check = packages.check_system(role)

    assert check.passed == (severity is None) and severity in (None, check.severity)


def test_what_every_command_imports_is_brought_by_an_extra() -> None:
    """What is missing can be told with the extra that brings it, whichever third-party module it is."""
    code = [path for path in sorted((ROOT / "src/zk0").rglob("*.py")) if "template" not in path.parts]
    nodes = [node for path in code for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    strange = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"zk0"}

    told = {name: packages.missing(ModuleNotFoundError(name=name)) for name in strange}

    core = {"filelock", "httpx", "packaging", "psutil", "pydantic", "pydantic_core", "rich", "typer", "xxhash", "yaml"}
    assert {name for name, text in told.items() if text is None} - core == set()
    assert packages.missing(ModuleNotFoundError(name="nonesuch")) is None


def test_this_projects_own_files_are_understood() -> None:
    check = packages.check_locked_packages(ROOT)

    assert check.found.startswith("all ") or "lock: " in check.found
    assert len(packages._PINNED.findall((ROOT / "requirements" / "lock.txt").read_text())) > 200


def test_disk_too_small_for_the_recordings(root: Path) -> None:
    report = check_environment(make_params(data={"episodes": 10**10}), root)

    check = check_named(report, "disk")
    assert not check.passed and check.severity == "error" and not report.passed


def test_memory_that_could_never_be_enough_is_an_error(root: Path) -> None:
    huge = {"sites": {"a": "local:a"}, "decoded_limit_bytes": 10**16}

    check = check_named(check_environment(make_params(data=huge), root), "memory")

    assert not check.passed and check.severity == "error"


def test_memory_that_may_be_freed_is_a_warning(root: Path) -> None:
    huge = make_params(data={"sites": {"a": "local:a"}, "decoded_limit_bytes": 10**16})

    check = needs.check_memory(huge, root, total=10**18)

    assert not check.passed and check.severity == "warning"


def test_needs_grow_with_sites_episodes_and_the_policy(root: Path) -> None:
    def needed(params: Params) -> tuple[int, int]:
        found = needs.memory_need(params, root, 0), needs.disk_need(params, root, 0)
        return found[0].needed_bytes, found[1].needed_bytes

    memory, disk = needed(make_params())
    two = {"sites": {"a": "sim:push-red-cube-left", "b": "sim:push-green-ball-right"}}

    assert needed(make_params(data=two))[0] > memory
    assert needed(make_params(data={"episodes": 300}))[1] > disk
    assert needed(make_params(policy={"base": "random:full"})) > (memory, disk)
    (root / "base").mkdir()
    (root / "base" / "model.safetensors").write_bytes(bytes(1000))
    assert needs.policy_bytes(make_params(), root, "base") == 1000
    assert needs.policy_bytes(make_params(), root, "random:other") == 0


def test_more_threads_than_cores_is_noted(root: Path) -> None:
    report = check_environment(make_params().model_copy(update={"threads": 10_000}), root)

    check = check_named(report, "threads")
    assert not check.passed and check.severity == "warning"


def test_missing_gpu_is_an_error_only_where_one_is_wanted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(root))  # no nvidia-smi

    for device, fine in (("cpu", True), ("auto", True), ("cuda", False)):
        check = check_named(check_environment(make_params(policy={"device": device}), root), "device")
        assert check.passed == fine


def test_gpus_are_read_from_the_drivers_tool(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = root / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 570.86.10'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(root))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    assert machine()["gpus"] == [{"name": "NVIDIA H200", "memory_bytes": 143771 << 20, "driver": "570.86.10"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine()["gpus"] == []


def test_broken_gpu_tool_means_no_gpu(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = root / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(root))

    assert machine()["gpus"] == []


def test_graphics_are_needed_for_simulated_sources_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "no-such-backend")

    check = check_named(check_environment(make_params(), root), "graphics")
    local = check_environment(make_params(data={"sites": {"a": "local:a"}}), root)
    elsewhere = check_environment(make_params(), root, data=False)  # a server reads no recordings, whatever params name

    assert not check.passed and "no-such-backend" in check.found
    assert "graphics" not in [c.name for c in (*local.checks, *elsewhere.checks)]
    assert "sim" not in check_named(elsewhere, "packages").expected


def test_probe_tells_why_it_failed() -> None:
    assert surroundings._probe("raise SystemExit('no devices')") == (False, "no devices")
    assert surroundings._probe("print('fine')") == (True, "fine")
    # A driver that takes its process down does not take this one.
    assert surroundings._probe("import os; os.abort()")[0] is False


def test_hub_is_checked_where_it_is_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(root / "none"))
    hub = make_params(data={"sites": {"a": "hub:owner/name@v3.0"}})

    access, token = surroundings.check_hub(hub)

    assert surroundings.check_hub(make_params()) == []
    assert not access.passed and "HF_HUB_OFFLINE" in access.found
    assert not token.passed and token.severity == "warning"


def test_the_hub_is_asked(serve: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_params(data={"sites": {"a": "hub:owner/name@v3.0"}})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{serve(b'')}")
    answers, _ = surroundings.check_hub(hub)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    silent, _ = surroundings.check_hub(hub)

    assert answers.passed
    assert not silent.passed and silent.severity == "warning" and "the Hub cannot be reached" in silent.found


def test_a_token_is_seen_but_not_shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    report = check_environment(make_params(data={"sites": {"a": "hub:owner/name"}}), root)

    assert check_named(report, "hub token").passed
    assert "hf_secret" not in str(report)


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], int]]:
    """Start a local HTTP server that answers every request with some bytes; gives its port."""
    servers = []

    def start(body: bytes) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("body", "fine"), [(b"true", True), (b"<html>something else</html>", False)])
def test_port_may_be_taken_by_its_own_service(
    serve: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch, body: bytes, fine: bool
) -> None:
    monkeypatch.setitem(surroundings.SERVICES, "Prefect", (serve(body), "/api/health", b"true"))

    check = surroundings.check_port("Prefect")

    assert check.passed == fine and check.severity == "warning"


def test_versions_are_those_installed() -> None:
    found = versions()

    assert found["numpy"] == packages.installed("numpy")
    assert set(found) <= set(packages.PACKAGES)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from pathlib import Path; from zk0.params import load_params; from zk0.pipeline import validate;"
        "from zk0.environment import check_environment; check_environment(load_params(), Path());"
        "print([m for m in ('torch', 'lerobot', 'mlflow', 'mujoco', 'prefect', 'huggingface_hub') if m in sys.modules])"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)

    assert done.stdout.strip() == "[]", done.stderr


def test_validate_writes_report_and_lock(root: Path) -> None:
    validate.run(root, make_params())

    report = read_json(root / "results" / "environment.json")
    lock = read_json(root / "sources.lock.json")
    assert report["passed"] and "sources" in [check["name"] for check in report["checks"] if check["passed"]]
    assert set(lock["sources"]) == {"cube"} and lock["policy"]["source"] == "random:nano"


def test_validate_leaves_an_equal_lock_untouched(root: Path) -> None:
    validate.run(root, make_params())
    before = (root / "sources.lock.json").stat()
    validate.run(root, make_params())
    same = (root / "sources.lock.json").stat()
    validate.run(root, make_params(data={"episodes": 31}))

    assert (same.st_ino, same.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (root / "sources.lock.json").stat().st_ino != before.st_ino


def test_a_study_that_the_report_would_show_is_noted_for_dvc(root: Path) -> None:
    (root / "dvc.yaml").write_text("stages: {}")
    noted = []
    for content in (None, "{}", '{"arms": []}'):
        if content:
            write_text(root / COMPARISON, content)
        validate.run(root, make_params())
        noted.append(read_json(root / "code.lock.json")["study"])

    assert noted[0] == "none" and len(set(noted)) == 3


def test_other_params_are_checked_and_nothing_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the project's own params resolve to belongs to its run."""
    for name, content in (("params.yaml", make_params()), ("other.yaml", make_params(data={"episodes": 31}))):
        (root / name).write_text(yaml.safe_dump(content.model_dump(mode="json")))
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["zk0", "validate", "--params", "./params.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    kept = {path: path.read_bytes() for path in root.rglob("*.json")}
    assert ended.value.code == 0 and root / "sources.lock.json" in kept

    monkeypatch.setattr(sys, "argv", ["zk0", "validate", "--params", "other.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 0
    assert {path: path.read_bytes() for path in root.rglob("*.json")} == kept
    assert "nothing was written" in capsys.readouterr().out


def test_validate_refuses_with_advice_and_keeps_the_old_lock(root: Path) -> None:
    validate.run(root, make_params())
    before = (root / "sources.lock.json").read_text()

    with pytest.raises(StageError) as error:
        validate.run(root, make_params(data={"sites": {"cube": "sim:push-red-cube-lef"}}, policy={"base": "nowhere"}))

    assert "did you mean 'push-red-cube-left'?" in str(error.value)
    assert "policy.base: there is no folder" in str(error.value)
    assert (root / "sources.lock.json").read_text() == before
    assert not read_json(root / "results" / "environment.json")["passed"]
