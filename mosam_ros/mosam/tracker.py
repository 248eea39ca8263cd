"""The streaming tracker: one frame in, one result out, several targets, constant cost."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mosam_ros.mosam.checkpoints import LoadedModel
from mosam_ros.mosam.memory import MemoryBank, MemoryEntry, Recall, Sam2Memory, batch_recalls
from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import (
    Box,
    FrameResult,
    RejectedPrompt,
    StageSeconds,
    TargetResult,
    TargetState,
)
from mosam_ros.mosam.sam2_model import (
    BOX_FIRST,
    BOX_LAST,
    LOGIT_LIMIT,
    ImageFeatures,
    PointPrompts,
    Prediction,
    Sam2Model,
)

MAX_TARGET_ID = 65535
"""Ids are the values of a 16-bit label image; 0 is no target."""


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of the tracker.

    Attributes:
        lost_after: frames without the target after which OCCLUDED becomes LOST.
        max_prompted_frames: prompted frames remembered per target, the first one always.
    """

    lost_after: int = 30
    max_prompted_frames: int = 4


@dataclass
class _Target:
    """All state of one target between frames."""

    target_id: int
    label: str
    bank: MemoryBank
    prompt: Prompt | None = None
    frames_since_seen: int = 0

    @property
    def is_new(self) -> bool:
        return not self.bank.prompted


@dataclass(frozen=True)
class _Group:
    """Targets decoded in one batch, and what came out; row b belongs to `targets[b]`."""

    targets: list[_Target]
    prediction: Prediction
    memory: Tensor


class MosamTracker:
    """Tracks any number of targets through a stream of frames.

    Targets are independent: each has its own memory, and adding, refining or removing one leaves
    the masks of the others as they were.

    Args:
        loaded: the model, its device and its precision, from `load_model`.
        config: settings.

    Example:
        tracker = MosamTracker(load_model("nano"))
        cup = tracker.add(Prompt.from_box(40, 60, 120, 150), label="cup")
        for frame in video:
            result = tracker.track(frame)
    """

    def __init__(self, loaded: LoadedModel, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._loaded = loaded
        self._model: Sam2Model = loaded.model
        self._policy = Sam2Memory(self._model.num_memory_slots, self._model.num_pointers)
        self._memory_dtype = torch.float16 if loaded.precision == torch.float16 else torch.bfloat16
        self._targets: dict[int, _Target] = {}
        self._last_id = 0
        self._frame_index = 0

    @property
    def target_ids(self) -> tuple[int, ...]:
        """Ids of all targets, in the order in which they were added."""
        return tuple(self._targets)

    def add(self, prompt: Prompt, label: str = "", target_id: int | None = None) -> int:
        """Track a new target from the next frame on.

        Args:
            prompt: where the target is in the next frame given to `track`.
            label: a name that comes back in every result.
            target_id: 1 … 65535; None takes the next one that was never used.

        Returns:
            The target's id.

        Raises:
            PromptError: the id is in use or out of range.
        """
        target_id = self._next_id() if target_id is None else target_id
        if not 1 <= target_id <= MAX_TARGET_ID:
            raise PromptError(f"target id {target_id} is not in 1..{MAX_TARGET_ID}")
        if target_id in self._targets:
            raise PromptError(
                f"target id {target_id} is in use: refine that target, or remove it first"
            )
        self._last_id = max(self._last_id, target_id)
        bank = MemoryBank(self.config.max_prompted_frames, self._model.num_pointers)
        self._targets[target_id] = _Target(target_id, label, bank, prompt)
        return target_id

    def _next_id(self) -> int:
        if self._last_id < MAX_TARGET_ID:
            return self._last_id + 1
        free = set(range(1, MAX_TARGET_ID + 1)) - self._targets.keys()
        if not free:
            raise PromptError("all target ids are in use: remove a target first")
        return min(free)

    def refine(self, target_id: int, prompt: Prompt) -> None:
        """Correct a target in the next frame: points and boxes correct the mask tracked there, a
        mask replaces it.

        Raises:
            PromptError: there is no such target.
        """
        self._find(target_id).prompt = prompt

    def remove(self, target_id: int) -> None:
        """Forget a target.

        Raises:
            PromptError: there is no such target.
        """
        del self._targets[self._find(target_id).target_id]

    def clear(self) -> None:
        """Forget all targets."""
        self._targets.clear()

    def _find(self, target_id: int) -> _Target:
        if target_id not in self._targets:
            known = ", ".join(map(str, self._targets)) or "none"
            raise PromptError(f"there is no target {target_id} (targets: {known})")
        return self._targets[target_id]

    def memory_bytes(self) -> int:
        """Bytes of all tensors kept between frames."""
        tensors = [x for target in self._targets.values() for x in target.bank.tensors()]
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
        return sum(storages.values())

    def track(self, frame: NDArray[np.uint8]) -> FrameResult:
        """Find all targets in the next frame of the stream.

        Args:
            frame: (height, width, 3) uint8 RGB; the size may change between frames.

        Returns:
            Every target's mask, box, state and scores, and the prompts that did not fit.

        Raises:
            ValueError: `frame` is not an RGB image.
        """
        height, width = _require_rgb(frame)
        clock = _StageClock(self._loaded.device)
        rejected = self._fit_prompts(height, width)
        results: tuple[TargetResult, ...] = ()
        if self._targets:
            with torch.inference_mode(), self._loaded.autocast():
                results = self._track_targets(frame, clock)
        result = FrameResult(
            self._frame_index, (height, width), results, tuple(rejected), clock.read()
        )
        self._frame_index += 1
        return result

    def _fit_prompts(self, height: int, width: int) -> list[RejectedPrompt]:
        """Cut pending prompts to the frame; drop those that lie outside it, with new targets."""
        rejected = []
        for target in list(self._targets.values()):
            if target.prompt is None:
                continue
            try:
                target.prompt = target.prompt.fit(height, width)
            except PromptError as error:
                rejected.append(RejectedPrompt(target.target_id, str(error)))
                target.prompt = None
                if target.is_new:
                    del self._targets[target.target_id]
        return rejected

    def _track_targets(
        self, frame: NDArray[np.uint8], clock: _StageClock
    ) -> tuple[TargetResult, ...]:
        size = frame.shape[:2]
        pixels = torch.from_numpy(frame if frame.flags.writeable else frame.copy())
        features = self._model.encode_image(self._model.normalize(pixels[None]))
        clock.mark("encode")
        decoded = [(g, self._decode(g, features, size)) for g in self._group_targets()]
        clock.mark("decode")
        groups = [self._remember(targets, p, features) for targets, p in decoded]
        clock.mark("memory")
        readout = _Readout.of([g.prediction for g in groups], size)
        results = self._conclude(groups, readout)
        return tuple(results[target_id] for target_id in self._targets)

    def _group_targets(self) -> Iterable[list[_Target]]:
        """Targets that can share a batch: equal memories and the same kind of prompt."""
        groups: dict[Hashable, list[_Target]] = {}
        for target in self._targets.values():
            layout = None if target.is_new else self._recall(target).layout
            groups.setdefault((layout, _prompt_kind(target.prompt)), []).append(target)
        return groups.values()

    def _recall(self, target: _Target) -> Recall:
        return self._policy.recall(target.bank, self._frame_index)

    def _decode(
        self, targets: list[_Target], image: ImageFeatures, size: tuple[int, int]
    ) -> Prediction:
        """Decode one group: from its masks, its points, its memory, or memory and points."""
        features = image.expand(len(targets))
        prompts = [t.prompt for t in targets if t.prompt is not None]
        if prompts and prompts[0].mask is not None:
            return self._model.mask_prompt(features, self._mask_batch(prompts))[0]
        points = self._point_batch(prompts, size) if prompts else None
        if targets[0].is_new:
            assert points is not None
            candidates = self._model.decode(features, self._model.without_memory(features), points)
            return self._model.choose(candidates, prompts[0].num_points)
        recalls = batch_recalls([self._recall(t) for t in targets])
        conditioned = self._model.attend_to_memory(features, recalls)
        tracked = self._model.choose(self._model.decode(features, conditioned), 0)
        if points is None:
            return tracked
        previous = tracked.mask_logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        corrected = self._model.decode(features, conditioned, points, previous)
        return self._model.choose(corrected, prompts[0].num_points)

    def _mask_batch(self, prompts: list[Prompt]) -> Tensor:
        """Masks (B, 1, S, S) of 0 and 1 at the model's size."""
        masks = torch.from_numpy(np.stack([p.mask for p in prompts if p.mask is not None]))
        masks = masks[:, None].to(self._loaded.device).float()
        size = (self._model.image_size, self._model.image_size)
        if masks.shape[-2:] == size:
            return masks
        soft = F.interpolate(masks, size=size, mode="bilinear", align_corners=False, antialias=True)
        return (soft >= 0.5).float()

    def _point_batch(self, prompts: list[Prompt], size: tuple[int, int]) -> PointPrompts:
        """Box corners, then points, in pixels of the model's image."""
        scale = self._model.image_size / np.array(size[::-1], np.float32)
        rows, labels = [], []
        for prompt in prompts:
            corners = np.zeros((0, 2)) if prompt.box is None else prompt.box.reshape(2, 2)
            marks = [] if prompt.box is None else [BOX_FIRST, BOX_LAST]
            rows.append(np.concatenate([corners, prompt.points]) * scale)
            labels.append([*marks, *prompt.labels])
        device = self._loaded.device
        return PointPrompts(
            torch.tensor(np.stack(rows), dtype=torch.float32, device=device),
            torch.tensor(np.stack(labels), dtype=torch.int32, device=device),
        )

    def _remember(
        self, targets: list[_Target], prediction: Prediction, image: ImageFeatures
    ) -> _Group:
        """Encode the group's memories; masks that a user prompted are hardened, as in SAM 2."""
        features = image.expand(len(targets))
        prompted = targets[0].prompt is not None
        memory = self._model.encode_memory(features, prediction, binarize=prompted)
        return _Group(targets, prediction, memory)

    def _conclude(self, groups: list[_Group], readout: _Readout) -> dict[int, TargetResult]:
        """Store memories and write results, now that scores are on the host."""
        results = {}
        row = 0
        for group in groups:
            for index, target in enumerate(group.targets):
                self._store(target, group, index, readout, row)
                results[target.target_id] = self._result(target, readout, row)
                row += 1
        return results

    def _store(
        self, target: _Target, group: _Group, index: int, readout: _Readout, row: int
    ) -> None:
        entry = MemoryEntry(
            self._frame_index,
            group.memory[index].to(self._memory_dtype, copy=True),
            group.prediction.pointer[index].clone(),
            float(readout.predicted_iou[row]),
            float(readout.object_score[row]),
        )
        if target.prompt is not None:
            target.bank.add_prompted(entry)
            target.prompt = None
        else:
            target.bank.add(entry)

    def _result(self, target: _Target, readout: _Readout, row: int) -> TargetResult:
        mask = readout.masks[row]
        box, centroid, area = _describe(mask)
        seen = area > 0 and readout.object_score[row] > 0
        target.frames_since_seen = 0 if seen else target.frames_since_seen + 1
        return TargetResult(
            target_id=target.target_id,
            label=target.label,
            state=self._state(target),
            mask=mask,
            box=box,
            centroid=centroid,
            area=area,
            predicted_iou=float(readout.predicted_iou[row]),
            object_score=float(readout.object_score[row]),
            frames_since_seen=target.frames_since_seen,
            mask_logits=readout.mask_logits[row],
        )

    def _state(self, target: _Target) -> TargetState:
        if target.frames_since_seen == 0:
            return TargetState.TRACKED
        lost = target.frames_since_seen > self.config.lost_after
        return TargetState.LOST if lost else TargetState.OCCLUDED


@dataclass(frozen=True)
class _Readout:
    """All groups' predictions on the host, fetched in one go; one row per target."""

    masks: NDArray[np.bool_]
    mask_logits: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    object_score: NDArray[np.float32]

    @classmethod
    def of(cls, predictions: list[Prediction], size: tuple[int, int]) -> _Readout:
        logits = torch.cat([p.mask_logits for p in predictions])
        scores = torch.cat([p.object_score[:, 0] for p in predictions])
        ious = torch.cat([p.predicted_iou for p in predictions])
        masks = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0] > 0
        fetched = [x.to("cpu", non_blocking=True) for x in (masks, logits[:, 0])]
        numbers = torch.stack([ious.float(), scores.float()]).cpu().numpy()
        return cls(fetched[0].numpy(), fetched[1].numpy(), numbers[0], numbers[1])


@dataclass
class _StageClock:
    """Measures stages without waiting for the device: on CUDA by events read at the end."""

    device: torch.device
    marks: list[tuple[str, float | torch.cuda.Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._start = time.perf_counter()
        self.mark("start")

    def mark(self, stage: str) -> None:
        """The stage ends here."""
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((stage, event))
        else:
            self.marks.append((stage, time.perf_counter()))

    def read(self) -> StageSeconds:
        """Seconds per stage; the device has caught up by now."""
        stages = {
            name: _elapsed(before, after)
            for (_, before), (name, after) in zip(self.marks[:-1], self.marks[1:], strict=True)
        }
        return StageSeconds(**stages, total=time.perf_counter() - self._start)


def _elapsed(before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> float:
    if not isinstance(before, float):
        assert not isinstance(after, float)
        return before.elapsed_time(after) / 1000.0
    assert isinstance(after, float)
    return after - before


def _prompt_kind(prompt: Prompt | None) -> tuple[str, int]:
    """Prompts of one kind can share a batch."""
    if prompt is None:
        return "none", 0
    if prompt.mask is not None:
        return "mask", 0
    return "points", prompt.num_points


def _require_rgb(frame: NDArray[np.uint8]) -> tuple[int, int]:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ValueError(
            f"a frame is (height, width, 3) uint8 RGB, not {frame.shape} {frame.dtype}"
        )
    return frame.shape[0], frame.shape[1]


def _describe(mask: NDArray[np.bool_]) -> tuple[Box | None, tuple[float, float] | None, int]:
    """Tight box, centroid in pixels, and area of a mask (height, width)."""
    columns = np.count_nonzero(mask, axis=0)
    rows = np.count_nonzero(mask, axis=1)
    area = int(columns.sum())
    if area == 0:
        return None, None, 0
    x, y = np.flatnonzero(columns), np.flatnonzero(rows)
    box = Box(int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1))
    centroid = (
        float(columns @ np.arange(len(columns)) / area),
        float(rows @ np.arange(len(rows)) / area),
    )
    return box, centroid, area
