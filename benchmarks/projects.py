"""Projects to measure in: real data, prepared by the project's own stages, kept below .cache/bench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xxhash
import yaml

from zk0.files import read_json, write_json, write_text
from zk0.params import Params, load_params, parse_params

CACHE = Path(".cache/bench")
DEMO = Path("params.yaml")


def demo_params(**changes: dict[str, Any]) -> Params:
    """The demo's params, as its profile has them, with some sections' settings changed.

    >>> demo_params(federation={"rounds": 2}).federation.rounds
    2
    """
    root = Path(__file__).parents[1]
    profile = root / "profiles" / "demo.yaml"
    content = yaml.safe_load((profile if profile.exists() else root / DEMO).read_text())
    for section, values in changes.items():
        content[section] = {**content.get(section, {}), **values}
    content["policy"]["base"] = absolute(content["policy"]["base"], root)
    return parse_params(content, "benchmark")


def absolute(base: str, root: Path) -> str:
    """A checkpoint folder of this project as seen from another one."""
    return base if ":" in base else str((root / base).resolve())


def camera_params(dataset: Path, sites: int = 1, **changes: dict[str, Any]) -> Params:
    """Params for the 450 M policy with random weights on two 480x640 cameras, dealt to some sites."""
    partition = {"scheme": "equal", "sites": sites} if sites > 1 else {"scheme": "none"}
    data = {
        "sites": {"cameras": f"local:{dataset.resolve()}"},
        "partition": partition,
        "conventions": {"cameras": "degrees"},
        "fps": 30,
        "held_out": 0.25,
        "decoded_limit_bytes": 0,
    }
    content: dict[str, Any] = {"policy": {"base": "random:full"}, "data": data}
    for section, values in changes.items():
        content[section] = {**content.get(section, {}), **values}
    return parse_params(content, "benchmark")


def prepared(name: str, params: Params) -> Path:
    """A project folder whose data is prepared; done once for each set of data.

    Args:
        name: Names the folder.
        params: Data, seed and starting policy.
    """
    from zk0.pipeline import prepare
    from zk0.sources_lock import resolve_sources

    data = params.model_dump(mode="json", include={"seed": True, "data": True, "policy": {"base"}})
    digest = xxhash.xxh3_64_hexdigest(yaml.safe_dump(data).encode())[:8]
    root = (CACHE / "projects" / f"{name}-{digest}").resolve()
    lock = resolve_sources(params, root)
    marker = root / "prepared.json"
    if not marker.exists() or read_json(marker) != lock:
        write_json(root / "sources.lock.json", lock)
        prepare.run(root, params)
        write_json(marker, lock)
    use_params(root, params)
    return root


def use_params(root: Path, params: Params) -> None:
    """Put params into a project."""
    write_text(root / "params.yaml", yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))


def params_of(root: str | Path) -> Params:
    """A project's params."""
    return load_params(Path(root) / "params.yaml")
