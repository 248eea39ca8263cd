"""The bounded memory of one target, and the rules that choose what a frame attends to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mosam_ros.mosam.sam2_model import MemorySelection

MAX_POINTER_DISTANCE = 1000
"""Frames; the time code of a pointer to the prompted frame stops growing here."""


@dataclass(frozen=True)
class MemoryEntry:
    """What is remembered of one target in one frame.

    Attributes:
        frame_index: of the frame.
        features: (h·w, C_mem), the encoded mask and image.
        pointer: (C,), the object pointer.
        predicted_iou: 0..1, the model's estimate for that frame's mask.
        object_score: logit; positive when the target was seen.
    """

    frame_index: int
    features: Tensor
    pointer: Tensor
    predicted_iou: float
    object_score: float


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

    def tensors(self) -> list[Tensor]:
        """All tensors held."""
        return [x for e in (*self.prompted, *self.recent) for x in (e.features, e.pointer)]


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


def batch_recalls(recalls: Sequence[Recall]) -> MemorySelection:
    """Stack the recalls of several targets; all must have the same `layout`."""
    first = recalls[0]
    device = first.memories[0].features.device
    distances = torch.tensor([r.distances for r in recalls], dtype=torch.float32).to(
        device, non_blocking=True
    )
    return MemorySelection(
        features=[torch.stack(row) for row in _columns([r.memories for r in recalls], "features")],
        slots=first.slots,
        pointers=[torch.stack(row) for row in _columns([r.pointers for r in recalls], "pointer")],
        distances=distances.unbind(1),
    )


def _columns(rows: Sequence[Sequence[MemoryEntry]], attribute: str) -> list[list[Tensor]]:
    return [[getattr(entry, attribute) for entry in column] for column in zip(*rows, strict=True)]
