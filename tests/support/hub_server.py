"""A server that answers as the Hub does for the folders it is given, and the Hub's cache laid out on the spot."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories that are served.

    Attributes:
        url: The server's.
        folders: ``datasets/owner/name`` or ``models/owner/name`` to a folder.
        asked: Paths that were asked for.
        broken: Endings of paths that are answered with an error, of a kind that the Hub's client does not try again.
    """

    url: str
    folders: dict[str, Path]
    asked: list[str] = field(default_factory=list)
    broken: tuple[str, ...] = ()


@contextmanager
def serve(folders: dict[str, Path]) -> Iterator[Hub]:
    """Serve folders as repositories whose branch ``main`` is at ``COMMIT``, until the block ends."""
    hub = Hub("", folders)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            hub.asked.append(path)
            status, headers, body = (410, {}, b"") if path.endswith(hub.broken or ("\0",)) else _reply(hub, path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _reply(hub: Hub, path: str) -> tuple[int, dict[str, str], bytes]:
    for name, folder in hub.folders.items():
        kind, _, repository = name.partition("/")
        page = repository if kind == "models" else name
        if path.startswith(f"{page}/resolve/"):
            revision, _, file = path.removeprefix(f"{page}/resolve/").partition("/")
            return _file(folder / file) if revision in ("main", COMMIT) else _missing("RevisionNotFound")
        if path.startswith(f"api/{name}/"):
            what, _, revision = path.removeprefix(f"api/{name}/").partition("/")
            if revision not in ("main", COMMIT):
                return _missing("RevisionNotFound")
            files = sorted(p for p in folder.rglob("*") if p.is_file())
            names = [p.relative_to(folder).as_posix() for p in files]
            if what == "tree":
                found = zip(names, files, strict=True)
                return _json([{"type": "file", "path": n, "size": p.stat().st_size, "oid": _etag(p)} for n, p in found])
            return _json({"id": repository, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]})
    return _missing("RepoNotFound")


def _file(path: Path) -> tuple[int, dict[str, str], bytes]:
    if not path.is_file():
        return _missing("EntryNotFound")
    return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(path)}"'}, path.read_bytes()


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _json(content: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _missing(code: str) -> tuple[int, dict[str, str], bytes]:
    return 404, {"X-Error-Code": code}, b""


def lay_out_cache(
    cache: Path, repository: str, kind: str, folder: Path, commit: str = COMMIT, ref: str = "main"
) -> Path:
    """A repository in the Hub's cache as an older client left it: blobs, links to them and a ref, no list of the tree.

    Returns:
        The snapshot's folder.
    """
    storage = cache / f"{kind}s--{repository.replace('/', '--')}"
    snapshot = storage / "snapshots" / commit
    for file in (p for p in folder.rglob("*") if p.is_file()):
        blob, link = storage / "blobs" / _etag(file), snapshot / file.relative_to(folder)
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        link.symlink_to(blob)
    (storage / "refs").mkdir(parents=True, exist_ok=True)
    (storage / "refs" / ref).write_text(commit)
    return snapshot
