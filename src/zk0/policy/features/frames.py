"""The features of a set of frames: read where they are there, computed where they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from zk0.console import console, progress_bar
from zk0.data.frames import Clip, Frames
from zk0.digests import quick_digest
from zk0.files import write_json
from zk0.params import FeatureParams
from zk0.policy.checkpoint import LoadedPolicy
from zk0.policy.features import backbone
from zk0.policy.features.backbone import backbone_key, image_block
from zk0.policy.features.places import ABOUT, MEMO, check_space, size_text
from zk0.policy.features.store import (
    ITEMS,
    SUFFIX,
    FeatureCacheError,
    FeatureFile,
    Layout,
    create,
    shelf,
    write_frames,
)

KV = "kv"
_LONG_WORK_PIXELS = 2**24  # from here on a progress bar
_LARGE_BYTES = 2**26  # from here on announced each time

_announced: set[Path] = set()

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """What is still to be done for some frames.

    Attributes:
        files: Files to make.
        file_bytes: Their size.
        blocks: Clip number, name of what to compute, and first frame of each block to compute.
        frames: Frames in these blocks.
    """

    files: list[tuple[int, str]]
    file_bytes: int
    blocks: list[tuple[int, str, int]]
    frames: int


class FrameFeatures:
    """Features of one :class:`~zk0.data.frames.Frames` under one policy's backbone.

    Attributes:
        kind: ``tokens`` or ``prefix``.
        folder: Where this backbone's features lie.
    """

    def __init__(self, loaded: LoadedPolicy, frames: Frames, settings: FeatureParams, folder: Path) -> None:
        self.kind: Literal["tokens", "prefix"] = "prefix" if settings.cache == "prefix" else "tokens"
        self.loaded, self.frames, self.dtype = loaded, frames, settings.dtype
        self.cameras = [camera for camera in loaded.cameras if camera in frames.images.cameras]
        self.names = self.cameras if self.kind == "tokens" else [KV]
        key = backbone_key(loaded, self.kind, self.dtype)
        self.folder = folder / f"{self.kind}-{self.dtype}-{key[:16]}"
        self._memo = folder / MEMO
        self._device = torch.device(loaded.policy.config.device).type
        pixels = [int(np.prod(backbone.network_size(loaded.policy, frames.images.shape(c)))) for c in self.cameras]
        self.block = image_block(max(pixels), self._device, settings.block)
        self.frame_pixels = sum(pixels)
        self._shapes: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._clips = frames.clips(self._memo)
        self._starts = np.array([clip.start for clip in self._clips])
        self._keys = [self._clip_keys(key, clip) for clip in self._clips]

    def _clip_keys(self, backbone: str, clip: Clip) -> dict[str, str]:
        """Digest of all that an episode's features depend on, by name of what is kept."""
        shapes = {camera: list(self.frames.images.shape(camera)) for camera in self.cameras}
        if self.kind == "tokens":
            return {
                c: quick_digest([backbone, self.block, clip.digests[c], shapes[c], clip.length]) for c in self.cameras
            }
        pictures = [[clip.digests[camera], shapes[camera]] for camera in self.cameras]
        words = self.frames.sentences[clip.start : clip.start + clip.length]
        return {KV: quick_digest([backbone, self.block, pictures, clip.length, words])}

    def path(self, clip: int, name: str) -> Path:
        """The file of an episode; ``clip`` counts the frames' episodes from 0."""
        return self.folder / f"{self._keys[clip][name]}{SUFFIX}"

    def paths(self) -> list[Path]:
        """The files of all episodes, whether they exist or not."""
        return [self.path(clip, name) for clip in range(len(self._clips)) for name in self.names]

    def _file(self, clip: int, name: str, fresh: bool = False) -> FeatureFile | None:
        file = shelf.get(self.path(clip, name), fresh)
        if file is not None:
            found, key = file.layout, self._keys[clip][name]
            expected = (key, self.kind, self.dtype, self._clips[clip].length, self.block)
            if (found.key, found.kind, found.dtype, found.frames, found.block) != expected:
                raise file.spoilt("holds other features than its name says")
        return file

    def _layout(self, clip: int, name: str) -> Layout:
        policy, shape_of = self.loaded.policy, self.frames.images.shape
        shape: tuple[int, ...]
        if self.kind == "tokens":
            shape = backbone.token_shape(policy, shape_of(name))
        else:
            start = self._clips[clip].start
            words = tuple(dict.fromkeys(self.frames.sentences[start : start + self._clips[clip].length]))
            shape = self._prefix_shape(words)
        return Layout(self._keys[clip][name], self.kind, shape, self.dtype, self._clips[clip].length, self.block)

    def _prefix_shape(self, words: tuple[str, ...]) -> tuple[int, ...]:
        if words not in self._shapes:
            shapes = [self.frames.images.shape(camera) for camera in self.cameras]
            self._shapes[words] = backbone.prefix_shape(self.loaded, shapes, words)
        return self._shapes[words]

    def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clip number of each row, and its frame in that clip."""
        if len(outside := rows[(rows < 0) | (rows >= len(self.frames))]):
            raise IndexError(f"row {outside[0]} is none of the {len(self.frames)} frames")
        clips = np.searchsorted(self._starts, rows, side="right") - 1
        return clips, rows - self._starts[clips]

    def work(self, rows: np.ndarray) -> Work:
        """What is still to be made and computed for these rows; nothing is written."""
        clips, offsets = self._places(np.unique(rows))
        files, blocks, size, frames = [], [], 0, 0
        for clip in np.unique(clips).tolist():
            length = self._clips[clip].length
            wanted = offsets[clips == clip]
            for name in self.names:
                file = self._file(clip, name, fresh=True)
                missing = wanted
                if file is None:
                    files.append((clip, name))
                    size += self._layout(clip, name).file_bytes
                else:
                    missing = wanted[file.missing()[wanted]]
                for number in np.unique(missing // self.block).tolist():
                    blocks.append((clip, name, number * self.block))
                    frames += min(self.block, length - number * self.block)
        return Work(files, size, blocks, frames)

    def ensure(self, rows: np.ndarray, advance: Advance | None = None) -> None:
        """Compute and write whatever of these rows is missing.

        Args:
            rows: Frame rows, in any order.
            advance: Called with numbers of frames as they are done; None shows a progress bar of its own when it is
                long work.

        Raises:
            FeatureCacheError: No room, a file that is spoilt, or features that are not finite.
        """
        work = self.work(rows)
        if work.files:
            free = check_space(self.folder, work.file_bytes)
            if advance is None:
                _announce(work.file_bytes, self.folder, free)
            self._make(work.files)
        with nullcontext(advance) if advance else self._progress(work.frames) as step:
            for clip, name, first in work.blocks:
                step(self._compute(clip, name, first))

    def _make(self, files: list[tuple[int, str]]) -> None:
        """Make files with room for all their frames, or none of them."""
        self._write_about()
        made = []
        try:
            for clip, name in files:
                path = self.path(clip, name)
                if create(path, self._layout(clip, name)):
                    made.append(path)
        except FeatureCacheError:
            for path in made:
                path.unlink(missing_ok=True)
            raise

    def _compute(self, clip: int, name: str, first: int) -> int:
        """Compute one block and write it; returns its number of frames."""
        whole = self._clips[clip]
        rows = whole.start + np.arange(first, min(first + self.block, whole.length))
        path = self.path(clip, name)
        file = self._file(clip, name)
        if file is None:
            raise FeatureCacheError(f"{path} was deleted while it was being filled; run the command again")
        layout = file.layout
        with torch.autocast(self._device, enabled=False):  # what is kept must not depend on who asks first
            if self.kind == "tokens":
                features = backbone.image_tokens_of(self.loaded, self.frames, name, rows)
            else:
                features = backbone.prefix_of_rows(self.loaded, self.frames, self.cameras, rows, layout.shape)
        if tuple(features.shape[1:]) != layout.shape:
            raise file.spoilt(
                f"holds features of shape {layout.shape}, but the policy gives {tuple(features.shape[1:])}"
            )
        finite = torch.isfinite(features.flatten(1)).all(dim=1).cpu().numpy()
        if not finite.all():
            raise FeatureCacheError(
                f"the backbone gives features that are not finite for {name}, episode {whole.episode}, frame "
                f"{first + int(np.argmin(finite))}; nothing of them was kept. Its weights are damaged, or its "
                "precision is too low: check policy.base"
            )
        write_frames(path, layout, first, backbone.as_bytes(features, self.dtype))
        return len(rows)

    def read(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """The rows' features, in their order, as stored, on the CPU; computed first where they are missing.

        Returns:
            ``tokens``: camera to (B, T, D). ``prefix``: ``kv`` to (B, L, 2, S, H x head_dim), zero where an instruction
            is shorter than the longest of these rows.

        Raises:
            FeatureCacheError: See :meth:`ensure`.
        """
        for _ in range(2):
            found = {name: self._gather(name, rows) for name in self.names}
            if all(tensor is not None for tensor in found.values()):
                return {name: tensor for name, tensor in found.items() if tensor is not None}
            self.ensure(rows)
        raise FeatureCacheError(f"{self.folder}: features were deleted while they were being read; run it again")

    def _gather(self, name: str, rows: np.ndarray) -> torch.Tensor | None:
        clips, offsets = self._places(rows)
        files = {clip: self._file(clip, name) for clip in np.unique(clips).tolist()}
        views = []
        for clip, offset in zip(clips.tolist(), offsets.tolist(), strict=True):
            file = files[clip]
            view = None if file is None else file.frame(offset)
            if view is None:
                return None
            views.append(view)
        longest = max(views, key=lambda view: int(view.size))
        alike = all(view.shape == longest.shape for view in views)
        out = (np.empty if alike else np.zeros)((len(rows), *longest.shape), ITEMS[self.dtype])
        for target, view in zip(out, views, strict=True):
            target[..., : view.shape[-2], :] = view
        return torch.from_numpy(out).view(backbone.DTYPES[self.dtype])

    @contextmanager
    def _progress(self, frames: int) -> Iterator[Advance]:
        if frames * self.frame_pixels < _LONG_WORK_PIXELS:
            yield lambda _count: None
            return
        with progress_bar() as bar:
            line = bar.add_task("computing features", total=frames)
            yield lambda count: bar.advance(line, count)

    def _write_about(self) -> None:
        about = self.folder / ABOUT
        if about.exists():
            return
        sizes = sorted({backbone.network_size(self.loaded.policy, self.frames.images.shape(c)) for c in self.cameras})
        size = " and ".join(f"{height}x{width}" for height, width in sizes)
        kept = "image tokens" if self.kind == "tokens" else "keys and values of image and language prefix"
        vlm = str(self.loaded.policy.config.vlm_model_name)
        words = f"{kept}, {self.dtype}, of {Path(vlm).name if Path(vlm).is_dir() else vlm} at {size} on {self._device}"
        try:
            write_json(about, {"what": words, "backbone": self.folder.name.rsplit("-", 1)[-1], "block": self.block})
        except OSError as error:
            raise FeatureCacheError(f"{about} cannot be written: {error.strerror}; name another folder") from error


def _announce(size: int, folder: Path, free: int) -> None:
    """Say how much will be written: always when it is much, else once a process and backbone."""
    if size >= _LARGE_BYTES or folder not in _announced:
        _announced.add(folder)
        console.print(f"{size_text(size)} of features are kept in {folder} ({size_text(free)} free)", markup=False)
