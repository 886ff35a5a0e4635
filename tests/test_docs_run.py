"""Every command that README and docs show: the test that runs it, or why none can here.

What a test runs may have other ports, hosts and names, and smaller sizes, than a page shows; of a few it is the
function behind the command.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_commands import path_of, shown_commands, typed
from tests_support import REPO

PAGES = (REPO / "README.md", *sorted((REPO / "docs").glob("*.md")))

# Typed here in one folder, one after the other; a line that a person has to do in between stands among them.
SEQUENCES: dict[str, tuple[str, ...]] = {
    "keys and sites": (
        "zk0 security init --host robots.example.org",
        "zk0 security show",
        "zk0 client keys --keys site-keys --name kitchen",
        "cp site-keys/site.pub site.pub",
        "zk0 site admit kitchen site.pub --server robots.example.org:9443",
        "zk0 site list",
        'zk0 site revoke kitchen --why "laptop stolen"',
    ),
    "a project in a folder": ("zk0 init arms && cd arms",),
    "an owner's project": ("zk0 init arm && cd arm",),
    "engine": ("zk0 federate --engine inprocess",),
    "studies": ("zk0 study page",),
    "an episode cut out": (
        "lerobot-edit-dataset --repo_id cups --root cups --new_root cups-mended --operation.type delete_episodes "
        '--operation.episode_indices "[3]"',
    ),
}

# By what a test's id begins with. A command that ends in ... is one that begins so.
RUN_BY: dict[str, tuple[str, ...]] = {
    "network/test_walk_through.py::test_eight_commands_make_a_federation": (
        "zk0 profile use network",
        "zk0 profile use quality",
        "zk0 server start --init 127.0.0.1",
        "zk0 server start",
        "zk0 client keys --keys kitchen-keys --name kitchen",
        "zk0 client keys --keys lab-keys --name lab",
        "zk0 site admit kitchen kitchen-keys/site.pub ...",
        "zk0 client join security/invitations/kitchen.json ...",
        "zk0 client join security/invitations/lab.json ...",
        "zk0 server run",
    ),
    "network/test_walk_through.py::test_the_checklist_finds_what_is_open": ("zk0 server check",),
    "network/test_walk_through.py::test_an_operator_looks_stops_and_goes_on": (
        "zk0 server status",
        "zk0 server watch",
        "zk0 server halt",
        "zk0 server stop",
    ),
    "network/test_security_commands.py::test_sync_tells_the_superlink": ("zk0 site sync --superlink 127.0.0.1:8000",),
    "network/test_join.py::test_joining_connects": (
        "zk0 client keys --name kitchen",
        "zk0 client join kitchen.json --clip ...",
    ),
    "network/test_join.py::test_status_tells_it": (
        "zk0 client status",
        "zk0 client boot",
        "zk0 client boot --cron",
    ),
    "network/test_join.py::test_stop_start_leave_and_join_again": (
        "zk0 client join kitchen.json --data local:cups",
        "zk0 client join kitchen.json --data local:recordings",
        "zk0 client start",
        "zk0 client stop",
        "zk0 client leave",
    ),
    "network/test_boot.py::test_the_server_is_started_by_its_own_command": (
        "zk0 deploy boot",
        "zk0 deploy boot --cron",
    ),
    "network/test_site_wheel.py::test_it_joins": (
        "make wheel",
        "python3.12 -m venv env && source env/bin/activate",
        "pip install zk0-0.1.0-py3-none-any.whl",
        "pip install --no-deps -r requirements/site.txt",
    ),
    "network/test_site_wheel.py::test_another_torch_may_be_brought": ("uv pip install --no-deps ...",),
    "e2e/test_sources_run.py::test_local_only_by_dvc_then_by_the_demo": ("zk0 demo", "make demo"),
    "e2e/test_pipeline_repro.py::test_again_runs_nothing_but_validate": ("dvc repro",),
    "e2e/test_pipeline_repro.py::test_metrics_diff_and_plots": ("dvc plots show",),
    "e2e/test_restore.py::test_the_documented_tables_fit_100_columns": (
        "dvc exp run -S ...",
        "dvc exp show ...",
        "dvc metrics diff NAME",
    ),
    "e2e/test_restore.py::test_a_fresh_clone_has_the_run_back": (
        "dvc exp push ...",
        "dvc exp pull ...",
        "dvc exp apply ...",
        "git checkout ...",
        "dvc remote add ...",
        "zk0 model show 3",
    ),
    "e2e/test_lerobot_eval.py::test_lerobot_eval_runs_a_checkpoint_from_anywhere": (
        "lerobot-eval --policy.path=checkpoints/best ...",
    ),
    "flows/test_flow_runs.py::test_nightly_completes_then_is_unchanged": (
        "make up",
        "make down",
        "export PREFECT_API_URL=http://127.0.0.1:4200/api",
        "prefect deployment run federate/nightly",
        "dvc exp list",
    ),
    "flows/test_flow_runs.py::test_testing_is_deployed_and_shows_its_report": (
        "prefect deployment run testing/weekly",
        "prefect deployment run testing/weekly --param ...",
    ),
    "flows/test_flow_runs.py::test_quick_benchmarks_are_compared_with_earlier_ones": ("make bench-quick",),
    "flows/test_flow_runs.py::test_train_once_shows_the_nine_documented_steps": (
        "prefect deployment run train/once --param data=local:cups ...",
    ),
    "flows/test_flow_runs.py::test_train_once_goes_on_by_name_and_finds_nothing_to_do": (
        "prefect deployment run train/once --param name=cups --watch",
    ),
    "flows/test_join_flow.py::test_client_once_shows_the_eight_documented_steps": (
        "prefect deployment run client/once ...",
    ),
    "flows/test_testing_flow.py::test_sound_project_passes": ("python -m flows.testing", "zk0 simulate"),
    "operations/test_deployment.py::test_seven_steps_bring_everything_up": ("zk0 deploy init ...", "zk0 deploy"),
    "operations/test_deployment.py::test_the_flow_shows_seven_steps_and_leaves_its_context": (
        "prefect deployment run deploy/once",
    ),
    "operations/test_deployment.py::test_a_gateway_that_was_stopped_stays_so_and_is_started_alone": (
        "zk0 status",
        "zk0 restart gateway",
    ),
    "operations/test_deployment.py::test_certificates_are_rotated_and_the_superlink_takes_its_own": (
        "zk0 security rotate",
        "zk0 restart superlink",
    ),
    "operations/test_deployment.py::test_logs_are_lines_of_json_and_can_be_followed": (
        "zk0 logs gateway",
        "zk0 logs superlink --follow",
    ),
    "operations/test_deployment.py::test_upgrading_brings_everything_back": (
        "zk0 backup ../before-upgrade.tar.gz",
        "zk0 stop",
    ),
    "operations/test_deployment.py::test_everything_is_started_again_and_nobody_is_alerted": ("zk0 restart",),
    "operations/test_backup.py::test_a_restored_project_is_the_one_that_was_backed_up": (
        "zk0 backup /media/stick/zk0.tar.gz",
        "zk0 restore /media/stick/zk0.tar.gz",
    ),
    "tracking/test_mlflow_pages.py::test_the_runs_table_and_the_charts": ("make ui",),
    "tracking/test_comparing.py::test_runs_in_a_table": ("zk0 runs",),
    "tracking/test_comparing.py::test_two_versions_task_by_task_and_overall": ("zk0 compare 3 @champion",),
    "study/test_compare_anew.py::test_checkpoints_meet_the_same_scenes": ("zk0 compare 3 1 --anew",),
    "tracking/test_promotion.py::test_commands": ("zk0 promote 3", "zk0 demote"),
    "tracking/test_publish.py::test_a_version_is_pushed_with_its_card": ("zk0 publish 3 --to hub:ME/ARM",),
    "tracking/test_card_on_an_arm.py::test_the_documented_command_drives_the_arm": (
        "cd trainings/cups/checkpoints/best",
        "lerobot-rollout ...",
    ),
    "pipeline/test_data_commands.py::test_checking_a_dataset_says_what_it_is": ("zk0 data check local:cups",),
    "pipeline/test_data_commands.py::test_converting_and_what_it_says_next": ("zk0 data convert ...",),
    "data/test_hub_datasets.py::test_hf_download_puts_it_where_it_is_found": ("hf download ...",),
    "pipeline/test_features_stage.py::test_build_computes_all_sites_frames_once": ("zk0 features build",),
    "pipeline/test_features_stage.py::test_size_is_a_table": ("zk0 features size",),
    "pipeline/test_features_stage.py::test_clean_deletes_all_or_all_but_what_is_needed": (
        "zk0 features clean",
        "zk0 features clean --keep-current",
    ),
    "pipeline/test_train.py::test_all_steps_are_told_and_the_model_is_named": (
        "zk0 train --data local:cups --camera top=camera1 --camera wrist=camera2",
    ),
    "pipeline/test_train.py::test_a_second_time_changes_nothing": ("zk0 train --name cups",),
    "pipeline/test_train.py::test_the_run_is_in_the_projects_mlflow_and_promoted_when_told": (
        "zk0 promote 1 --params trainings/cups/params.yaml",
    ),
    "pipeline/test_train.py::test_edited_params_are_what_is_trained": ("zk0 train --data sim:push-red-cube-left ...",),
    "pipeline/test_train.py::test_lerobot_evaluates_the_trained_checkpoint": (
        "lerobot-eval --policy.path=trainings/push-red-cube-left/checkpoints/best ...",
    ),
    "training/test_pretrain.py::test_the_command_goes_on_from_a_checkpoint_at_a_lower_rate": (
        "zk0 base build --out models/nano-base",
        "zk0 base build --rooms ...",
    ),
    "training/test_pretrain.py::test_scores_are_of_the_shared_room_and_of_rooms_that_nothing_was_recorded_in": (
        "zk0 base score --rollouts 50",
        "zk0 base score --policy models/rooms-base --rollouts 24 --rooms 24",
    ),
    "federation/test_scale.py::test_a_run_that_is_stopped_or_killed_goes_on": ("zk0 federate --engine ray",),
    "study/test_tasks.py::test_an_arm_is_run_and_kept": ("zk0 study comparison",),
    "pipeline/test_view.py::test_an_episode_of_a_partition_is_shown_as_it_is_trained_on": (
        "zk0 view red-cube",
        "zk0 view red-cube --save cube.rrd",
    ),
    "pipeline/test_view.py::test_an_episode_of_a_dataset_is_shown_as_it_was_recorded": (
        "zk0 view local:cups --episode 3",
    ),
    "pipeline/test_view.py::test_a_policys_chunks_stand_beside_the_recorded_actions": (
        "zk0 view red-cube --policy best",
    ),
    "pipeline/test_view.py::test_rollouts_show_the_film_and_what_was_asked_and_cut": ("zk0 view",),
}

NOT_HERE: dict[str, tuple[str, ...]] = {
    "it is what runs these tests": (
        "make test",
        "make test-services",
        "make test-release",
        "make test-all",
        'python -m pytest -m "not services" tests/data',
    ),
    "an arm is moved by hand": ("lerobot-calibrate ...",),
    "it asks the registry of packages for what is not locked": ('pip install "lerobot[...', "pip install uv"),
    "6.7 GB are installed; requirements/site.txt is, by the same command": (
        "pip install --no-deps -r requirements/all.txt",
    ),
    "hours, and minutes with --quick; tests/study runs what it does at the smallest size": (
        "zk0 study feasibility",
        "zk0 study personalisation",
        "zk0 study rooms",
        "zk0 study robustness",
        "zk0 study robustness-confirmation",
        "zk0 study privacy",
        "zk0 study privacy-many",
        "zk0 study nights",
        "zk0 study rooms-probe",
        "zk0 study comparison --quick --engine ray",
    ),
    "it renews the clone that is tested": ("git pull && make install",),
    "its one package is in .venv, by lock.txt": ("pip install --no-deps -r requirements/view.txt",),
    "nothing here builds images; tests/test_container.py reads what is typed": ("docker compose ...",),
}


def is_of(command: str, entry: str) -> bool:
    return command.startswith(entry.removesuffix("...")) if entry.endswith("...") else command == entry


@cache
def shown() -> dict[str, list[Path]]:
    """Each command that the pages show, with them."""
    found: dict[str, list[Path]] = {}
    for page in PAGES:
        for command in shown_commands(page):
            found.setdefault(command, []).append(page)
    return found


def said_in(command: str) -> str:
    """What a test that runs a command names: the command of zk0, the deployment, or else the program."""
    if command.startswith("make "):
        recipe = (REPO / "Makefile").read_text().partition(f"\n{command.split()[1]}:")[2].partition("\n\n")[0]
        command = re.findall(r"\$\(BIN\)/([^|&\n]+)", recipe)[0]
    words = command.split()
    if words[0] == "zk0":
        return path_of(command)
    places = {"prefect": 3, "python": 2, "export": 1}
    return words[places.get(words[0], 0)].partition("=")[0]


def test_every_command_is_run_or_has_a_reason() -> None:
    tables = [*SEQUENCES.values(), *RUN_BY.values(), *NOT_HERE.values()]
    entries = [entry for table in tables for entry in table if not entry.startswith("cp ")]

    found = {command: [entry for entry in entries if is_of(command, entry)] for command in shown()}

    assert {command: those for command, those in found.items() if len(those) != 1} == {}
    assert [entry for entry in entries if [entry] not in found.values()] == []


@pytest.mark.parametrize(("test", "commands"), RUN_BY.items(), ids=RUN_BY)
def test_the_test_is_there_and_names_it(test: str, commands: tuple[str, ...]) -> None:
    file, _, name = test.partition("::")
    path = REPO / "tests" / file
    tree = ast.parse(path.read_text())
    assert [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith(name)]
    around = [path, *path.parent.glob("conftest.py")]
    text = re.sub(r"""[\s"',]+""", " ", " ".join(file.read_text() for file in around))

    for entry in commands:
        ((command, pages),) = ((one, pages) for one, pages in shown().items() if is_of(one, entry))
        assert said_in(command) in text or any(page.name in text for page in pages), entry


@pytest.fixture
def folder(prepared: Path, recorded: Path, params_content: dict[str, Any], tmp_path: Path) -> Path:
    """A prepared project, with what an owner has recorded and the studies that this project shows."""
    root = tmp_path / "project"
    shutil.copytree(prepared, root, ignore=shutil.ignore_patterns(".cache"))
    (root / "params.yaml").write_text(yaml.safe_dump(params_content))
    shutil.copytree(recorded, root / "cups")
    shutil.copytree(REPO / "results" / "studies", root / "results" / "studies")
    return root


# What is there once they were typed.
MADE: dict[str, tuple[str, ...]] = {
    "keys and sites": ("security/invitations/kitchen.json",),
    "a project in a folder": ("arms/dvc.yaml",),
    "an owner's project": ("arm/dvc.yaml",),
    "engine": ("results/federation/run.json",),
    "studies": ("docs/RESULTS.md",),
    "an episode cut out": ("cups-mended/meta/info.json",),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_typed_one_after_the_other(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for line in SEQUENCES[name]:
        if line.startswith("zk0 ") and "&&" not in line:
            typed(line)
            continue
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {**os.environ, "PATH": path}
        done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, timeout=400, check=False)
        # LeRobot's threads have been seen to abort the process as it ended, once all was saved.
        assert done.returncode == 0 or line.startswith("lerobot-"), done.stdout + done.stderr
    for made in MADE[name]:
        assert (folder / made).exists()
