"""Projects to measure in: real data, prepared by the project's own stages, kept below .cache/bench."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import xxhash
import yaml

from zk0.files import read_json, write_json, write_text
from zk0.params import Params, load_params, parse_params

ROOT = Path(__file__).parents[1]
CACHE = Path(".cache/bench")
CAMERAS_ID = "zk0/bench-cameras"


def demo_params(**changes: Mapping[str, object]) -> Params:
    """The demo's params, as its profile has them, with some sections' settings changed.

    >>> demo_params(federation={"rounds": 2}).federation.rounds
    2
    """
    content = yaml.safe_load((ROOT / "profiles" / "demo.yaml").read_text())
    base = content["policy"]["base"]  # a checkpoint folder of this project, as seen from another one
    content["policy"]["base"] = base if ":" in base else str((ROOT / base).resolve())
    return _parsed(content, changes)


def camera_params(dataset: Path, sites: int = 1, **changes: Mapping[str, object]) -> Params:
    """Params for the 450 M policy with random weights on two 480x640 cameras, dealt to some sites."""
    partition = {"scheme": "equal", "sites": sites} if sites > 1 else {"scheme": "none"}
    data: dict[str, object] = {
        "sites": {"cameras": f"local:{dataset.resolve()}"},
        "partition": partition,
        "conventions": {"cameras": "degrees"},
        "fps": 30,
        "held_out": 0.25,
        "decoded_limit_bytes": 0,
    }
    return _parsed({"policy": {"base": "random:full"}, "data": data}, changes)


def _parsed(content: dict[str, dict[str, object]], changes: Mapping[str, Mapping[str, object]]) -> Params:
    changed = {section: {**content.get(section, {}), **values} for section, values in changes.items()}
    return parse_params(content | changed, "benchmark")


def prepared(name: str, params: Params) -> Path:
    """A project folder whose data is prepared; done once for each set of data.

    Args:
        name: Names the folder.
        params: Data, seed and starting policy.
    """
    from zk0.pipeline import prepare  # noqa: PLC0415 - it loads torch
    from zk0.sources_lock import resolve_sources  # noqa: PLC0415 - likewise

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
    """The params of a project's folder."""
    return load_params(Path(root) / "params.yaml")
