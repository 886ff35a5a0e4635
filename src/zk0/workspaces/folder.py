"""A training's folder: laid out, opened again, removed when it was refused."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from zk0.errors import StageError
from zk0.files import removed_unless_begun, replaced_folder, write_text
from zk0.params import PARAMS_FILE, Params, load_params, parse_params
from zk0.sources import Source
from zk0.tracking.metric_names import flatten
from zk0.words import nearest_hint
from zk0.workspaces.defaults import Request, params_content

TRAININGS = Path("trainings")

_SHARED = (".cache", "constraints.md", "pyproject.toml", "requirements")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = """\
# A training of `zk0 train`, from the project's root: `zk0 train --name {name}` follows this file and goes on.
# Every setting is explained in the project's params.yaml; what is not here is as there by default.
"""


@dataclass(frozen=True)
class Training:
    """A training and its folder.

    Attributes:
        root: The project's root, whose MLflow store and feature cache it shares.
        name: Its name, which is also its one site's and its registered model's.
        params: Its ``params.yaml``.
        fresh: Whether it was laid out just now.
    """

    root: Path
    name: str
    params: Params
    fresh: bool

    @property
    def folder(self) -> Path:
        """Where everything of it is."""
        return self.root / TRAININGS / self.name

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        return f"zk0 train --name {self.name}"

    def removed_if_refused(self) -> AbstractContextManager[None]:
        """Within the block, whatever ends a new training before its first round leaves nothing behind."""
        return removed_unless_begun(self.folder) if self.fresh else nullcontext()


def open_training(root: Path, request: Request) -> Training:
    """Lay out a new training, or open the one that is there.

    Raises:
        StageError: There is none of that name to go on with, or one of other settings; says which.
        ParamsError: The request breaks a rule of params.
        ValueError: The data or the starting policy is of no known form.
    """
    if request.data is None:
        return _existing(root, request)
    source = Source.of_owner(request.data)
    own = Path(source.name).name if source.room is None else f"{source.name}-{source.room}"
    name = request.name or re.sub(r"[^A-Za-z0-9_-]+", "-", own).strip("-")
    if not _NAME.fullmatch(name):
        raise StageError(f"a training's name may hold letters, digits, '-' and '_' only, not '{name}' (--name)")
    content = params_content(root, request, source, name)
    params = parse_params(content, "zk0 train")
    folder = root / TRAININGS / name
    if (folder / PARAMS_FILE).exists():
        if changed := _differences(load_params(folder / PARAMS_FILE), params):
            raise StageError(
                f"{TRAININGS / name} is a training of other settings: {', '.join(changed)}. `zk0 train --name {name}` "
                "goes on with it as it is; --name ANOTHER starts a new one"
            )
        return Training(root, name, params, fresh=False)
    lay_out(root, folder, content, _HEADER.format(name=name))
    return Training(root, name, params, fresh=True)


def _existing(root: Path, request: Request) -> Training:
    known = sorted(path.parent.name for path in (root / TRAININGS).glob(f"*/{PARAMS_FILE}"))
    if request.name is None:
        there = f"; --name {known[0]} goes on with a training that is there" if known else ""
        raise StageError(f"--data says what to train on: local:PATH or hub:OWNER/NAME@REVISION{there}")
    if request.name not in known:
        hint = nearest_hint(request.name, known) if known else ""
        raise StageError(f"there is no training '{request.name}' to go on with{hint}; --data starts one")
    if given := [f.name for f in fields(request) if f.name != "name" and getattr(request, f.name)]:
        raise StageError(
            f"--{given[0].replace('_', '-')} is for a new training, with --data; '{request.name}' follows "
            f"{TRAININGS / request.name / PARAMS_FILE}: change it there"
        )
    return Training(root, request.name, load_params(root / TRAININGS / request.name / PARAMS_FILE), fresh=False)


def _differences(one: Params, other: Params) -> list[str]:
    """Settings in which two params differ, as ``data.fps is 10, asked for is 30``."""
    mine, asked = flatten(one.model_dump(mode="json")), flatten(other.model_dump(mode="json"))
    return [
        f"{name} is {mine.get(name)}, asked for is {asked.get(name)}"
        for name in sorted(mine | asked)
        if mine.get(name) != asked.get(name)
    ]


def lay_out(root: Path, folder: Path, content: dict[str, object], header: str) -> None:
    """Write an owner's folder whole: params, and links to what it shares with the project.

    Args:
        root: The project's root.
        folder: Which is made; one that is there is replaced.
        content: Of its params.yaml.
        header: Comments that stand above it.
    """
    (root / ".cache").mkdir(exist_ok=True)
    with replaced_folder(folder) as fresh:
        write_params(fresh, content, header)
        for shared in _SHARED:
            if (root / shared).exists():
                (fresh / shared).symlink_to((root / shared).resolve())


def write_params(folder: Path, content: dict[str, object], header: str) -> None:
    """Write a folder's params.yaml."""
    write_text(folder / PARAMS_FILE, header + yaml.safe_dump(content, sort_keys=False))
