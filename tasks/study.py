"""A study, arm by arm: the same pieces as `zk0 study` makes."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.commands import stream
from zk0.params import load_params
from zk0.study.results_store import STUDIES, StudyFolder
from zk0.study.studies import study_named


@task(name="plan study", cache_policy=NO_CACHE)
def plan_study(root: Path, name: str, quick: bool) -> list[str]:
    """The names of the study's arms, in order.

    Raises:
        ValueError: There is no such study, or the params do not allow it.
    """
    return [arm.name for arm in study_named(name, load_params(root / "params.yaml"), quick).arms]


# Not retried: complete pieces are kept, and the next run goes on from there.
@task(name="run arm", task_run_name="run arm {arm}", cache_policy=NO_CACHE)
def run_arm(root: Path, name: str, arm: str, quick: bool) -> None:
    """Train and judge one arm with every training seed, in a process of its own; what is there is not made again.

    Raises:
        StageError: It failed; ends with its last lines.
    """
    command = ["-m", "zk0", "study", name, "--only", arm, *(["--quick"] if quick else [])]
    stream(f"arm '{arm}' of study '{name}' failed; complete pieces are kept", command, root)


@task(name="show study", cache_policy=NO_CACHE)
def show_study(root: Path, name: str, quick: bool) -> str:
    """The arms' figures as an artifact."""
    from zk0.study.results import StudyResult
    from zk0.study.tables import arms_table, markdown

    folder = StudyFolder(root / STUDIES / (f"{name}-quick" if quick else name))
    table = markdown(*arms_table(StudyResult.read(folder)))
    create_markdown_artifact(key="study", markdown=table, description=f"Study {name}")
    return table


@task(name="render results", cache_policy=NO_CACHE)
def render_results(root: Path) -> None:
    """Write docs/RESULTS.md from the pieces of all studies."""
    from zk0.study.page import write_page

    write_page(root)
