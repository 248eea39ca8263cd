"""The streaming tracker: one frame in, one result out, several targets, constant cost."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mosam_ros.mosam.checkpoints import LoadedModel, load_motion_encoders
from mosam_ros.mosam.memory import (
    MemoryBank,
    MemoryEntry,
    MemoryPolicy,
    Overview,
    Recall,
    Sam2Memory,
    SeenMaps,
    TemporalSelection,
    batch_recalls,
)
from mosam_ros.mosam.motion.encoders import MotionEncoders, features_at
from mosam_ros.mosam.motion.flow import (
    DenseMotion,
    FlowEstimator,
    dense_motion,
    make_flow,
    target_region,
)
from mosam_ros.mosam.motion.forecast import Forecaster
from mosam_ros.mosam.motion.keypoints import MaskGeometry, key_points, require_key_point_count
from mosam_ros.mosam.motion.preference import forecast_preference
from mosam_ros.mosam.presence import AS_EXPECTED, USUAL_FRAMES, Displacement, Presence
from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import (
    Box,
    FrameResult,
    MotionPrompt,
    RejectedPrompt,
    StageSeconds,
    TargetResult,
    TargetState,
)
from mosam_ros.mosam.sam2_model import (
    BOX_FIRST,
    BOX_LAST,
    LOGIT_LIMIT,
    NO_OBJ_SCORE,
    POSITIVE,
    Candidates,
    ImageFeatures,
    PointPrompts,
    Prediction,
    Sam2Model,
)
from mosam_ros.mosam.views import LEAST_CONTEXT, View, choose_view

SUDDEN_LOSS = 0.5
"""A mask smaller than this share of the target's last ones teaches no motion."""

RECENT_FRAMES = 5
"""So many last masks say whether one has suddenly lost area."""

MAX_TARGET_ID = 65535
"""Ids are the values of a 16-bit label image; 0 is no target."""

SPARSE_ENCODERS = ("linear", "trained")
"""Names for `MotionConfig.sparse_encoder`."""

EXPECTED_FRAMES = 5
"""For so many frames in sight after one that taught motion a target is held to its forecast, then
for as long as its mask is suspect."""

LONG_GAP = 2.0
"""Seconds without a frame after which the last ones say nothing about where a target is."""

SLOW_INTERVAL = 0.15
"""Seconds between frames in which a target may move far: one that is hidden or has no forecast is
not looked for in its view, and none is held to its forecast."""

WARM_UP_FRAMES = 4
"""Enough for a target to be given a motion prompt."""

FRAME_INTERVAL = 1 / 30
"""Seconds between frames that come without stamps."""


@dataclass(frozen=True)
class MotionConfig:
    """Motion-guided prompting (paper, section 3.2); its parts can be switched off one by one.

    Attributes:
        sparse: prompt with the forecast key points, if the target moves.
        dense: prompt with the forecast box, from optical flow where it holds.
        num_key_points: 1, 5, 9, … (figure 4a).
        sparse_encoder: how key points go on: `linear`, or by the `trained` motion encoder.
        flow: the optical flow method, one of `FLOW_METHODS`.
        flow_interval: frames between the two images of the flow (figure 4b).
        reliable_iou: frames with a lower predicted IoU teach no motion and prompt nothing, unless
            the user prompted the target in them.
        prompt_iou: frames with a lower predicted IoU prompt nothing, though they may teach motion:
            a mask that lacks a part of the target would be held to what it has. With 0, as the
            paper writes it, `reliable_iou` alone decides.
        max_overlap: key points are given for targets whose forecast box overlaps less (IoU) with
            where they were last seen. As the paper writes it, with 1, for all; but where a target
            hardly moves they say what the memory knows.
        min_area_ratio: a target whose mask is smaller than this share of its usual area, the median
            of its last `USUAL_FRAMES` masks, is taken to be partly hidden and is not prompted: the
            box of what is seen of it would keep it at that. With 0, as the paper writes it, it is.
        min_iou_ratio: the same for its predicted IoU, which falls when the target goes behind or
            beside something else: a prompt would hold the mask on that.
    """

    sparse: bool = True
    dense: bool = True
    num_key_points: int = 5
    sparse_encoder: str = "linear"
    flow: str = "dis"
    flow_interval: int = 1
    reliable_iou: float = 0.6
    prompt_iou: float = 0.75
    max_overlap: float = 0.8
    min_area_ratio: float = 0.7
    min_iou_ratio: float = 0.96

    def __post_init__(self) -> None:
        require_key_point_count(self.num_key_points)
        if self.flow_interval < 1:
            raise ValueError(f"flow_interval is 1 or more frames, not {self.flow_interval}")
        if self.sparse_encoder not in SPARSE_ENCODERS:
            raise ValueError(
                f"sparse_encoder is {' or '.join(SPARSE_ENCODERS)}, not {self.sparse_encoder!r}"
            )

    @property
    def trained(self) -> bool:
        """Whether the trained motion encoders are needed."""
        return self.sparse_encoder == "trained" or (self.dense and self.flow == "feature")

    @property
    def prompts(self) -> bool:
        """Whether frames are prompted at all."""
        return self.sparse or self.dense


@dataclass(frozen=True)
class MemoryConfig:
    """Spatial-temporal memory selection (paper, section 3.3); either part can be switched off.

    Attributes:
        temporal: choose the remembered frames by their scores, else SAM 2's newest six.
        spatial: remember unsure pixels as background.
        iou_threshold, occlusion_threshold, rank_threshold, interval, window, keep_absent,
            keep_unsure, min_score_ratio: see `TemporalSelection`. The paper has 0.6 for
            `rank_threshold`; a target that is hard to make out has no such frames, is remembered by
            its prompted ones alone, and drifts away.
        foreground_threshold: probability below which a pixel is unsure.
        max_prompted_frames: prompted frames remembered per target, the first one always.
    """

    temporal: bool = True
    spatial: bool = True
    iou_threshold: float = 0.7
    occlusion_threshold: float = 0.0
    rank_threshold: float = 0.4
    interval: int = 1
    window: int = 30
    keep_absent: int = 2
    keep_unsure: bool = True
    min_score_ratio: float = 0.3
    foreground_threshold: float = 0.5
    max_prompted_frames: int = 4

    def __post_init__(self) -> None:
        for name in ("interval", "window", "max_prompted_frames"):
            if (frames := getattr(self, name)) < 1:
                raise ValueError(f"{name} is 1 or more frames, not {frames}")
        if self.keep_absent < 0:
            raise ValueError(f"keep_absent is 0 or more frames, not {self.keep_absent}")


@dataclass(frozen=True)
class ViewConfig:
    """Looking at small targets more closely; not in the paper.

    Attributes:
        max_zoom: a target's view is at least the frame's sides over this; with 1 or less every
            target is looked for in the whole frame, as in SAM 2; 0: what the model was trained
            for, which is 1 unless `LoadedModel` says otherwise. Every view costs a run of the image
            encoder.
        context: sides of a view in extents of its target.

    A target that is OCCLUDED is looked for where it went out of sight and where it is expected, one
    that is LOST in the whole frame.
    """

    max_zoom: float = 0.0
    context: float = 2.2

    def __post_init__(self) -> None:
        if self.max_zoom < 0:
            raise ValueError(f"max_zoom is 0 or more, not {self.max_zoom}")
        if self.context < LEAST_CONTEXT:
            raise ValueError(
                f"context is {LEAST_CONTEXT:g} or more extents of the target, not {self.context}"
            )


@dataclass(frozen=True)
class TrackerConfig:
    """Settings of the tracker: full MoSAM unless told otherwise.

    Attributes:
        motion: motion-guided prompting.
        memory: memory selection.
        view: looking at small targets more closely.
        lost_after: frames without the target after which OCCLUDED becomes LOST.
        doubt_frames: a target is OCCLUDED, and has no mask, from so many frames in a row on with an
            object score far below what is usual of it, or with a lower one out of place
            (`Presence`); with 0, as in SAM 2, it has one whenever its object score is above 0.
        max_targets: every target costs time and memory; more are refused.
    """

    motion: MotionConfig = MotionConfig()
    memory: MemoryConfig = MemoryConfig()
    view: ViewConfig = ViewConfig()
    lost_after: int = 30
    doubt_frames: int = 4
    max_targets: int = 32

    def settings(self) -> dict[str, Any]:
        """Every setting by its name, as in `motion.flow`."""
        return dict(_settings(self))

    @classmethod
    def sam2(cls) -> TrackerConfig:
        """Plain SAM 2: no motion prompts, no memory selection, whole frames, every mask shown."""
        motion = MotionConfig(sparse=False, dense=False)
        memory = MemoryConfig(temporal=False, spatial=False)
        return cls(motion, memory, ViewConfig(max_zoom=1.0), doubt_frames=0)


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            yield from _settings(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value


LIVE_SETTINGS = frozenset(
    {
        "motion.sparse",
        "motion.reliable_iou",
        "motion.prompt_iou",
        "motion.max_overlap",
        "motion.min_area_ratio",
        "motion.min_iou_ratio",
        "memory.spatial",
        "memory.iou_threshold",
        "memory.occlusion_threshold",
        "memory.rank_threshold",
        "memory.interval",
        "memory.keep_absent",
        "memory.keep_unsure",
        "memory.min_score_ratio",
        "memory.foreground_threshold",
        "view.max_zoom",
        "view.context",
        "lost_after",
        "doubt_frames",
        "max_targets",
    }
)
"""What `MosamTracker.reconfigure` can change: settings that no target's memory is built for."""


@dataclass
class _Target:
    """All state of one target between frames.

    `forecast`, `view` and `is_sought`, whether it may be anywhere in the frame, are for the frame
    being tracked. `boxes`, `areas`, in pixels, and `ious`, predicted, are those of the last masks
    in which the target was TRACKED, reliable or not: a target that stays small, or hard to make
    out, is soon trusted again. `frames_unsure` counts the frames since the last reliable one, and
    is `EXPECTED_FRAMES` at once where it was out of sight.
    """

    target_id: int
    label: str
    bank: MemoryBank
    forecaster: Forecaster
    presence: Presence
    prompt: Prompt | None = None
    seen_maps: SeenMaps = field(default_factory=SeenMaps)
    forecast: MotionPrompt | None = None
    view: View | None = None
    is_sought: bool = False
    was_reliable: bool = False
    frames_unsure: int = EXPECTED_FRAMES
    boxes: deque[NDArray[np.float64]] = field(default_factory=lambda: deque(maxlen=USUAL_FRAMES))
    areas: deque[int] = field(default_factory=lambda: deque(maxlen=USUAL_FRAMES))
    ious: deque[float] = field(default_factory=lambda: deque(maxlen=USUAL_FRAMES))

    @property
    def is_new(self) -> bool:
        return not self.bank.prompted

    @property
    def is_hidden(self) -> bool:
        return self.presence.state is not TargetState.TRACKED

    @property
    def trusted_forecast(self) -> MotionPrompt | None:
        """The forecast, if it is to be trusted and the target is in sight."""
        forecast = self.forecast
        trusted = forecast is not None and forecast.valid and self.was_reliable
        return forecast if trusted and not self.is_hidden and self.prompt is None else None

    def choose_view(
        self, image_size: tuple[int, int], elapsed: float, config: ViewConfig, max_zoom: float
    ) -> None:
        """Where to look for it in the next frame, `elapsed` seconds after the last one."""
        boxes = self._boxes_to_see()
        self.is_sought = not self.is_new and self._may_be_anywhere(boxes, elapsed)
        if max_zoom <= 1 or self.is_sought:
            self.view = View.whole(image_size)
        elif boxes:
            corners = np.stack(boxes)
            box = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
            self.view = choose_view(self.view, box, image_size, config.context, max_zoom)
        else:
            last = View.whole(image_size) if self.view is None else self.view
            self.view = last.resized(image_size)

    def _may_be_anywhere(self, boxes: list[NDArray[np.floating]], elapsed: float) -> bool:
        if self.prompt is not None:
            return not boxes and not self._is_shown_in_view()
        is_anywhere = self.view is None or self.view.is_whole
        if self.presence.state is TargetState.LOST or (is_anywhere and not boxes):
            return True
        foreseen = self.forecast is not None and self.forecast.valid and not self.is_hidden
        return elapsed > SLOW_INTERVAL and not foreseen

    def _is_shown_in_view(self) -> bool:
        """Whether the user corrects, in its last view, a target that is in sight."""
        if self.view is None or self.is_hidden or self.prompt is None:
            return False
        points = self.prompt.points[self.prompt.labels == POSITIVE]
        return all(self.view.contains(np.concatenate([x, x + 1]), 0.0) for x in points)

    def _boxes_to_see(self) -> list[NDArray[np.floating]]:
        """What is known of where it is: its last box, its forecast and what the user says; nothing
        where a first prompt does not tell its extent.
        """
        prompt = self.prompt
        if prompt is not None and prompt.mask is not None:
            return [MaskGeometry.of(prompt.mask[None]).boxes[0]]
        found_anew = self.is_hidden and prompt is not None
        boxes: list[NDArray[np.floating]] = []
        if self.boxes and not found_anew:
            boxes += [self.boxes[-1], self._usual_box()]
        if prompt is not None and prompt.box is not None:
            boxes.append(prompt.box)
        if boxes and prompt is not None:
            positive = prompt.points[prompt.labels == POSITIVE]
            boxes += [np.concatenate([point, point + 1]) for point in positive]
        forecast = self.forecast if self.is_hidden else self.trusted_forecast
        if boxes and forecast is not None and prompt is None:
            boxes.append(forecast.box)
        return boxes

    def _usual_box(self) -> NDArray[np.float64]:
        """A box of its usual size around the middle of its last one, so that a target of which half
        is hidden is not looked at more closely.
        """
        boxes = np.array(self.boxes)
        half = np.median(boxes[:, 2:] - boxes[:, :2], axis=0) / 2
        middle = (boxes[-1, :2] + boxes[-1, 2:]) / 2
        return np.concatenate([middle - half, middle + half])

    def displacement(
        self, box: NDArray[np.float64], image_size: tuple[int, int], elapsed: float
    ) -> Displacement:
        """How far a mask's box is from the forecast, in sizes of the target, or in errors to be
        expected of a forecast if those are larger; none if the target is not expected there, as in
        a frame that comes `elapsed` seconds after the last one, when that is long.
        """
        is_expected = self.frames_unsure < EXPECTED_FRAMES or self.presence.is_suspect
        if self.forecast is None or not self.boxes or not is_expected or elapsed > SLOW_INTERVAL:
            return AS_EXPECTED
        usual = self._usual_box()
        size = math.sqrt((usual[2] - usual[0]) * (usual[3] - usual[1]))
        scale = max(size, self.forecaster.one_frame_error())
        found, expected, before = (x.tolist() for x in (box, self.forecast.box, self.boxes[0]))
        return Displacement.of(found, expected, before, image_size, scale)

    def usual_area(self, num_frames: int) -> float:
        """Pixels, the median of so many last masks; 0 if there are none."""
        return median(list(self.areas)[-num_frames:]) if self.areas else 0.0

    def may_prompt(self, motion: MotionConfig) -> bool:
        """Whether the last mask was sure enough, and neither smaller nor less sure than usual."""
        least_area = motion.min_area_ratio * self.usual_area(USUAL_FRAMES)
        least_iou = max(motion.prompt_iou, motion.min_iou_ratio * median(self.ious))
        return self.areas[-1] >= least_area and self.ious[-1] >= least_iou

    def forget_masks(self) -> None:
        """Start anew with what is usual of the target's masks."""
        self.boxes.clear()
        self.areas.clear()
        self.ious.clear()


@dataclass(frozen=True)
class _Guide:
    """A forecast to prompt a target with, and which parts of it are given."""

    forecast: MotionPrompt
    with_box: bool
    with_key_points: bool

    @property
    def labels(self) -> list[int]:
        """Of the points that `coordinates` gives."""
        points = [POSITIVE] * len(self.forecast.key_points)
        return [BOX_FIRST, BOX_LAST] * self.with_box + points * self.with_key_points

    def coordinates(self, view: View) -> NDArray[np.float32]:
        """Box corners and key points (P, 2) in pixels of the frame, cut to the view."""
        corners = self.forecast.box.reshape(2, 2) - np.array([[0.0], [1.0]], np.float32)
        parts = [corners] * self.with_box + [self.forecast.key_points] * self.with_key_points
        return np.concatenate(parts).clip(view.origin, view.last_pixel)


@dataclass(frozen=True)
class _Group:
    """A batch and what came out; row b belongs to `batch.targets[b]`."""

    batch: _Batch
    prediction: Prediction
    memory: Tensor
    overview: Overview | None


class MosamTracker:
    """Tracks any number of targets through a stream of frames.

    Targets are independent: each has its own memory, and adding, refining or removing one leaves
    the masks of the others as they were.

    Args:
        loaded: the model, its device and its precision, from `load_model`.
        config: settings.
        encoders: the motion encoders for this model, from `load_motion_encoders`; None for those
            that come with the model, if the settings ask for any.

    Raises:
        CheckpointError: the settings ask for motion encoders and there are none.

    Example:
        tracker = MosamTracker(load_model("nano"))
        cup = tracker.add(Prompt.from_box(40, 60, 120, 150), label="cup")
        for frame in video:
            result = tracker.track(frame)
    """

    def __init__(
        self,
        loaded: LoadedModel,
        config: TrackerConfig | None = None,
        encoders: MotionEncoders | None = None,
    ) -> None:
        self.config = config or TrackerConfig()
        if encoders is None and self.config.motion.trained:
            encoders = load_motion_encoders(loaded)
        self._encoders = encoders
        self._loaded = loaded
        self._model: Sam2Model = loaded.model
        self._policy = self._make_policy()
        self._flow = self._make_flow()
        self._past_frames: deque[_PastFrame] = deque(maxlen=self.config.motion.flow_interval)
        self._max_zoom = self._choose_max_zoom()
        self._time = 0.0
        self._image_size = (0, 0)
        self._memory_dtype = torch.float16 if loaded.precision == torch.float16 else torch.bfloat16
        self._targets: dict[int, _Target] = {}
        self._last_id = 0
        self._frame_index = 0

    def empty_copy(self) -> MosamTracker:
        """A tracker without targets, with the same model and settings and a stream of its own."""
        other = copy.copy(self)
        other._past_frames = deque(maxlen=self._past_frames.maxlen)
        other._targets = {}
        return other

    def warm_up(self) -> None:
        """Run every stage once, motion prompts too, so that the first frames are as fast as the
        others: a device compiles and chooses its kernels when they are first used.
        """
        rehearsal = self.empty_copy()
        black = np.zeros((480, 640, 3), np.uint8)
        by_box = rehearsal.add(Prompt.from_box(300, 200, 400, 350))
        rehearsal.track(black)
        rehearsal.remove(by_box)
        for t in range(WARM_UP_FRAMES):
            mask = np.zeros((480, 640), np.bool_)
            mask[150:300, 100 * t + 50 : 100 * t + 150] = True
            if t == 0:
                target_id = rehearsal.add(Prompt.from_mask(mask))
            elif t < WARM_UP_FRAMES - 1:
                rehearsal.refine(target_id, Prompt.from_mask(mask))
            rehearsal.track(black)

    def reconfigure(self, config: TrackerConfig) -> None:
        """Take other settings from the next frame on; the targets stay.

        Raises:
            ValueError: a setting differs that is not one of `LIVE_SETTINGS`.
        """
        before, after = self.config.settings(), config.settings()
        looks_anew = config.view != self.config.view
        fixed = [name for name in after if after[name] != before[name]]
        if fixed := sorted(set(fixed) - LIVE_SETTINGS):
            raise ValueError(f"{', '.join(fixed)} cannot change: make a new tracker")
        self.config = config
        self._policy = self._make_policy()
        self._max_zoom = self._choose_max_zoom()
        for target in self._targets.values():
            target.presence.lost_after = config.lost_after
            target.presence.doubt_frames = config.doubt_frames
            if looks_anew and target.boxes:
                target.view = None

    def _make_policy(self) -> MemoryPolicy:
        memory, model = self.config.memory, self._model
        if not memory.temporal:
            return Sam2Memory(model.num_memory_slots, model.num_pointers)
        return TemporalSelection(
            model.num_memory_slots,
            model.num_pointers,
            memory.iou_threshold,
            memory.occlusion_threshold,
            memory.rank_threshold,
            memory.interval,
            memory.window,
            memory.keep_absent,
            memory.keep_unsure,
            memory.min_score_ratio,
        )

    def _choose_max_zoom(self) -> float:
        """1 for the trained motion encoders, which know whole frames."""
        if self.config.motion.trained:
            return 1.0
        return self.config.view.max_zoom or self._loaded.max_zoom

    def _make_flow(self) -> FlowEstimator | None:
        motion = self.config.motion
        encoder = self._encoders.flow if self._encoders else None
        return make_flow(motion.flow, self._loaded.device, encoder) if motion.dense else None

    @property
    def target_ids(self) -> tuple[int, ...]:
        """Ids of all targets, in the order in which they were added."""
        return tuple(self._targets)

    def add(self, prompt: Prompt, label: str = "", target_id: int | None = None) -> int:
        """Track a new target from the next frame on.

        Args:
            prompt: where the target is in the next frame given to `track`.
            label: a name that comes back in every result.
            target_id: 1 … 65535; None takes the one after the largest so far, and once 65535
                was used the smallest free one.

        Returns:
            The target's id.

        Raises:
            PromptError: the id is in use or out of range, there are `max_targets` already, or all
                points lie off the target.
        """
        prompt.require_target()
        target_id = self.claim_id(target_id)
        memory = self.config.memory
        num_recent = memory.window if memory.temporal else self._model.num_pointers
        self._targets[target_id] = _Target(
            target_id,
            label,
            MemoryBank(memory.max_prompted_frames, num_recent),
            Forecaster(self.config.motion.num_key_points),
            Presence(self.config.lost_after, self.config.doubt_frames),
            prompt,
        )
        return target_id

    def claim_id(self, target_id: int | None = None, taken: Collection[int] = ()) -> int:
        """An id for a new target.

        Args:
            target_id: 1 … 65535; None as in `add`.
            taken: ids in use elsewhere.

        Raises:
            PromptError: the id is in use or out of range, or there are `max_targets` already.
        """
        taken = {*self._targets, *taken}
        if len(taken) >= self.config.max_targets:
            raise PromptError(
                f"there are {len(taken)} targets: remove one first, or raise max_targets"
            )
        return self._take_id(self._next_id(taken) if target_id is None else target_id, taken)

    def _take_id(self, target_id: int, taken: Collection[int]) -> int:
        if not 1 <= target_id <= MAX_TARGET_ID:
            raise PromptError(f"target id {target_id} is not in 1..{MAX_TARGET_ID}")
        if target_id in taken:
            raise PromptError(
                f"target id {target_id} is in use: refine that target, or remove it first"
            )
        self._last_id = max(self._last_id, target_id)
        return target_id

    def rewound(self, target_id: int, time: float) -> MosamTracker:
        """An `empty_copy` with one target and what is still remembered of it from before a frame,
        without its motion. Its state and what is usual of its masks are those of now. What a user
        said of the target in that frame waits for it.

        Args:
            target_id: whose memory is shared; the target itself is not touched.
            time: of that frame, the next one to be given to the copy; seconds.

        Raises:
            PromptError: there is no such target, or it was selected after that frame.
        """
        target = self._find(target_id)
        bank, since = target.bank.before(time), target.bank.since(time)
        prompt = since[0].prompt if since and since[0].time == time else None
        if not bank.prompted and prompt is None:
            raise PromptError(f"target {target_id} was selected after the frame that is meant")
        other = self.empty_copy()
        other._frame_index = since[0].frame_index if since else self._frame_index
        other._time = time - FRAME_INTERVAL
        forecaster = Forecaster(self.config.motion.num_key_points)
        other._targets[target_id] = _Target(
            target_id,
            target.label,
            bank,
            forecaster,
            copy.deepcopy(target.presence),
            prompt,
            view=bank.last_view,
            areas=copy.copy(target.areas),
            ious=copy.copy(target.ious),
        )
        return other

    def adopt(self, other: MosamTracker, target_id: int) -> None:
        """Take over a target from a copy that has tracked it up to the same frame; it takes the
        place of one with the same id.

        Raises:
            PromptError: the other tracker has no such target.
        """
        target = other._find(target_id)
        target.bank.shift_frames(self._frame_index - other._frame_index)
        if not self._past_frames:
            self._past_frames.extend(other._past_frames)
        self._targets[target_id] = target
        other.remove(target_id)

    def _next_id(self, taken: set[int]) -> int:
        if self._last_id < MAX_TARGET_ID:
            return self._last_id + 1
        free = set(range(1, MAX_TARGET_ID + 1)) - taken
        if not free:
            raise PromptError("all target ids are in use: remove a target first")
        return min(free)

    def refine(self, target_id: int, prompt: Prompt) -> None:
        """Correct a target in the next frame: points and boxes correct the mask tracked there, a
        mask replaces it. A prompt that already waits for that frame is kept too.

        Raises:
            PromptError: there is no such target, or both prompts do not go together.
        """
        target = self._find(target_id)
        target.prompt = prompt if target.prompt is None else target.prompt.followed_by(prompt)

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
        targets = self._targets.values()
        tensors = [x for t in targets for x in (*t.bank.tensors(), *t.seen_maps.tensors())]
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
        return sum(storages.values())

    def track(self, frame: NDArray[np.uint8], stamp: float | None = None) -> FrameResult:
        """Find all targets in the next frame of the stream.

        Args:
            frame: (height, width, 3) uint8 RGB; the size may change between frames, which starts
                the targets' motion anew.
            stamp: when the frame was taken, in seconds; None where frames come at a steady 30 Hz.
                A stamp that is not later than the last one starts the targets' motion anew.

        Returns:
            Every target's mask, box, state and scores, and the prompts that did not fit.

        Raises:
            ValueError: `frame` is not an RGB image.
        """
        height, width = _require_rgb(frame)
        clock = _StageClock(self._loaded.device)
        rejected = self._fit_prompts(height, width)
        self._advance_time(self._time + FRAME_INTERVAL if stamp is None else stamp, (height, width))
        index = self._frame_index
        try:
            results = self._track_targets(frame, clock)
        except Exception:
            self._drop_prompts()
            raise
        finally:  # no other frame's memories may have the index of one that failed half way
            self._frame_index += 1
        return FrameResult(index, (height, width), results, tuple(rejected), clock.read())

    def _advance_time(self, time: float, size: tuple[int, int]) -> None:
        """Go on to the time of this frame and say where each target is expected in it."""
        if time <= self._time:
            for target in self._targets.values():
                target.bank.shift_times(time - self._time - FRAME_INTERVAL)
        jumps = not 0 < time - self._time <= LONG_GAP
        if jumps or size != self._image_size:
            self._past_frames.clear()
            for target in self._targets.values():
                target.forecaster.reset()
                target.forget_masks()
                target.view = None if jumps else target.view
        self._image_size = size
        self._time = time
        for target in self._targets.values():
            target.forecast = target.forecaster.predict(time, size)

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

    def _drop_prompts(self) -> None:
        """What this frame failed with is not tried again with the next one."""
        for target in list(self._targets.values()):
            target.prompt = None
            if target.is_new:
                del self._targets[target.target_id]

    def _track_targets(
        self, frame: NDArray[np.uint8], clock: _StageClock
    ) -> tuple[TargetResult, ...]:
        if not self._targets:
            self._past_frames.clear()
            return ()
        with torch.inference_mode(), self._loaded.autocast():
            return self._track_any(frame, clock)

    def _track_any(self, frame: NDArray[np.uint8], clock: _StageClock) -> tuple[TargetResult, ...]:
        size = (frame.shape[0], frame.shape[1])
        elapsed = self._frame_interval()
        for target in self._targets.values():
            target.choose_view(size, elapsed, self.config.view, self._max_zoom)
        features = self._encode(frame, [t.view for t in self._targets.values() if t.view])
        clock.mark("encode")
        batches = self._batches()
        seen = [features.of(batch.views) for batch in batches]
        predictions = [self._decode(b, f) for b, f in zip(batches, seen, strict=True)]
        clock.mark("decode")
        groups = [
            self._remember(*part, frame) for part in zip(batches, predictions, seen, strict=True)
        ]
        clock.mark("memory")
        readout = _Readout.of(groups, size)
        for row, target, _, _ in _rows(groups):
            self._update_state(target, readout, row)
        self._store(groups, readout)
        prompts = self._observe_motion(groups, readout, frame, seen[0])
        clock.mark("motion")
        results = self._results(groups, readout, prompts)
        return tuple(results[target_id] for target_id in self._targets)

    def _encode(self, frame: NDArray[np.uint8], views: list[View]) -> _SeenFrame:
        """Run the image encoder on every view that a target is looked for in: on the CPU one by
        one, as a batch's size changes the rounding.
        """
        views = list(dict.fromkeys(views))
        images = [self._model.normalize(self._pixels(frame, view)) for view in views]
        if self._loaded.device.type != "cpu":
            images = [torch.cat(images)]
        return _SeenFrame(views, [self._model.encode_image(x) for x in images])

    @staticmethod
    def _pixels(frame: NDArray[np.uint8], view: View) -> Tensor:
        """A view of a frame, (1, height, width, 3)."""
        pixels = frame[view.slices]
        return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())[None]

    def _batches(self) -> list[_Batch]:
        """Targets that can share a batch: equal memories and the same kind of prompts.

        On the CPU a batch saves next to nothing, and its size changes the rounding: there every
        target is alone, and its masks are to the last bit those it has without the others.
        """
        shared = self._loaded.device.type != "cpu"
        batches: dict[Hashable, _Batch] = {}
        for target in self._targets.values():
            recall = None if target.is_new else self._recall(target)
            guide = self._guide(target)
            prompts = _prompt_kind(target.prompt), guide and (guide.with_box, guide.with_key_points)
            kind = (recall and recall.layout, prompts)
            batch = batches.setdefault(kind if shared else target.target_id, _Batch([], [], []))
            batch.targets.append(target)
            if recall is not None:
                batch.recalls.append(recall)
            if guide is not None:
                batch.guides.append(guide)
        return list(batches.values())

    def _recall(self, target: _Target) -> Recall:
        bank = target.bank.of_whole_frames() if target.is_sought else target.bank
        return self._policy.recall(bank, self._frame_index)

    def _guide(self, target: _Target) -> _Guide | None:
        """What to prompt a target with, if anything: with its box, and with key points if it moves,
        for where it does not they only repeat what is remembered.
        """
        motion = self.config.motion
        forecast = target.trusted_forecast if motion.prompts else None
        if forecast is None or not target.may_prompt(motion):
            return None
        moves = target.forecaster.overlap(forecast) <= motion.max_overlap
        guide = _Guide(forecast, motion.dense, motion.sparse and moves)
        return guide if guide.with_box or guide.with_key_points else None

    def _decode(self, batch: _Batch, features: ImageFeatures) -> Prediction:
        """Decode one batch: from its masks, its points, its memory, or memory and points."""
        prompts = [t.prompt for t in batch.targets if t.prompt is not None]
        if prompts and prompts[0].mask is not None:
            return self._model.mask_prompt(features, self._mask_batch(prompts, batch.views))[0]
        points = self._point_batch(prompts, batch.views) if prompts else None
        if not batch.recalls:
            assert points is not None
            candidates = self._model.decode(features, self._model.without_memory(features), points)
            return self._model.choose(candidates, prompts[0].num_points)
        conditioned = self._model.attend_to_memory(
            features,
            batch_recalls(batch.recalls, batch.views, [t.seen_maps for t in batch.targets]),
        )
        tracked = self._follow(batch, features, conditioned)
        if points is None:
            return tracked
        previous = tracked.mask_logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        corrected = self._model.decode(features, conditioned, points, previous)
        return self._model.choose(corrected, prompts[0].num_points)

    def _follow(self, batch: _Batch, features: ImageFeatures, conditioned: Tensor) -> Prediction:
        """Find targets by their memory, with motion prompts where they are to be trusted."""
        if batch.guides:
            rows = [g.coordinates(v) for g, v in zip(batch.guides, batch.views, strict=True)]
            labels = [guide.labels for guide in batch.guides]
            points = self._to_model(rows, labels, batch.views)
            candidates = self._model.decode(features, conditioned, points)
            return self._model.choose(candidates, points.labels.shape[1])
        candidates = self._model.decode(features, conditioned)
        return self._model.choose(candidates, 0, self._preference(batch, candidates))

    def _preference(self, batch: _Batch, candidates: Candidates) -> Tensor | None:
        """A bonus for masks where hidden targets are expected to come back."""
        forecasts = [t.forecast if t.is_hidden else None for t in batch.targets]
        if not self.config.motion.prompts or not any(forecasts):
            return None
        return forecast_preference(candidates.mask_logits[:, 1:], forecasts, batch.views)

    def _mask_batch(self, prompts: list[Prompt], views: list[View]) -> Tensor:
        """Masks (B, 1, S, S) of 0 and 1 at the model's size."""
        rows = [
            self._mask_at_model_size(prompt.mask[view.slices])
            for prompt, view in zip(prompts, views, strict=True)
            if prompt.mask is not None
        ]
        return torch.cat(rows)

    def _mask_at_model_size(self, mask: NDArray[np.bool_]) -> Tensor:
        image = torch.from_numpy(mask.copy())[None, None].to(self._loaded.device)
        return self._at_model_size(image.float())

    def _at_model_size(self, masks: Tensor) -> Tensor:
        """Masks (B, 1, h, w) of 0 and 1 at the model's size."""
        size = (self._model.image_size, self._model.image_size)
        if masks.shape[-2:] == size:
            return masks
        soft = F.interpolate(masks, size=size, mode="bilinear", align_corners=False, antialias=True)
        return (soft >= 0.5).float()

    def _point_batch(self, prompts: list[Prompt], views: list[View]) -> PointPrompts:
        """Box corners, then points, in pixels of the model's image; negative points beside the view
        are taken to its edge.
        """
        rows, labels = [], []
        for prompt, view in zip(prompts, views, strict=True):
            corners = np.zeros((0, 2)) if prompt.box is None else prompt.box.reshape(2, 2)
            corners = np.minimum(corners, view.last_pixel)
            marks = [] if prompt.box is None else [BOX_FIRST, BOX_LAST]
            points = prompt.points.clip(view.origin, view.last_pixel)
            rows.append(np.concatenate([corners, points]))
            labels.append([*marks, *prompt.labels])
        return self._to_model(rows, labels, views)

    def _to_model(
        self, rows: list[NDArray], labels: list[list[int]], views: list[View]
    ) -> PointPrompts:
        """Points (P, 2) in pixels of the camera, a row per target, on the device."""
        device = self._loaded.device
        scaled = [
            (row - view.origin) * (self._model.image_size / np.array(view.size[::-1], np.float32))
            for row, view in zip(rows, views, strict=True)
        ]
        points = torch.from_numpy(np.stack(scaled).astype(np.float32))
        return PointPrompts(
            points.to(device, non_blocking=True),
            torch.tensor(labels, dtype=torch.int32).to(device, non_blocking=True),
        )

    def _remember(
        self,
        batch: _Batch,
        prediction: Prediction,
        features: ImageFeatures,
        frame: NDArray[np.uint8],
    ) -> _Group:
        """Encode the batch's memories; masks that a user prompted are hardened, as in SAM 2."""
        prompted = batch.targets[0].prompt is not None
        memory = self.config.memory
        threshold = memory.foreground_threshold if memory.spatial and not prompted else 0.0
        encoded = self._model.encode_memory(features, prediction, prompted, threshold)
        in_part = prompted and not all(view.is_whole for view in batch.views)
        overview = self._overview(batch, prediction, frame) if in_part else None
        return _Group(batch, prediction, encoded, overview)

    def _overview(
        self, batch: _Batch, prediction: Prediction, frame: NDArray[np.uint8]
    ) -> Overview:
        """The batch's masks as memories (B, …) of the whole frame."""
        size = (frame.shape[0], frame.shape[1])
        (image,) = self._encode(frame, [View.whole(size)]).parts
        features = image.expand(len(batch.targets))
        masks = _full_masks(prediction.mask_logits, batch.views, size)[:, None]
        whole, _ = self._model.mask_prompt(features, self._at_model_size(masks.float()))
        return Overview(self._model.encode_memory(features, whole, True), whole.pointer)

    def _store(self, groups: list[_Group], readout: _Readout) -> None:
        """Put the frame into every target's memory, now that its scores are on the host."""
        for row, target, group, index in _rows(groups):
            view, overview = group.batch.views[index], group.overview
            in_part = not view.is_whole and readout.geometry.areas[row] > 0
            entry = MemoryEntry(
                self._frame_index,
                group.memory[index].to(self._memory_dtype, copy=True),
                group.prediction.pointer[index].clone(),
                float(readout.predicted_iou[row]),
                float(readout.object_score[row]),
                view,
                self._time,
                target.presence.ratio_to_remember,
                target.prompt,
                self._kept(overview, index) if overview is not None and in_part else None,
            )
            if target.prompt is not None:
                target.bank.add_prompted(entry)
            else:
                target.bank.add(entry)

    def _kept(self, overviews: Overview, row: int) -> Overview:
        features = overviews.features[row].to(self._memory_dtype, copy=True)
        return Overview(features, overviews.pointer[row].clone())

    def _observe_motion(
        self,
        groups: list[_Group],
        readout: _Readout,
        frame: NDArray[np.uint8],
        features: ImageFeatures,
    ) -> list[MotionPrompt | None]:
        """Update the motion; returns each row's forecast for the next frame."""
        size = (frame.shape[0], frame.shape[1])
        geometry = readout.geometry
        points = key_points(readout.masks, geometry.centroids, self.config.motion.num_key_points)
        past = self._past_frames[0] if len(self._past_frames) == self._past_frames.maxlen else None
        kept = None if self._flow is None else self._flow.prepare(frame, features)
        next_time = self._time + self._frame_interval()
        targets = [target for _, target, _, _ in _rows(groups)]
        for row, target in enumerate(targets):
            if target.was_reliable:
                flow = None
                if past is not None and self._flow is not None:
                    flow = self._dense_motion(readout.masks[row], geometry.boxes[row], past, kept)
                target.forecaster.observe(self._time, geometry.boxes[row], points[row], flow)
        if self.config.motion.sparse_encoder == "trained":
            self._encode_key_points(targets, features, size)
        self._past_frames.append(_PastFrame(self._time, size, kept))
        return [target.forecaster.predict(next_time, size) for target in targets]

    def _encode_key_points(
        self, targets: list[_Target], features: ImageFeatures, size: tuple[int, int]
    ) -> None:
        """Ask the trained encoder where the key points of moving targets go."""
        assert self._encoders is not None
        moving = [t.forecaster for t in targets if t.was_reliable and t.forecaster.ready]
        if not moving:
            return
        device = self._loaded.device
        histories = [forecaster.key_point_history() for forecaster in moving]
        points, velocities = (
            torch.from_numpy(np.stack(x)).to(device, non_blocking=True)
            for x in zip(*histories, strict=True)
        )
        sampled = features_at(features.coarse[:1], points, size)
        future = self._encoders.key_points(velocities, sampled).float().cpu().numpy()
        for forecaster, velocity in zip(moving, future, strict=True):
            forecaster.expect_key_points(velocity)

    def _frame_interval(self) -> float:
        """Seconds to the next frame, taken to be as many as since the last one."""
        return self._time - self._past_frames[-1].time if self._past_frames else FRAME_INTERVAL

    def _update_state(self, target: _Target, readout: _Readout, row: int) -> None:
        """Update the target's state, and whether its mask can be trusted to teach motion: it is
        seen, sure, not misplaced, and has not suddenly lost much of its area, as behind an
        occluder's edge. What the user showed says anew how large it is.
        """
        area = int(readout.geometry.areas[row])
        iou = float(readout.predicted_iou[row])
        prompted = target.prompt is not None
        score = float(readout.object_score[row])
        seen = area > 0 and score > 0
        displacement = target.displacement(
            readout.geometry.boxes[row], self._image_size, self._frame_interval()
        )
        state = target.presence.update(area, score, iou, prompted, displacement)
        if target.presence.is_doubted:
            readout.clear(row)
        if prompted:
            target.forget_masks()
        lost = area <= SUDDEN_LOSS * target.usual_area(RECENT_FRAMES)
        sure = iou > self.config.motion.reliable_iou and not lost
        sure = sure and not target.presence.is_misplaced
        target.was_reliable = state is TargetState.TRACKED and (sure or prompted)
        if target.was_reliable:
            target.frames_unsure = 0
        else:
            target.frames_unsure = target.frames_unsure + 1 if seen else EXPECTED_FRAMES
        if state is TargetState.TRACKED:
            target.boxes.append(readout.geometry.boxes[row])
            target.areas.append(area)
            target.ious.append(iou)

    def _dense_motion(
        self, mask: NDArray[np.bool_], box: NDArray[np.float64], past: _PastFrame, current: object
    ) -> DenseMotion | None:
        """A target's motion by its flow since a past frame; None if that is broken."""
        assert self._flow is not None
        field = self._flow.estimate(past.kept, current, target_region(box, past.image_size))
        return dense_motion(mask, field, self._time - past.time)

    def _results(
        self, groups: list[_Group], readout: _Readout, forecasts: list[MotionPrompt | None]
    ) -> dict[int, TargetResult]:
        results = {}
        for row, target, group, index in _rows(groups):
            guides = group.batch.guides
            results[target.target_id] = TargetResult(
                target_id=target.target_id,
                label=target.label,
                state=target.presence.state,
                mask=readout.masks[row],
                box=_box(readout.geometry, row),
                centroid=_centroid(readout.geometry, row),
                area=int(readout.geometry.areas[row]),
                predicted_iou=float(readout.predicted_iou[row]),
                object_score=float(readout.object_score[row]),
                frames_since_seen=target.presence.frames_since_tracked,
                mask_logits=readout.mask_logits[row],
                view=group.batch.views[index],
                motion_prompt=forecasts[row],
                injected_prompt=guides[index].forecast if guides else None,
            )
            target.prompt = None
        return results


@dataclass(frozen=True)
class _PastFrame:
    """What the optical flow keeps of a frame, and when it was taken."""

    time: float
    image_size: tuple[int, int]
    kept: Any


@dataclass(frozen=True)
class _Batch:
    """Targets that are decoded together.

    Attributes:
        targets: row by row.
        recalls: their memories; empty for targets that have none yet.
        guides: what to prompt with; all give the same parts; empty for targets without.
    """

    targets: list[_Target]
    recalls: list[Recall]
    guides: list[_Guide]

    @property
    def views(self) -> list[View]:
        """Where the targets are looked for."""
        return [target.view for target in self.targets if target.view is not None]


@dataclass(frozen=True)
class _SeenFrame:
    """The features of a frame's views: a batch of all, or one by one."""

    views: list[View]
    parts: list[ImageFeatures]

    def of(self, views: list[View]) -> ImageFeatures:
        """Those of the views of some targets, a row for each."""
        rows = [self.views.index(view) for view in views]
        if len(self.parts) == len(self.views):
            (row,) = set(rows)
            return self.parts[row].expand(len(rows))
        return self.parts[0].for_targets(rows)


def _rows(groups: list[_Group]) -> Iterator[tuple[int, _Target, _Group, int]]:
    """Every target with its row in the readout, its group and its row in there."""
    row = 0
    for group in groups:
        for index, target in enumerate(group.batch.targets):
            yield row, target, group, index
            row += 1


@dataclass(frozen=True)
class _Readout:
    """All groups' predictions on the host, fetched in one go; one row per target."""

    masks: NDArray[np.bool_]
    mask_logits: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    object_score: NDArray[np.float32]
    geometry: MaskGeometry

    def clear(self, row: int) -> None:
        """Leave a target without a mask."""
        self.masks[row] = False
        self.mask_logits[row] = NO_OBJ_SCORE
        self.geometry.areas[row] = 0

    @classmethod
    def of(cls, groups: list[_Group], size: tuple[int, int]) -> _Readout:
        predictions = [group.prediction for group in groups]
        logits = torch.cat([p.mask_logits for p in predictions])
        scores = torch.cat([p.object_score[:, 0] for p in predictions])
        ious = torch.cat([p.predicted_iou for p in predictions])
        masks = _full_masks(logits, [v for group in groups for v in group.batch.views], size)
        fetched = [x.to("cpu", non_blocking=True) for x in (masks, logits[:, 0])]
        numbers = torch.stack([ious.float(), scores.float()]).cpu().numpy()
        host_masks = fetched[0].numpy()
        return cls(
            host_masks, fetched[1].numpy(), numbers[0], numbers[1], MaskGeometry.of(host_masks)
        )


def _full_masks(logits: Tensor, views: list[View], size: tuple[int, int]) -> Tensor:
    """Masks (B, height, width) of the frame from logits (B, 1, s, s) of the targets' views."""

    def enlarged(rows: Tensor, to: tuple[int, int]) -> Tensor:
        return F.interpolate(rows, size=to, mode="bilinear", align_corners=False)[:, 0] > 0

    if all(view.is_whole for view in views):
        return enlarged(logits, size)
    masks = torch.zeros(len(views), *size, dtype=torch.bool, device=logits.device)
    for row, view in enumerate(views):
        masks[row][view.slices] = enlarged(logits[row : row + 1], view.size)[0]
    return masks


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
            event.record(torch.cuda.current_stream(self.device))
            self.marks.append((stage, event))
        else:
            self.marks.append((stage, time.perf_counter()))

    def read(self) -> StageSeconds:
        """Seconds per stage. The results are on the host by now: what the device may still have to
        do, and is waited for, is to copy memories and to prepare the frame for the next flow.
        """
        last = self.marks[-1][1]
        if not isinstance(last, float):
            last.synchronize()
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


def _box(geometry: MaskGeometry, row: int) -> Box | None:
    if geometry.areas[row] == 0:
        return None
    x_min, y_min, x_max, y_max = geometry.boxes[row].astype(int).tolist()
    return Box(x_min, y_min, x_max - x_min, y_max - y_min)


def _centroid(geometry: MaskGeometry, row: int) -> tuple[float, float] | None:
    if geometry.areas[row] == 0:
        return None
    x, y = geometry.centroids[row].tolist()
    return x, y
