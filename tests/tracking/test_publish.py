"""The model card, and publishing: over HTTP to a stand-in for the Hub, by the Hub's own client."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_commands import documented, typed
from huggingface_hub import constants

from zk0.digests import digest_folder
from zk0.params import PromotionParams
from zk0.policy.checkpoint import load_checkpoint
from zk0.records.arm_command import rollout_command
from zk0.records.results import Evaluation
from zk0.records.run import Run
from zk0.tracking import TrackingError
from zk0.tracking.project import track
from zk0.tracking.publish import publish_version

NAME = "zk0-smolvla"


class Hub:
    """Repositories by name, each a mapping of path to content, and what to answer instead."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []
        self.refuse: int | None = None
        self.address = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """What the Hub answers to a POST, as far as publishing asks."""
        if self.refuse:
            return self.refuse, {"error": "not for you"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.repositories:
                return 409, {"error": "there already", "url": f"{self.address}/{name}"}
            self.repositories[name], self.private[name] = {}, asked.get("visibility") == "private"
            return 200, {"url": f"{self.address}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        _, _, _, owner, name, what, *_ = path.split("?")[0].split("/")
        repository = self.repositories[f"{owner}/{name}"]
        if what == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.messages.append(line["value"]["summary"])
            elif line["key"] == "file":
                repository[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return 200, {"commitUrl": f"{self.address}/{owner}/{name}/commit/abc", "commitOid": "abc", "success": True}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Hub, str]]:
    """A stand-in on loopback, and its address."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            self._send(*state.answer(self.path, body))

        def do_GET(self) -> None:
            self._send(404, {"error": "nothing"})

        def _send(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("HF_TOKEN", "hf_test")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    yield state, state.address
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def judged(tracked: Path, files: Any, spread: Callable[..., list[bool]]) -> Path:
    """Version 1, evaluated; an instruction of it would break a table."""
    tasks = {task: (spread(0.1), spread(0.5)) for task in ("red-cube", "purple-cylinder")}
    content = files.evaluated(tracked, tasks, safe=False)
    content["max_relative_target"] = {"shoulder_pan": 9.0}
    content["tasks"]["red-cube"]["sentence"] = "touch | the <b>red</b>\ncube"
    (tracked / "results/evaluation.json").write_text(json.dumps(content))
    track(tracked, "zk0", NAME, promotion=PromotionParams())
    return tracked


def test_a_version_is_pushed_with_its_card(judged: Path, hub: tuple[Hub, str], monkeypatch: pytest.MonkeyPatch) -> None:
    state, address = hub

    where = publish_version(judged, NAME, 1, "hub:someone/arm", private=True, endpoint=address)

    assert where == f"{address}/someone/arm/commit/abc"
    checkpoint = judged / "checkpoints/best"
    kept = {
        path.relative_to(checkpoint).as_posix(): path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()
    }
    pushed = state.repositories["someone/arm"]
    card = pushed.pop("README.md").decode()
    assert pushed == kept
    assert 'from_pretrained("someone/arm")' in card
    assert state.private == {"someone/arm": True} and state.messages == ["zk0-smolvla, version 1"]
    # To a repository that is there it is pushed again, as documented.
    monkeypatch.setattr(constants, "ENDPOINT", address)
    (judged / "params.yaml").write_text('policy: {base: x}\ndata: {sites: {red-cube: "sim:push-red-cube-left"}}\n')
    line = documented("models.md", "zk0 publish 3").replace(" 3 ", " 1 ").replace("ME/ARM", "someone/arm")
    assert f"published: {address}/someone/arm/commit/abc" in typed(line)
    assert len(state.messages) == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, r"does not let you write to someone/arm \(401\); `hf auth login`"), (400, r"refused someone/arm \(400\)")],
)
def test_the_hubs_refusal_is_told(judged: Path, hub: tuple[Hub, str], status: int, said: str) -> None:
    state, address = hub
    state.refuse = status

    with pytest.raises(TrackingError, match=said):
        publish_version(judged, NAME, 1, "hub:someone/arm", endpoint=address)


def test_without_a_network_nothing_is_published(judged: Path, hub: tuple[Hub, str], unused_port: int) -> None:
    with pytest.raises(TrackingError, match=r"the Hub cannot be reached \(ConnectError.*--to local:FOLDER"):
        publish_version(judged, NAME, 1, "hub:someone/arm", endpoint=f"http://127.0.0.1:{unused_port}")


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_a_folder_holds_checkpoint_and_card_and_loads(judged: Path, tmp_path: Path) -> None:
    where = publish_version(judged, NAME, 1, f"local:{tmp_path}/arm")

    folder = tmp_path / "arm"
    assert where == str(folder)
    assert load_checkpoint(folder).cameras == ("observation.images.top", "observation.images.wrist")
    (folder / "README.md").unlink()
    assert digest_folder(folder) == digest_folder(judged / "checkpoints/best")
    with pytest.raises(TrackingError, match="is there already; name a folder that is not"):
        publish_version(judged, NAME, 1, f"local:{folder}")


@pytest.mark.parametrize("to", ["someone/arm", "hub:arm", "hub:a/b/c", "local:", "s3:bucket"])
def test_a_target_of_another_form_is_refused(judged: Path, to: str) -> None:
    with pytest.raises(TrackingError, match="expected hub:OWNER/NAME or local:FOLDER"):
        publish_version(judged, NAME, 1, to)


def test_a_version_that_is_not_there_is_refused(judged: Path) -> None:
    with pytest.raises(TrackingError, match="has no version 7"):
        publish_version(judged, NAME, 7, "local:out")


def test_the_card_tells_data_training_results_and_limits(judged: Path) -> None:
    (file,) = [path for path in (judged / "mlruns").rglob("README.md") if "checkpoint" not in path.parts]
    card = file.read_text()

    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "lerobot"
    assert "base_model" not in yaml.safe_load(front)
    lines = body.splitlines()
    assert "**It failed the safety check. Do not run it on a real arm.**" in lines
    assert "| red-cube | training | touch the red cube | `sim:touch-red-cube` | 4 | 1 | `red-cube-dig` |" in lines
    assert (
        "| purple-cylinder | evaluation only | touch the purple cylinder | `sim:touch-purple-cylinder` | - | 3 "
        "| `purple-cylin` |"
    ) in lines
    assert "| touch \\| the &lt;b>red&lt;/b> cube | yes | 10% | 50% | 30% to 95% | 8.83 | 3.00 |" in lines
    assert "| strategy | fedavg, 3 rounds |" in lines and "| differential privacy | none |" in lines
    assert "| parameters | 2,000,000, of which 600,000 trained |" in lines
    assert "| joint speed, rollouts (times) | 3 | 5 (gripper) | no |" in lines
    assert "Beside the base policy the gate to the champion's place said: refused (the safety check failed" in body
    assert "rollouts a task" in body and "50 rollouts" in body
    assert "It failed the safety check, so there is no command for an arm here." in lines
    assert "lerobot-rollout" not in body
    assert "\n\n\n" not in body


def test_a_sound_models_card_has_the_command_for_an_arm(
    tracked: Path, files: Any, spread: Callable[..., list[bool]], hub: tuple[Hub, str]
) -> None:
    """Which test_card_on_an_arm.py types; of a repository, whoever types it has to fetch the folder first."""
    content = files.evaluated(tracked, {"red-cube": (spread(0.1), spread(0.5))})
    content["max_relative_target"] = {"shoulder_pan": 9.0}
    (tracked / "results/evaluation.json").write_text(json.dumps(content))
    version = track(tracked, "zk0", NAME, promotion=PromotionParams()).model_version
    publish_version(tracked, NAME, version, "hub:someone/arm", endpoint=hub[1])
    card = hub[0].repositories["someone/arm"]["README.md"].decode()
    run = Run.model_validate_json((tracked / "results/federation/run.json").read_text())

    command = rollout_command(run, Evaluation.model_validate(content))

    assert command is not None
    assert f"\nhf download someone/arm --local-dir arm && cd arm\n{command}\n```\n" in card
    assert "it was not tried\nwith motors and cameras." in card


def test_the_card_follows_what_is_known(tracked: Path, files: Any) -> None:
    (file,) = [path for path in (tracked / "mlruns").rglob("README.md") if "checkpoint" not in path.parts]
    assert "This version was not evaluated." in file.read_text()
    assert "No limits for its steps are known, so there is no command for an arm here." in file.read_text()
    run = json.loads((tracked / "results/federation/run.json").read_text())
    base = {"source": "hub:lerobot/smolvla_base@abc", "digest": "base-digest"}
    sites = {name: {**site, "source": "hub:someone/cubes@v1"} for name, site in run["sites"].items()}
    privacy = {"mode": "central", "unit": "site", "epsilon": 3.4567, "delta": 1e-3}
    files.run(tracked, base=base, sites=sites, ended="2026-03-01T10:01:30+00:00", privacy=privacy)

    version = track(tracked, "zk0", NAME).model_version

    publish_version(tracked, NAME, version, "local:published")
    card = (tracked / "published/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["base_model"], front["datasets"]) == ("lerobot/smolvla_base", ["someone/cubes"])
    assert "| differential privacy | epsilon 3.46 at delta 0.001 for each site |" in card
