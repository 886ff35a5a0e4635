"""Tensors in a folder, with a record of what they must be: what became of them since they were saved is noticed.

A kill, a full disk, a bad block or a hand may have cut a file short, changed a number or taken a file away. Each ends
in one kind of error, which says what it is; whoever reads adds what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zk0.digests import digest_value
from zk0.files import BadFileError, read_mapping, replaced_folder, write_json
from zk0.policy.trainable import Tensors, digest_tensors

RECORD = "state.json"


class DamagedError(ValueError):
    """What is there is not what was saved; the message names the file and ends without a full stop."""


def write_kept(
    folder: Path, record: Mapping[str, Any], parts: Mapping[str, Tensors], known: Mapping[str, str] | None = None
) -> None:
    """Write a folder, in one step, in place of what was there.

    Args:
        folder: Where.
        record: What JSON can hold; ``tensors`` and ``digest`` are added to it.
        parts: Tensors by the name of their file; where a part has none, there is no file.
        known: Digests of parts that need not be computed again.
    """
    known = known or {}
    with replaced_folder(folder) as temporary:
        digests = {}
        for name, tensors in parts.items():
            if tensors:
                save_file(tensors, _file(temporary, name))
                digests[name] = known.get(name) or digest_tensors(tensors)
        content = json.loads(json.dumps({**record, "tensors": digests}, allow_nan=False))  # as it will be read
        write_json(temporary / RECORD, {**content, "digest": digest_value(content)})


def read_kept(folder: Path) -> tuple[dict[str, Any], dict[str, Tensors]]:
    """Read what :func:`write_kept` wrote: the record, and the parts that have tensors.

    Raises:
        DamagedError: It is not what was written, whatever became of it; or an earlier zk0 wrote it.
    """
    path = folder / RECORD
    try:
        content = read_mapping(path)
    except FileNotFoundError as error:
        raise DamagedError(f"{path} is missing") from error
    except BadFileError as error:
        raise DamagedError(str(error)) from error
    if "tensors" not in content:
        raise DamagedError(f"{path} was written by an earlier zk0, or by something else: it has no digests")
    if (digest := content.pop("digest", None)) != digest_value(content):
        raise DamagedError(f"{path} is not what was saved: its content does not have the digest {digest}")
    return content, {name: _part(_file(folder, name), digest) for name, digest in content["tensors"].items()}


def _part(file: Path, digest: str) -> Tensors:
    try:
        tensors = load_file(file)
    except FileNotFoundError as error:
        raise DamagedError(f"{file} is missing") from error
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{file} is cut short or damaged ({error})") from error
    if (found := digest_tensors(tensors)) != digest:
        raise DamagedError(f"{file} has digest {found}, but {digest} was saved")
    return tensors


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"
