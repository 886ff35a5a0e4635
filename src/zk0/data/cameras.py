"""A dataset's cameras under the names that the policy knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zk0.data.dataset import DatasetFolder
from zk0.errors import DataError
from zk0.params import DataParams
from zk0.so100 import IMAGES
from zk0.words import nearest_hint


@dataclass(frozen=True)
class Cameras:
    """What becomes of a dataset's cameras.

    Attributes:
        sources: Image features as the policy names them to the dataset's own.
        left_out: The dataset's own that params leave out.
    """

    sources: Mapping[str, str]
    left_out: tuple[str, ...]


def rename_cameras(name: str, dataset: DatasetFolder, params: DataParams) -> Cameras:
    """Name a source's cameras as params say; those that they do not mention keep their names.

    Raises:
        DataError: There is no camera, or none is left; two would have one name; params name one that is not there;
            or one holds no pictures that can be read.
    """
    own = {camera.removeprefix(f"{IMAGES}."): camera for camera in dataset.cameras}
    if not own:
        raise DataError(f"{dataset.repo_id} has no camera; features named {IMAGES}.NAME were expected")
    given = params.cameras.get(name)
    if isinstance(given, dict) and (strange := sorted(set(given) - set(own))):
        raise DataError(
            f"data.cameras of '{name}' names '{strange[0]}', but {dataset.repo_id} has no such camera"
            f"{nearest_hint(strange[0], own)}"
        )
    names = params.camera_names(name)
    sources: dict[str, str] = {}
    left_out = []
    for short, camera in own.items():
        known = names.get(short, short)
        if known is None:
            left_out.append(camera)
            continue
        feature = f"{IMAGES}.{known.removeprefix(f'{IMAGES}.')}"
        if feature in sources:
            raise DataError(f"data.cameras makes both {sources[feature]} and {camera} of {dataset.repo_id} {feature}")
        _check_readable(name, short, camera, dataset)
        sources[feature] = camera
    if not sources:
        raise DataError(f"data.cameras leaves out every camera of '{name}'; a policy that sees needs one")
    return Cameras(sources, tuple(left_out))


def _check_readable(name: str, short: str, camera: str, dataset: DatasetFolder) -> None:
    feature = dataset.info.features[camera]
    leave_out = f"leave it out by data.cameras: {{{name}: {{{short}: null}}}}"
    if feature.dtype != "video":
        raise DataError(
            f"{dataset.repo_id}: {camera} is kept as {feature.dtype}; video was expected. Make a video of it in "
            f"a new dataset (`lerobot-edit-dataset --repo_id {dataset.root.name} --root {dataset.root} --new_root "
            f"FOLDER --operation.type convert_image_to_video`), or {leave_out}"
        )
    if (channels := dataset.image_shape(camera)[0]) != 3:
        raise DataError(
            f"{dataset.repo_id}: {camera} has {channels} channel, as a depth map; 3 were expected, {leave_out}"
        )


def check_alike(cameras: Mapping[str, Iterable[str]], missing: str) -> None:
    """Refuse sources with other cameras than each other's, unless a camera may be missing.

    Args:
        cameras: Source to its image features as the policy names them.
        missing: ``data.missing_cameras``.

    Raises:
        DataError: Names both sources and their cameras.
    """
    if missing == "empty":
        return
    (first, known), *others = ((name, tuple(sorted(features))) for name, features in cameras.items())
    for name, features in others:
        if features != known:
            raise DataError(
                f"'{name}' has cameras {', '.join(features)}, '{first}' {', '.join(known)}; give them the same names "
                f"(data.cameras: {{{name}: {{THEIRS: POLICY'S}}}}), leave one out (THEIRS: null), or hide from the "
                "policy what a site lacks (data.missing_cameras: empty)"
            )
