"""Flower's SuperExec, with the tokens of its tasks out of sight: ``python -m zk0.network.superexec ...``.

All options are `flower-superexec`'s own. Flower puts a task's token into the command line of the process that it starts
for it, where `ps` shows it to every account of the machine; who has it can take the task's messages, and with them
updates and models. Started so, the process gets its token as a file that has no name and that it alone is given.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import IO

from zk0 import runtime_env
from zk0.federation.flower import (
    TASK_TYPE_TO_APPIO_API_ADDRESS_ARG,
    TASK_TYPE_TO_COMMAND,
    ExecutionSpec,
    LaunchResult,
    SubprocessExecutor,
    run_superexec,
)


class DiscreetExecutor(SubprocessExecutor):
    """Starts the same processes with the same options as Flower's, except for the token's."""

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start a task's process, with the token in a file that only it has."""
        # Flower's processes take a token from a file; this one is memory, and gone with those who have it open.
        command = [TASK_TYPE_TO_COMMAND[spec.task_type], "--token-file", "/dev/stdin"]
        command += [TASK_TYPE_TO_APPIO_API_ADDRESS_ARG[spec.task_type], spec.runtime_api_address]
        if spec.insecure:
            command.append("--insecure")
        elif spec.root_certificates_path is not None:
            command += ["--root-certificates", spec.root_certificates_path]
        if spec.parent_pid is not None:
            command += ["--parent-pid", str(spec.parent_pid)]
        if spec.runtime_dependency_install:
            command.append("--allow-runtime-dependency-installation")
        output = subprocess.DEVNULL if spec.suppress_output else None
        with _nameless() as file:
            file.write(spec.token)
            file.seek(0)  # on macOS, whoever opens /dev/stdin goes on where it is
            subprocess.Popen(command, stdin=file, stdout=output, stderr=output)
        return LaunchResult.accepted()


def _nameless() -> IO[str]:
    """A file that no other process can open: memory, or on macOS one that is unlinked as it is made."""
    return tempfile.TemporaryFile("w") if sys.platform == "darwin" else os.fdopen(os.memfd_create("token"), "w")


def main() -> None:
    """Run SuperExec in the foreground until it is told to stop."""
    runtime_env.switch_off()  # before Flower's command looks at the environment
    run_superexec(lambda *_, **__: DiscreetExecutor())


if __name__ == "__main__":
    main()
