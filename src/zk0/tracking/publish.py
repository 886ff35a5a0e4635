"""A model version for others: its card, and pushing both to the Hugging Face Hub, when a person asks for it only.

The card is what a person who finds a checkpoint must know of its data, training, results and limits.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from pathlib import Path

import jinja2
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from zk0.checkpoints import read_checkpoint
from zk0.evaluation.scores import UNSEEN
from zk0.files import read_json, replaced_folder, write_text
from zk0.records.arm_command import rollout_command
from zk0.records.files import read
from zk0.records.paths import RUN
from zk0.records.results import TaskScore
from zk0.records.run import Run
from zk0.tracking import TrackingError, metric_names
from zk0.tracking.registry import PROMOTION_RECORD, find_version, kept_file, read_evaluation, version_checkpoint
from zk0.tracking.store import opened
from zk0.words import in_markdown

TEMPLATES = Path(__file__).with_name("templates")
NAME = "README.md"
# A data set of the Hub, where a source names one: the card's head is YAML, and takes nothing else.
_HUB = re.compile(r"hub:([\w.-]+/[\w.-]+)(@.*)?")
_TARGET = re.compile(r"hub:(?P<repository>[\w.-]+/[\w.-]+)|local:(?P<folder>.+)")
_TRAINING = {
    "training.local_steps": "local steps a round",
    "training.batch": "batch",
    "training.learning_rate": "learning rate",
    "federation.proximal_mu": "proximal term",
    "federation.uplink": "updates travel as",
    "federation.downlink": "models travel as",
    "policy.lora_rank": "adapters' rank (0 = all of the expert)",
    "seed": "seed",
}


def render_card(client: MlflowClient, root: Path, version: ModelVersion, place: str, published: bool = False) -> str:
    """The card of a version, in Markdown with the Hub's front matter.

    Args:
        client: Of the project's store.
        root: The project's root.
        version: Which.
        place: Where a reader finds the checkpoint: a repository, or a folder.
        published: Whether that is a repository of the Hub.

    Raises:
        TrackingError: The run's files are gone.
    """
    file, decided = (kept_file(client, root, version, name) for name in (RUN, PROMOTION_RECORD))
    if not file.is_file():
        raise TrackingError(f"the files of '{version.name}', version {version.version}, lack {RUN.name}")
    run, evaluation = read(root, Run, file), read_evaluation(client, root, version, needed=False)
    params = metric_names.flatten(run.params)
    tasks = evaluation.tasks if evaluation else {}
    base = run.base.source
    hub = [named[1] for site in run.sites.values() if (named := _HUB.fullmatch(site.source))]
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            model=version.name,
            version=version.version,
            round=version.tags[metric_names.ROUND],
            digest=version.tags[metric_names.DIGEST],
            place=place,
            run=run,
            params=params,
            training=[(name, what) for name, what in _TRAINING.items() if name in params],
            evaluation=evaluation,
            unseen={name: task for name, task in tasks.items() if task.role == UNSEEN and task.digest},
            rollouts=max((task.trained.rollouts for task in tasks.values()), default=0),
            promotion=read_json(decided) if decided.is_file() else None,
            # A model that failed its check gets no command: who reads a card follows it.
            command=rollout_command(run, evaluation) if evaluation and evaluation.safety.trained.passed else None,
            enter=f"hf download {place} --local-dir arm && cd arm" if published else f"cd {shlex.quote(place)}",
            lerobot=run.versions.get("lerobot"),
            base_model=base.removeprefix("hub:").partition("@")[0] if base.startswith("hub:") else None,
            hub_datasets=sorted(set(hub)),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # Markdown: see in_markdown
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["rate"] = lambda value: "-" if value is None else f"{value:.0%}"
    environment.filters["degrees"] = lambda value: "-" if value is None else f"{value:.2f}"
    environment.filters["interval"] = _interval
    environment.filters["cell"] = in_markdown
    return environment


def _interval(judged: TaskScore) -> str:
    low, high = judged.success_low, judged.success_high
    return "-" if low is None or high is None else f"{low:.0%} to {high:.0%}"


def publish_version(
    root: Path, model_name: str, version: int, to: str, private: bool = False, endpoint: str | None = None
) -> str:
    """Push a version's checkpoint and its card.

    Args:
        root: The project's root.
        model_name: The registered model.
        version: Which of its versions.
        to: ``hub:OWNER/NAME``, made if there is none, or ``local:FOLDER``, which must not exist yet.
        private: Make the repository a private one.
        endpoint: The Hub's address; None is the one that the environment names.

    Returns:
        Where it is now.

    Raises:
        TrackingError: No such version, its files are gone, the target is malformed or taken, there is
            no access, or the Hub cannot be reached.
        CheckpointError: What would be pushed is more than a SmolVLA's data.
    """
    target = _TARGET.fullmatch(to)
    if target is None:
        raise TrackingError(f"'{to}' is no place to publish to: expected hub:OWNER/NAME or local:FOLDER")
    root = root.resolve()
    with opened(root) as client:
        found = find_version(client, model_name, version)
        checkpoint = version_checkpoint(client, root, found)
        card = render_card(client, root, found, target["repository"] or target["folder"], bool(target["repository"]))
    if target["folder"]:
        folder = root / Path(target["folder"]).expanduser()
        if folder.exists():
            raise TrackingError(f"{folder} is there already; name a folder that is not")
        with replaced_folder(folder) as fresh:
            _fill(fresh, checkpoint, card)
        return str(folder)
    with tempfile.TemporaryDirectory() as temporary:
        _fill(Path(temporary), checkpoint, card)
        message = f"{model_name}, version {version}"
        return _push(Path(temporary), str(target["repository"]), message, private, endpoint)


def _fill(folder: Path, checkpoint: Path, card: str) -> None:
    read_checkpoint(checkpoint)  # copying follows links
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    write_text(folder / NAME, card)


def _push(folder: Path, repository: str, message: str, private: bool, endpoint: str | None) -> str:
    import httpx  # noqa: PLC0415 - slow, and of use here alone
    from huggingface_hub import HfApi  # noqa: PLC0415 - as above
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 - as above

    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise TrackingError(
                f"the Hub does not let you write to {repository} ({status}); `hf auth login` with a token that may"
            ) from error
        raise TrackingError(f"the Hub refused {repository} ({status}): {_first_line(error)}") from error
    except (httpx.HTTPError, OSError) as error:
        raise TrackingError(
            f"the Hub cannot be reached ({type(error).__name__}: {_first_line(error)}); nothing was published. "
            "Connect, or write a folder with --to local:FOLDER"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
