"""What a dataset says of itself in ``meta/info.json``: read once, strictly and within bounds.

A dataset may come from anyone. Whatever in it leads out of its folder, is absurdly large or of
another kind than LeRobot writes is refused here, so that nothing behind has to expect it.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zk0.data.layout import require_file
from zk0.errors import DataError
from zk0.files import BadFileError, read_json
from zk0.so100 import IMAGES

INFO = Path("meta/info.json")
_MOST_BYTES = 4 << 20
_DEEPEST = 12  # no dataset of LeRobot's is
_KEY = re.compile(r"[\w.\- ]{1,128}")
_NUMBER = re.compile(r"0?\d{0,2}d?")  # how a pattern may write a number: at most 99 digits
_PLACES = {
    "v2.1": {"episode_chunk", "episode_index"},
    "v3": {"chunk_index", "file_index"},
}
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Side = Annotated[int, Field(ge=1, le=16384)]
_Name = Annotated[str, Field(max_length=128)]


class Feature(BaseModel):
    """A column of the tables, or a camera.

    Attributes:
        dtype: As numpy names it, or ``video``, ``image``, ``string``.
        shape: Of one frame's value.
        names: Of the value's parts, as the recorder wrote them, wherever it put them.
        info: What else is noted.
    """

    model_config = ConfigDict(strict=True)

    dtype: _Name
    shape: Annotated[list[_Side], Field(max_length=4)]
    names: list[_Name] | None = None
    info: dict[str, Any] | None = None

    @field_validator("shape", mode="before")
    @classmethod
    def _whole(cls, shape: Any) -> Any:
        return [int(n) if isinstance(n, float) and n.is_integer() else n for n in shape] if _is_list(shape) else shape

    @field_validator("names", mode="before")
    @classmethod
    def _flat(cls, names: Any) -> Any:
        """A list, a list in a list, or a list under a key such as ``motors`` or ``axes``."""
        while True:
            if isinstance(names, dict) and len(names) == 1:
                names = next(iter(names.values()))
            elif _is_list(names) and len(names) == 1 and isinstance(names[0], list | dict):
                names = names[0]
            else:
                break
        if isinstance(names, dict) and all(type(place) is int for place in names.values()):
            names = sorted(names, key=names.__getitem__)  # name to place
        if names is not None and not _is_list(names):
            raise ValueError("a list of names was expected, or one under a single key such as motors or axes")
        return names


class Info(BaseModel):
    """``meta/info.json`` of any format; patterns of those that are read are checked."""

    model_config = ConfigDict(strict=True, extra="allow")

    codebase_version: Annotated[str, Field(max_length=32)] | None = None
    robot_type: _Name | None = None
    fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    features: Annotated[dict[str, Feature], Field(max_length=256)]
    total_episodes: Annotated[int, Field(ge=0, le=10**6)] | None = None
    total_frames: _Count | None = None
    chunks_size: Annotated[int, Field(ge=1, le=10**9)] | None = None
    data_path: Annotated[str, Field(max_length=256)] | None = None
    video_path: Annotated[str, Field(max_length=256)] | None = None

    @property
    def version(self) -> str:
        """The format as LeRobot writes it, such as ``v3.0``; ``unknown`` where a dataset does not say."""
        return self.codebase_version or "unknown"

    @property
    def videos(self) -> list[str]:
        """The features that are kept as videos."""
        return [name for name, feature in self.features.items() if feature.dtype == "video"]

    def data_file(self, **place: int) -> Path:
        """The table of a place, relative to the dataset's folder."""
        return Path(str(self.data_path).format(**place))

    def video_file(self, camera: str, **place: int) -> Path:
        """The video of a camera and a place, relative to the dataset's folder."""
        return Path(str(self.video_path).format(**place, video_key=camera))

    @field_validator("features")
    @classmethod
    def _names_of_features(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        for name, feature in features.items():
            if not _KEY.fullmatch(name) or ".." in name:
                raise ValueError(
                    f"{name[:60]!r} is no name of a feature: letters, digits, '_', '-' and '.' were expected"
                )
            if name.startswith(f"{IMAGES}.") and feature.dtype not in ("video", "image"):
                raise ValueError(f"{name} has dtype {feature.dtype!r}; video or image was expected of a camera")
            if name.startswith(f"{IMAGES}.") and len(feature.shape) != 3:
                raise ValueError(f"{name} has shape {feature.shape}; height, width and channels were expected")
        return features

    @model_validator(mode="after")
    def _paths_stay_inside(self) -> Info:
        version = self.codebase_version or ""
        places = _PLACES.get("v3" if version.startswith("v3") else version)
        if places is None:
            return self
        _check_pattern("data_path", self.data_path, places, "data")
        if self.videos:
            _check_pattern("video_path", self.video_path, places | {"video_key"}, "videos")
        return self


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _check_pattern(key: str, pattern: str | None, places: set[str], folder: str) -> None:
    """A pattern may only lead to a file below ``folder``, a part of the dataset's own."""
    wanted = (
        f"{key}: a pattern below {folder}/ with {', '.join(f'{{{place}}}' for place in sorted(places))} was expected"
    )
    if not pattern:
        raise ValueError(f"{wanted}; it is missing")
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"{wanted}, found {pattern!r} ({error})") from error
    for _, field, spec, conversion in parts:
        if field is None:
            continue
        fits = (field == "video_key" and not spec) or (field != "video_key" and _NUMBER.fullmatch(spec or ""))
        if field not in places or conversion or not fits:
            raise ValueError(f"{wanted}, found {pattern!r}")
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts or "\\" in pattern or "\0" in pattern or path.parts[0] != folder:
        raise ValueError(f"{wanted}, found {pattern!r}, which leads elsewhere")


def read_info(root: Path) -> Info:
    """``meta/info.json`` of a dataset, checked; joints' names are a flat list in it.

    Raises:
        DataError: It is missing, or not what LeRobot writes; names the file and the key.
    """
    path = root / INFO
    if not path.exists():
        if (root / "meta_data" / "info.json").is_file():
            raise DataError(f"{root} has a LeRobot format of 1.x; v3.0 is needed. Record it anew")
        raise DataError(f"{root} is no LeRobot dataset: {path} not found")
    content = read_bounded_json(root, INFO)
    if not isinstance(content, dict) or not isinstance(content.get("features"), dict) or "fps" not in content:
        raise DataError(f"{path} does not describe a LeRobot dataset: a mapping with fps and features was expected")
    try:
        return Info.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        found = "" if problem["type"] == "value_error" else f", found {repr(problem['input'])[:60]}"
        raise DataError(
            f"{path}: {f'{where}: ' if where else ''}{what}{found}; correct it as LeRobot writes it, or record again"
        ) from error


def read_bounded_json(root: Path, name: Path) -> Any:
    """A JSON file of a dataset.

    Raises:
        DataError: It is missing, too large, too deep, or no JSON.
    """
    try:
        return read_json(require_file(root, name), _MOST_BYTES, _DEEPEST)
    except BadFileError as error:
        raise DataError(str(error)) from error
