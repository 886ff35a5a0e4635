"""zk0 from a wheel, in an environment of what requirements/site.txt names: small, and a site joins from it."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from network_services import Federation
from tests_support import REPO

from zk0.files import read_json
from zk0.network.security.files import initialise
from zk0.network.security.invitation import admit_site
from zk0.network.server.control import register_sites

pytestmark = [pytest.mark.release, pytest.mark.timeout(3600)]

MOST_PACKAGES, MOST_BYTES = 150, 2.5e9
# torch's wheel for x86-64 does not run without them, and they weigh more than all the rest.
OF_CUDA = ("nvidia-", "triton", "cuda-")
UV = str(Path(sys.executable).with_name("uv"))
PINNED = re.compile(r"^([\w.-]+)(?:\[[^]]*])?==([^\s;]+)", re.MULTILINE)
NOT_FOR_A_SITE = ("prefect", "dvc", "mlflow", "mujoco", "so101_nexus", "matplotlib", "plotly", "flows", "tasks")


@dataclass(frozen=True)
class Site:
    """An environment of its own with zk0 in it, and an owner's project."""

    environment: Path
    project: Path

    def run(self, *words: str, ok: bool = True) -> str:
        """Run a program of the environment in the project: what it printed, or what it said as it refused."""
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        program = [str(self.environment / "bin" / words[0]), *words[1:]]
        done = subprocess.run(
            program, cwd=self.project, env=kept, capture_output=True, text=True, timeout=1800, check=False
        )
        assert (done.returncode == 0) == ok, f"{words}:\n{done.stdout}\n{done.stderr}"
        return done.stdout if ok else done.stderr

    def install(self, *words: str) -> None:
        """Install packages, or skip the tests that need them where they are not to be had."""
        python = str(self.environment / "bin/python")
        if why := refused(UV, "pip", "install", "--python", python, *words):
            pytest.skip(f"its packages are not to be had here: {why}")


def refused(*words: str, folder: Path = REPO) -> str:
    """Run a command: what it says where it refuses, and nothing where all is well."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)
    return "" if done.returncode == 0 else f"{words}: {done.stderr[-800:]}"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The wheel of this clone and what it brings by itself, and a project that it laid out."""
    folder = tmp_path_factory.mktemp("site")
    assert not refused(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    assert not refused(UV, "venv", "--python", sys.executable, str(folder / "env"))
    made = Site(folder / "env", folder / "arm")
    (wheel,) = folder.glob("*.whl")
    made.install(str(wheel))
    made.project.mkdir()
    made.run("zk0", "init", ".")
    return made


@pytest.fixture(scope="module")
def site(bare: Site) -> Site:
    """The same with a site's packages, as docs/join.md says."""
    bare.install("--no-deps", "-r", str(bare.project / "requirements/site.txt"))
    return bare


def test_alone_it_says_what_else_to_install(bare: Site) -> None:
    assert "federate" in bare.run("zk0", "--help") and "--noise" in bare.run("zk0", "client", "join", "--help")
    assert "so100-hub" in bare.run("zk0", "profile", "list")
    for words, extra in ((("demo",), "all"), (("client", "keys"), "site"), (("validate",), "site")):
        said = bare.run("zk0", *words, ok=False)
        assert f"zk0[{extra}]" in said and f"`pip install --no-deps -r requirements/{extra}.txt` installs it" in said
    (bare.project / "params.yaml").rename(bare.project / "kept.yaml")
    (bare.project / "params.yaml").write_text("thread: 1\n")
    assert "did you mean 'threads'" in bare.run("zk0", "validate", ok=False)
    (bare.project / "kept.yaml").rename(bare.project / "params.yaml")


def test_it_is_small(site: Site) -> None:
    (packages,) = site.environment.glob("lib/python*/site-packages")
    found = {one.name.lower(): one for one in importlib.metadata.distributions(path=[str(packages)])}

    weights = {
        name: sum((packages / file).stat().st_size for file in one.files or () if (packages / file).is_file())
        for name, one in found.items()
    }

    assert "zk0" in found and len(found) <= MOST_PACKAGES
    assert 1e9 < sum(weight for name, weight in weights.items() if not name.startswith(OF_CUDA)) <= MOST_BYTES


def test_what_a_site_does_without_is_not_there(site: Site) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {NOT_FOR_A_SITE} if find_spec(name)])"

    assert site.run("python", "-P", "-c", code) == "[]\n"


def test_commands_of_other_roles_say_so(site: Site) -> None:
    train = ("train", "--data", "local:cups")
    for command, extra in ((("demo",), "all"), (("up",), "server"), (("report",), "server"), (train, "server")):
        assert f"zk0[{extra}]" in site.run("zk0", *command, ok=False)


@pytest.mark.parametrize(("system", "most"), [("aarch64-manylinux_2_28", 140), ("aarch64-apple-darwin", 120)])
def test_its_lock_holds_elsewhere(tmp_path: Path, system: str, most: int) -> None:
    """As wheels, but for docopt, which is Python alone; where the registry can be asked."""
    known, found = REPO / "requirements/site.txt", tmp_path / "found.txt"
    words = ("pyproject.toml", "--extra", "site", "--constraints", str(known), "--python-version", "3.12", "-q")
    only = ("--only-binary", ":all:", "--no-binary", "docopt", "--no-annotate", "--no-header", "-o", str(found))
    if why := refused(UV, "pip", "compile", *words, "--python-platform", system, *only):
        assert "No solution found" not in why
        pytest.skip(f"the registry cannot be asked: {why}")

    pinned, locked = (set(PINNED.findall(path.read_text())) for path in (found, known))

    assert 100 < len(pinned) <= most and pinned <= locked


def test_another_torch_may_be_brought(tmp_path: Path) -> None:
    """What torch.txt names is what is left out, torch's own packages and no other."""
    names = (REPO / "requirements/torch.txt").read_text().split()
    assert not refused(UV, "venv", "--python", sys.executable, str(tmp_path / "env"))
    words = (UV, "pip", "install", "--dry-run", "--python", str(tmp_path / "env/bin/python"))
    done = subprocess.run(
        [*words, "--no-deps", "-r", "requirements/site.txt", "--excludes", "requirements/torch.txt"],
        cwd=REPO, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"the site's packages are not to be had here: {done.stderr[-500:]}")

    taken = {line.split()[1].partition("==")[0] for line in done.stderr.splitlines() if line.startswith(" + ")}

    assert "lerobot" in taken and "torch" in names and not taken & set(names)
    assert len(taken) + len(names) <= MOST_PACKAGES


def test_joining_fails_at_nothing_but_the_server(site: Site, recorded: Path, tmp_path: Path) -> None:
    places = initialise(tmp_path / "security", ["127.0.0.1"], "arms")
    site.run("zk0", "client", "keys", "--keys", "nobody")
    admitted = admit_site(places.folder, "nobody", site.project / "nobody/site.pub", "127.0.0.1:9")

    data = ("--data", f"local:{recorded}", "--keys", "nobody", "--threads", "1")
    said = site.run("zk0", "client", "join", str(admitted), *data, ok=False)

    assert said.startswith("error: the server at 127.0.0.1:9 does not answer") and said.count("\n") == 1
    assert not (site.project / "memberships").exists()


@pytest.fixture(scope="module")
def joined(site: Site, federation: Federation, recorded: Path) -> Iterator[str]:
    """What `zk0 client join` printed, of a site that an operator with everything installed has admitted."""
    shutil.copytree(recorded, site.project / "cups")
    site.run("zk0", "client", "keys")
    public = site.project / "site-keys/site.pub"
    admitted = admit_site(federation.places.folder, "barn", public, federation.gateway_address)
    with federation.control() as client:
        register_sites(federation.registry, client)
    try:
        yield site.run("zk0", "client", "join", str(admitted), "--data", "local:cups", "--threads", "1")
    finally:
        site.run("zk0", "client", "stop")


def test_it_joins(joined: str, site: Site) -> None:
    report = read_json(site.project / "memberships/barn/results/environment.json")
    checks = {one["name"]: one for one in report["checks"]}

    assert "site 'barn' is connected as node" in joined
    assert "connected as node" in site.run("zk0", "client", "status")
    assert checks["packages"]["passed"] and checks["packages"]["expected"] == "what zk0[site] asks for"
    assert checks["locked packages"]["passed"] and checks["system"]["passed"]
