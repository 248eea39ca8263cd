"""The bounded memory of one target, and the rules that choose what a frame attends to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.sam2_model import MemorySelection
from mosam_ros.mosam.views import View

MAX_POINTER_DISTANCE = 1000
"""Frames; the time code of a pointer to the prompted frame stops growing here."""


@dataclass(frozen=True, eq=False)
class Overview:
    """A prompted frame remembered as a whole, for when the target may be anywhere.

    Attributes:
        features: (h·w, C_mem).
        pointer: (C,).
    """

    features: Tensor
    pointer: Tensor


@dataclass(frozen=True, eq=False)
class MemoryEntry:
    """What is remembered of one target in one frame.

    Attributes:
        frame_index: of the frame.
        features: (h·w, C_mem), the encoded mask and image.
        pointer: (C,), the object pointer.
        predicted_iou: 0..1, the model's estimate for that frame's mask.
        object_score: logit; positive when the target was seen.
        score_ratio: `object_score` over what was usual of the target until then, as
            `Presence.ratio_to_remember` has it.
        view: the part of the frame that `features` are of.
        time: when the frame was taken, in seconds.
        prompt: what the user said of the target in it, if anything.
        overview: of a prompted frame, if `view` is not all of it.
    """

    frame_index: int
    features: Tensor
    pointer: Tensor
    predicted_iou: float
    object_score: float
    view: View
    time: float = 0.0
    score_ratio: float = 1.0
    prompt: Prompt | None = None
    overview: Overview | None = None

    @property
    def as_whole(self) -> MemoryEntry:
        """The entry by its overview, if it has one."""
        if self.overview is None:
            return self
        whole, overview = View.whole(self.view.image_size), self.overview
        return replace(self, features=overview.features, pointer=overview.pointer, view=whole)


class MemoryBank:
    """The prompted frames and the newest other frames of one target; of constant size.

    Args:
        max_prompted: prompted frames kept: the first one and the newest others.
        max_recent: other frames kept.
    """

    def __init__(self, max_prompted: int, max_recent: int) -> None:
        self._max_prompted = max_prompted
        self.prompted: list[MemoryEntry] = []
        self.recent: deque[MemoryEntry] = deque(maxlen=max_recent)

    def add_prompted(self, entry: MemoryEntry) -> None:
        """Remember a frame in which the user showed the target."""
        self.prompted.append(entry)
        if len(self.prompted) > self._max_prompted:
            del self.prompted[1 if self._max_prompted > 1 else 0]

    def add(self, entry: MemoryEntry) -> None:
        """Remember a tracked frame; the oldest makes room."""
        self.recent.append(entry)

    def before(self, time: float) -> MemoryBank:
        """What is remembered of the frames before a time in seconds, in a bank of its own."""
        return self._of(
            (e for e in self.prompted if e.time < time), (e for e in self.recent if e.time < time)
        )

    def of_whole_frames(self) -> MemoryBank:
        """What is remembered of whole frames, in a bank of its own: in a frame in which a target
        may be anywhere it is not known by how it looks in a view around it.
        """
        return self._of(
            (e.as_whole for e in self.prompted), (e for e in self.recent if e.view.is_whole)
        )

    def _of(self, prompted: Iterable[MemoryEntry], recent: Iterable[MemoryEntry]) -> MemoryBank:
        other = MemoryBank(self._max_prompted, self.recent.maxlen or 0)
        other.prompted = list(prompted)
        other.recent.extend(recent)
        return other

    def shift_times(self, seconds: float) -> None:
        """Put all frames so much later, for a clock that was set."""
        self._replace(lambda e: replace(e, time=e.time + seconds))

    def shift_frames(self, frames: int) -> None:
        """Count the frames from another start."""
        self._replace(lambda e: replace(e, frame_index=e.frame_index + frames))

    def _replace(self, change: Callable[[MemoryEntry], MemoryEntry]) -> None:
        self.prompted = [change(e) for e in self.prompted]
        self.recent = deque((change(e) for e in self.recent), self.recent.maxlen)

    def since(self, time: float) -> list[MemoryEntry]:
        """What is remembered of the other frames, oldest first."""
        entries = (e for e in (*self.prompted, *self.recent) if e.time >= time)
        return sorted(entries, key=lambda e: e.frame_index)

    @property
    def last_view(self) -> View | None:
        """Of the newest frame; None if there is none."""
        newest = max((*self.prompted, *self.recent), key=lambda e: e.frame_index, default=None)
        return None if newest is None else newest.view

    def tensors(self) -> list[Tensor]:
        """All tensors held."""
        entries = (*self.prompted, *self.recent)
        overviews = (e.overview for e in self.prompted if e.overview is not None)
        held = [e.features for e in entries] + [e.pointer for e in entries]
        return held + [x for o in overviews for x in (o.features, o.pointer)]


@dataclass(frozen=True)
class Recall:
    """What one target attends to in one frame.

    Attributes:
        memories: entries whose maps are read, `slots` their places in time (0 for a prompted frame,
            else 1, the oldest, to 6, the newest).
        pointers: entries whose object pointers are read, `distances` how many frames ago they were.
    """

    memories: tuple[MemoryEntry, ...]
    slots: tuple[int, ...]
    pointers: tuple[MemoryEntry, ...]
    distances: tuple[int, ...]

    @property
    def layout(self) -> tuple[tuple[int, ...], int]:
        """Targets with equal layouts can be batched."""
        return self.slots, len(self.pointers)


class MemoryPolicy(Protocol):
    """A rule that chooses from a bank what frame `frame_index` attends to."""

    def recall(self, bank: MemoryBank, frame_index: int) -> Recall: ...


@dataclass(frozen=True)
class Sam2Memory:
    """SAM 2's rule: all prompted frames, the six newest others, and fifteen newest pointers.

    Attributes:
        num_slots: newest frames whose maps are read.
        num_pointers: newest frames whose pointers are read.
    """

    num_slots: int
    num_pointers: int

    def recall(self, bank: MemoryBank, frame_index: int) -> Recall:
        """The newest frames, each in the slot of its age."""

        def age(entry: MemoryEntry) -> int:
            return frame_index - entry.frame_index

        maps = [e for e in bank.recent if age(e) <= self.num_slots]
        slots = [self.num_slots + 1 - age(e) for e in maps]
        newest = [e for e in reversed(bank.recent) if age(e) <= self.num_pointers]
        pointers = (*bank.prompted, *newest)
        return Recall(
            memories=(*bank.prompted, *maps),
            slots=(*(0 for _ in bank.prompted), *slots),
            pointers=pointers,
            distances=tuple(min(age(e), MAX_POINTER_DISTANCE) for e in pointers),
        )


@dataclass(frozen=True)
class TemporalSelection:
    """MoSAM's rule (paper, section 3.3.1): prompted frames and the most reliable ones of a window.

    Of the window's frames at a regular interval those with a predicted IoU and an object score
    above their thresholds are taken, the newest first. Slots that stay free go to those of the rest
    that pass `rank_threshold`, the highest sum of both scores first. The frames
    chosen fill SAM 2's slots in time order; their pointers, and those of the other frames of the
    window that pass, are read with them.

    Attributes:
        num_slots: frames whose maps are read beside the prompted ones (six).
        num_pointers: frames whose pointers are read beside the prompted ones (fifteen).
        iou_threshold: of the predicted IoU (figure 4c).
        occlusion_threshold: of the object score (figure 4c).
        rank_threshold: of the predicted IoU in the second round (figure 4d).
        interval: frames between candidates.
        window: the candidates are of so many newest frames.
        keep_absent: the newest frames, so many, are taken in any case where the target is absent
            from them, and no others without it. As the paper writes the rule, with 0, frames
            without the target come last in the ranking and take only slots that stay free, so that
            a target that is hidden is remembered as seen, and a look-alike soon takes its place.
        keep_unsure: of the frames since the last one that passed the first round, if the target is
            in sight in all of them, the newest that passes `rank_threshold` is taken too. Where no
            frame of the window passed the first round, they are taken as they are, the newest
            first, as by plain SAM 2. The paper's rule, without it, remembers a target that comes
            out from behind something as the half that it was sure of, and one that is hard to make
            out by its prompt alone.
        min_score_ratio: frames that show the target with an object score below this share of its
            usual one are no candidates: what was seen in them is often a neighbor of a target that
            goes out of sight, and once remembered is taken for the target for good. The paper's
            rule, with 0, takes them.
    """

    num_slots: int
    num_pointers: int
    iou_threshold: float = 0.7
    occlusion_threshold: float = 0.0
    rank_threshold: float = 0.6
    interval: int = 1
    window: int = 30
    keep_absent: int = 0
    keep_unsure: bool = False
    min_score_ratio: float = 0.0

    def recall(self, bank: MemoryBank, frame_index: int) -> Recall:
        """The chosen frames, oldest first, in the newest slots."""
        candidates = [
            e
            for e in reversed(bank.recent)
            if frame_index - e.frame_index <= self.window
            and (frame_index - 1 - e.frame_index) % self.interval == 0
            and not self._is_faint(e)
        ]
        chosen, passed = self._select(candidates)
        maps = sorted(chosen, key=lambda e: e.frame_index)
        newest_slot = self.num_slots
        slots = range(newest_slot - len(maps) + 1, newest_slot + 1)
        pointers = (*bank.prompted, *passed[: self.num_pointers])
        ages = [frame_index - e.frame_index for e in pointers]
        return Recall(
            memories=(*bank.prompted, *maps),
            slots=(*(0 for _ in bank.prompted), *slots),
            pointers=pointers,
            distances=tuple(min(a, MAX_POINTER_DISTANCE) for a in ages),
        )

    def _select(self, candidates: list[MemoryEntry]) -> tuple[list[MemoryEntry], list[MemoryEntry]]:
        """The frames for the slots, and all that are good enough for a pointer; newest first."""
        absent = [e for e in candidates[: self.keep_absent] if e.object_score <= 0]
        unsure = self._unsure_since(candidates) if self.keep_unsure else []
        first = absent + unsure[:1]
        first += _without(filter(self._is_reliable, candidates), first)
        chosen = first[: self.num_slots]
        rest = _without(filter(self._may_rank, candidates), first)
        rest.sort(key=lambda e: e.predicted_iou + e.object_score, reverse=True)
        chosen += rest[: self.num_slots - len(chosen)]
        chosen += _without(unsure, chosen)[: self.num_slots - len(chosen)]
        passed = {*first, *chosen}
        return chosen, [e for e in candidates if e in passed]

    def _unsure_since(self, candidates: list[MemoryEntry]) -> list[MemoryEntry]:
        """The frames worth keeping since the last reliable one, all of them if there is none; none
        if the target was out of sight in one.
        """
        unsure = list(takewhile(lambda e: not self._is_reliable(e), candidates))
        if any(e.object_score <= 0 for e in unsure):
            return []
        never_sure = len(unsure) == len(candidates)
        return [e for e in unsure if never_sure or self._may_rank(e)]

    def _is_faint(self, entry: MemoryEntry) -> bool:
        return entry.object_score > 0 and entry.score_ratio < self.min_score_ratio

    def _is_reliable(self, entry: MemoryEntry) -> bool:
        seen = entry.object_score > self.occlusion_threshold
        return seen and entry.predicted_iou > self.iou_threshold

    def _may_rank(self, entry: MemoryEntry) -> bool:
        may_be_absent = self.keep_absent == 0
        return entry.predicted_iou > self.rank_threshold and (
            may_be_absent or entry.object_score > 0
        )


def _without(entries: Iterable[MemoryEntry], others: list[MemoryEntry]) -> list[MemoryEntry]:
    taken = set(others)
    return [e for e in entries if e not in taken]


class SeenMaps:
    """What a target attends to, as it lies in the target's view: a map of another view is resampled
    when it is first read in this one, and kept while it is read.

    Attributes:
        shares: of the view, see `View`.
    """

    def __init__(self) -> None:
        self.shares: tuple[float, ...] = ()
        self._maps: dict[MemoryEntry, Tensor] = {}

    def look(self, entries: Sequence[MemoryEntry], view: View) -> list[MemoryEntry]:
        """Go on to a view and to what is read in it; returns what must be `put` first."""
        kept = self._maps if view.shares == self.shares else {}
        self.shares = view.shares
        own = {e: e.features for e in entries if e.view.shares == self.shares}
        self._maps = own | {e: kept[e] for e in entries if e in kept}
        return [e for e in entries if e not in self._maps]

    def put(self, entry: MemoryEntry, features: Tensor) -> None:
        """Keep an entry's map as it lies in the view."""
        self._maps[entry] = features

    def of(self, entries: Iterable[MemoryEntry]) -> list[Tensor]:
        """The maps of some entries in the view."""
        return [self._maps[e] for e in entries]

    def tensors(self) -> list[Tensor]:
        """All tensors held."""
        return list(self._maps.values())


def batch_recalls(
    recalls: Sequence[Recall], views: Sequence[View], seen: Sequence[SeenMaps]
) -> MemorySelection:
    """Stack the recalls of several targets, as they lie in the targets' views; all must have the
    same `layout`.

    Args:
        recalls: one per target.
        views: where the targets are looked for.
        seen: what is kept of their maps.
    """
    first = recalls[0]
    device = first.memories[0].features.device
    distances = torch.tensor([r.distances for r in recalls], dtype=torch.float32).to(
        device, non_blocking=True
    )
    return MemorySelection(
        features=_seen_from([r.memories for r in recalls], views, seen),
        slots=first.slots,
        pointers=[
            torch.stack([e.pointer for e in entries])
            for entries in zip(*(r.pointers for r in recalls), strict=True)
        ],
        distances=distances.unbind(1),
    )


def _seen_from(
    rows: Sequence[Sequence[MemoryEntry]], views: Sequence[View], seen: Sequence[SeenMaps]
) -> list[Tensor]:
    """Maps (B, h·w, C_mem), one tensor for each column of B rows of entries, as they lie in the
    rows' views; between cells they are interpolated, and beyond the view that an entry was made in
    its edge goes on.
    """
    missing = [
        (maps, entry)
        for row, view, maps in zip(rows, views, seen, strict=True)
        for entry in maps.look(row, view)
    ]
    if missing:
        features = torch.stack([entry.features for _, entry in missing])
        old = torch.tensor([entry.view.shares for _, entry in missing])
        new = torch.tensor([maps.shares for maps, _ in missing])
        moved = resample_maps(features, old, new).to(features.dtype)
        for (maps, entry), x in zip(missing, moved, strict=True):
            maps.put(entry, x.clone())
    columns = zip(*(maps.of(row) for row, maps in zip(rows, seen, strict=True)), strict=True)
    return [torch.stack(column) for column in columns]


def resample_maps(maps: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Memory maps (B, h·w, C) of `old` views as they lie in `new` ones, in float32.

    Args:
        maps: of square maps, h = w.
        old: (B, 4) x, y, width and height as shares of the frame's sides.
        new: the same.
    """
    side = math.isqrt(maps.shape[1])
    centers = (torch.arange(side) + 0.5) / side
    places = new[:, None, :2] + centers[:, None] * new[:, None, 2:]
    grid = (2 * (places - old[:, None, :2]) / old[:, None, 2:] - 1).to(
        maps.device, non_blocking=True
    )
    x, y = grid[:, None, :, 0], grid[:, :, None, 1]
    grid = torch.stack([x.expand(-1, side, -1), y.expand(-1, -1, side)], dim=-1)
    square = maps.float().transpose(1, 2).unflatten(2, (side, side))
    seen = F.grid_sample(square, grid, padding_mode="border", align_corners=False)
    return seen.flatten(2).transpose(1, 2)
