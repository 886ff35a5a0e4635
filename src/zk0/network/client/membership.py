"""A membership's folder: laid out, and opened again."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zk0.errors import StageError
from zk0.files import read_mapping, removed_unless_begun, write_json
from zk0.network.security.invitation import Invitation
from zk0.network.security.keys import NodeKey
from zk0.params import PARAMS_FILE, Params, load_params, parse_params
from zk0.private_files import keep_from_git
from zk0.services.process import Services
from zk0.sources import Source
from zk0.words import check_site_name, nearest_hint
from zk0.workspaces.defaults import DEFAULT_BASE, Request, base_here, data_content, default_device, default_threads
from zk0.workspaces.folder import lay_out, write_params

MEMBERSHIPS = Path("memberships")
EVENTS = Path("results/site/events.jsonl")  # what the trainer did, one line each, in the membership's folder

_INVITATION, _OWNER = "invitation.json", "membership.json"
_HEADER = """\
# A membership of `zk0 client join`: what this site says of itself. How it trains, the server says with every message.
# Every setting is explained in the project's params.yaml; what is not here is as there by default.
# Made by the options of `zk0 client join`, and anew when it joins again. Threads, device and processes can be changed
# here: `zk0 client stop`, then `zk0 client start`.
"""
# Of the project's params, where there are any: what decides how its data is recorded, split and read.
_OF_PROJECT = ("held_out", "episodes", "noise", "decoded_limit_bytes")


@dataclass(frozen=True)
class Joining:
    """What an owner asks for when joining.

    Attributes:
        invitation: The operator's file.
        request: The data, and what of it, of the starting policy and of the device is to be as asked.
        keys: Folder of the site's key pair.
        name: The membership's; the site's own by default.
        authority: The authority's fingerprint as the operator told it by another way; None where it is not compared.
        threads: CPU threads; None takes the project's, or one for each core.
        demands: What the owner demands of privacy, by setting of ``privacy`` in params: ``{"clip_norm": 0.5}``.
    """

    invitation: Path
    request: Request
    keys: Path = Path("site-keys")
    name: str | None = None
    authority: str | None = None
    threads: int | None = None
    demands: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Membership:
    """A site's part in a federation.

    Attributes:
        root: The project's root, whose feature cache it shares.
        name: Its own.
        invitation: What it joined with.
        keys: Folder of the site's key pair.
        params: Its ``params.yaml``.
        demands: See :class:`Joining`.
        left: When the owner left; None while it is a member.
        fresh: Whether it was laid out just now.
    """

    root: Path
    name: str
    invitation: Invitation
    keys: Path
    params: Params
    demands: dict[str, float]
    left: str | None = None
    fresh: bool = False

    @property
    def folder(self) -> Path:
        """Where everything of it is."""
        return self.root / MEMBERSHIPS / self.name

    @property
    def services(self) -> Services:
        """Its processes in the background."""
        return Services(self.folder / ".run")

    @property
    def key(self) -> NodeKey:
        """The site's key pair.

        Raises:
            StageError: It is missing, or open to others.
        """
        return NodeKey.open(self.keys)

    @property
    def node_demands(self) -> dict[str, float]:
        """The owner's demands, as a node's config names them."""
        return {f"privacy-{name.replace('_', '-')}": value for name, value in self.demands.items()}

    def removed_if_refused(self) -> AbstractContextManager[None]:
        """Within the block, whatever ends a first joining leaves nothing behind."""
        if not self.fresh:
            return nullcontext()
        return removed_unless_begun(self.folder, first=lambda: self.services.stop(self.services.known()))

    def leave(self) -> Membership:
        """The same, left; its folder stays."""
        gone = replace(self, left=datetime.now(UTC).isoformat(timespec="seconds"))
        gone.write()
        return gone

    def write(self) -> None:
        """Write what is not in params."""
        self.invitation.write(self.folder / _INVITATION)
        write_json(self.folder / _OWNER, {"keys": str(self.keys), "demands": self.demands, "left": self.left})


def open_membership(root: Path, joining: Joining) -> Membership:
    """Lay out a membership, or write anew what is asked of one that is there; its state stays.

    Raises:
        StageError: The invitation, or the key, is not this site's; a membership of that name is another's, or runs.
        ParamsError: The request breaks a rule of params.
        ValueError: The data or the starting policy is of no known form.
    """
    invitation = Invitation.read(joining.invitation)
    if not (joining.keys / "site.key").exists():
        raise StageError(
            f"there is no key pair in {joining.keys}; `zk0 client keys` makes one, and the operator admits its "
            "public half. Where it is elsewhere, --keys says so"
        )
    invitation.check(NodeKey.open(joining.keys), joining.authority)
    name = check_site_name(joining.name or invitation.site)
    content = _content(root, joining.request, invitation.site, joining.threads)
    params = parse_params(content, "zk0 client join")
    folder = root / MEMBERSHIPS / name
    fresh = not (folder / _OWNER).exists()
    made = Membership(root, name, invitation, joining.keys.resolve(), params, dict(joining.demands), fresh=fresh)
    if fresh:
        lay_out(root, folder, content, _HEADER)
    else:
        _check_same(_read(root, name), made)
        write_params(folder, content, _HEADER)
    keep_from_git(folder)
    made.write()
    return made


def memberships(root: Path) -> list[Membership]:
    """All of this project, by name."""
    return [_read(root, path.parent.name) for path in sorted((root / MEMBERSHIPS).glob(f"*/{_OWNER}"))]


def find_membership(root: Path, name: str | None = None) -> Membership:
    """The membership of that name, or the only one.

    Raises:
        StageError: There is none, or there are several and none is named.
    """
    known = {found.name: found for found in memberships(root)}
    if not known:
        raise StageError("this site takes part in no federation; `zk0 client join INVITATION --data local:PATH` joins")
    if name is None:
        if len(known) > 1:
            raise StageError(f"there are several memberships here, {', '.join(known)}; name one")
        return next(iter(known.values()))
    if name not in known:
        raise StageError(f"there is no membership '{name}'{nearest_hint(name, known)}")
    return known[name]


def owner_demands(folder: Path) -> dict[str, float]:
    """What the owner of a folder's membership demands, as a node's config names it; nothing where it is none."""
    return _read(folder.parents[1], folder.name).node_demands if (folder / _OWNER).exists() else {}


def _read(root: Path, name: str) -> Membership:
    folder = root / MEMBERSHIPS / name
    owner = read_mapping(folder / _OWNER, "keys", "demands", "left")
    invitation = Invitation.read(folder / _INVITATION)
    params = load_params(folder / PARAMS_FILE)
    return Membership(root, name, invitation, Path(owner["keys"]), params, owner["demands"], owner["left"])


def _check_same(present: Membership, asked: Membership) -> None:
    """Another federation's state, or another site's, is not to be mixed with this one's."""
    mine, other = (
        (one.invitation.federation, one.invitation.authority_fingerprint, one.invitation.site, one.invitation.partition)
        for one in (present, asked)
    )
    if mine != other:
        raise StageError(
            f"{MEMBERSHIPS / present.name} is of site '{mine[2]}' in the federation '{mine[0]}'; --name ANOTHER keeps "
            "this one beside it"
        )
    if running := present.services.known():
        raise StageError(
            f"site '{mine[2]}' takes part already ({', '.join(running)} runs); `zk0 client stop` first, to join anew"
        )


def _content(root: Path, request: Request, site: str, threads: int | None) -> dict[str, Any]:
    """The membership's params.yaml."""
    if request.data is None:
        raise StageError("--data says what to train on: local:PATH, hub:OWNER/NAME@REVISION or sim:TASK")
    project = load_params(root / PARAMS_FILE) if (root / PARAMS_FILE).exists() else None
    base = request.base or (project.policy.base if project else DEFAULT_BASE)
    data = data_content(root, request, Source.of_owner(request.data), site)
    if project:
        data |= {name: getattr(project.data, name) for name in _OF_PROJECT}
    return {
        "seed": project.seed if project else 1,
        "threads": threads or (project.threads if project else default_threads()),
        "policy": {"base": base_here(root, base), "device": request.device or default_device()},
        "data": data,
        **({"features": project.features.model_dump()} if project else {}),
    }
