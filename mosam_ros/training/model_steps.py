"""Prompts, losses and the unrolled clip for training the small model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mosam_ros.mosam.memory import resample_maps
from mosam_ros.mosam.motion.keypoints import MaskGeometry, key_points
from mosam_ros.mosam.sam2_model import (
    BOX_FIRST,
    BOX_LAST,
    PADDING,
    POSITIVE,
    Candidates,
    ImageFeatures,
    MemorySelection,
    PointPrompts,
    Prediction,
    Sam2Model,
)
from mosam_ros.training.data import Clip

PROMPT_KINDS = ("mask", "box", "point", "box_and_point")
PROMPT_RATES = (0.45, 0.25, 0.2, 0.1)
MOSAM_RATE = 0.5
"""Share of steps in which forecasts prompt most frames, and of those in which memories are selected
by their scores; the two are drawn apart. More for stages that train for the tracker as it comes."""
MOTION_PROMPT_FRAME_RATE = 0.8
MOTION_KINDS = ("motion", "motion_points", "motion_box")
MOTION_KIND_RATES = (0.6, 0.2, 0.2)
MOTION_POINTS = 5
MOTION_DRIFT = 0.04
"""Standard deviation of a forecast's error as a fraction of the target's width and height."""
STALE_RATE = 0.3
"""Share of motion prompts that point where the target was, not where it is."""
MISLED_RATE = 0.15
"""Share of motion prompts that point at another object, so that memory is weighed against them."""
OWN_PROMPT_RATE = 0.5
"""Share of clips whose motion prompts come from the model's own masks, right or wrong, as they do
in the tracker."""
RELIABLE_IOU = 0.6
"""Predicted IoU above which a frame is selected."""
KEPT_ABSENT = 2
"""Newest frames that are selected if the target was absent in them."""
MAX_GAP = 200
"""Frames by which a prompt may be said to be older than it is."""

BCE_WEIGHT, DICE_WEIGHT, IOU_WEIGHT, PRESENCE_WEIGHT = 3.0, 2.0, 1.0, 1.0


@dataclass(frozen=True)
class StepLoss:
    """Mean losses over the targets and frames of a step; `total` carries the gradient."""

    total: Tensor
    mask: float
    iou: float
    presence: float
    mean_iou: float


def initialize(model: Sam2Model) -> None:
    """Fresh weights that listen to prompts and remember places from the first step on.

    Queries and keys of the decoder's cross attentions start equal, so that a prompt finds its own
    place; the rotary queries and keys of memory attention share a bias, so that a memory is first
    read at its own place; masks are taken to be present.
    """
    base = model.base
    transformer = base.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in attentions:
            attention.q_proj.weight.mul_(2.0)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.k_proj.bias.copy_(attention.q_proj.bias)
        for layer in base.memory_attention.layers:
            layer.cross_attn_image.q_proj.bias.fill_(0.6)
            layer.cross_attn_image.k_proj.bias.fill_(0.6)
        base.sam_prompt_encoder.no_mask_embed.weight.mul_(0.05)
        base.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)


def sample_points(masks: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """`count` random pixels (B, count, 2), x and y, from masks (B, S, S); the center if empty."""
    size = masks.shape[-1]
    points = np.empty((len(masks), count, 2), np.float32)
    for row, mask in enumerate(masks.numpy()):
        inside = np.flatnonzero(mask)
        if len(inside) == 0:
            points[row] = size / 2
            continue
        chosen = inside[generator.integers(0, len(inside), count)]
        points[row] = np.stack([chosen % size, chosen // size], axis=-1)
    return torch.from_numpy(points)


def tight_boxes(masks: Tensor) -> Tensor:
    """Boxes (B, 2, 2), first and last corner x, y in pixels, of masks (B, S, S); 0 if empty."""
    columns, rows = masks.any(1), masks.any(2)
    size = masks.shape[-1]

    def bounds(hit: Tensor) -> tuple[Tensor, Tensor]:
        hit = hit.to(torch.uint8)
        return hit.argmax(1), size - 1 - hit.flip(1).argmax(1)

    (left, right), (top, bottom) = bounds(columns), bounds(rows)
    boxes = torch.stack([left, top, right, bottom], 1).float()
    return (boxes * masks.flatten(1).any(1)[:, None]).view(-1, 2, 2)


def jitter_boxes(boxes: Tensor, generator: np.random.Generator, amount: float) -> Tensor:
    """Move each corner of boxes (B, 2, 2) by up to `amount` of the box's width and height."""
    extent = (boxes[:, 1] - boxes[:, 0])[:, None]
    noise = torch.from_numpy(generator.uniform(-amount, amount, tuple(boxes.shape))).float()
    return boxes + noise * extent


def point_prompts(
    kind: str, masks: Tensor, generator: np.random.Generator, device: torch.device
) -> PointPrompts:
    """A user's prompts (`box`, `point`, `box_and_point`) or forecasts (`motion`, or only its
    `motion_points` or its `motion_box`) for targets with masks (B, S, S); none for empty masks.
    """
    parts, labels = [], []
    boxes = tight_boxes(masks)
    extent = (boxes[:, 1] - boxes[:, 0])[:, None]
    drift = MOTION_DRIFT * extent * torch.from_numpy(generator.normal(size=extent.shape)).float()
    if kind in ("motion", "motion_box"):
        parts.append(jitter_boxes(boxes, generator, 0.06) + drift)
        labels += [BOX_FIRST, BOX_LAST]
    elif kind in ("box", "box_and_point"):
        parts.append(jitter_boxes(boxes, generator, 0.05))
        labels += [BOX_FIRST, BOX_LAST]
    if kind in ("point", "box_and_point"):
        parts.append(sample_points(masks, 1, generator))
        labels += [POSITIVE]
    if kind in ("motion", "motion_points"):
        host = masks.numpy()
        points = key_points(host, MaskGeometry.of(host).centroids, MOTION_POINTS)
        noise = torch.from_numpy(generator.normal(0, 0.03, points.shape)).float()
        parts.append(torch.from_numpy(points).nan_to_num() + noise * extent + drift)
        labels += [POSITIVE] * MOTION_POINTS
    coordinates = torch.cat(parts, dim=1)
    label_rows = torch.tensor(labels, dtype=torch.int32).expand(len(masks), -1).clone()
    label_rows[~masks.flatten(1).any(1)] = PADDING
    return PointPrompts(coordinates.to(device), label_rows.to(device))


def forecast_masks(before: Tensor, now: Tensor, generator: np.random.Generator) -> Tensor:
    """Where forecasts point: to the target, or to where it was when it has just been hidden or
    turned; nowhere when it was hidden before.

    Args:
        before: masks (B, S, S) of the frame before.
        now: those of this frame.
        generator: draws which forecasts are stale.
    """
    gone = ~now.flatten(1).any(1)
    stale = gone | torch.from_numpy(generator.random(len(now)) < STALE_RATE)
    known = before.flatten(1).any(1)
    return torch.where(stale[:, None, None], before, now) & known[:, None, None]


def mislead(
    places: Tensor, now: Tensor, num_targets: int, generator: np.random.Generator
) -> Tensor:
    """Point some forecasts at the next of the clip's targets.

    Args:
        places: masks (B, S, S) that the forecasts point at, `num_targets` in a row of every clip.
        now: the targets' masks (B, S, S) of this frame.
        num_targets: K of a clip.
        generator: draws which forecasts are misled.
    """
    others = now.unflatten(0, (-1, num_targets)).roll(1, dims=1).flatten(0, 1)
    misled = torch.from_numpy(generator.random(len(now)) < MISLED_RATE)
    return torch.where(misled[:, None, None], others, places)


def mask_losses(candidates: Candidates, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses per target of all four masks against the truth (B, s, s) at the decoder's size.

    Returns:
        mask loss (B, 4), IoU-prediction loss (B, 4), presence loss (B,), true IoU (B, 4).
    """
    logits = candidates.mask_logits.float()
    target = truth[:, None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((2, 3))
    probability = logits.sigmoid()
    overlap = (probability * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
    # Small targets count nearly as much as large ones: their share of the image scales the BCE.
    share = truth.mean((1, 2)).clamp(0.02, 0.25)[:, None]
    mask_loss = BCE_WEIGHT * bce * (0.12 / share).sqrt() + DICE_WEIGHT * dice
    hard, hard_truth = logits > 0, target > 0.5
    union = (hard | hard_truth).sum((2, 3)).clamp(min=1)
    iou = (hard & hard_truth).sum((2, 3)) / union
    present = (truth > 0.5).flatten(1).any(1)
    presence_loss = F.binary_cross_entropy_with_logits(
        candidates.object_score[:, 0].float(), present.float(), reduction="none"
    )
    iou_loss = (candidates.predicted_iou.float() - iou).abs()
    return mask_loss, iou_loss, presence_loss, iou


def combine_losses(candidates: Candidates, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The training loss of one frame: token 0, the best alternative, and a little of all."""
    mask_loss, iou_loss, presence_loss, iou = mask_losses(candidates, truth)
    present = (truth > 0.5).flatten(1).any(1).float()
    count = present.sum().clamp(min=1)
    best = mask_loss[:, 1:].min(dim=1).values
    masks = ((mask_loss[:, 0] + best + 0.3 * mask_loss.mean(1)) * present).sum() / count
    ious = (iou_loss.mean(1) * present).sum() / count
    presence = presence_loss.mean()
    total = masks + IOU_WEIGHT * ious + PRESENCE_WEIGHT * presence
    parts = {
        "mask": masks.detach(),
        "iou": ious.detach(),
        "presence": presence.detach(),
        "mean_iou": ((iou[:, 0] * present).sum() / count).detach(),
    }
    return total, parts


@dataclass(frozen=True)
class _Remembered:
    """A frame of B targets; (B,) say whose masks can be trusted in it and who is absent."""

    features: Tensor
    pointer: Tensor
    reliable: Tensor
    absent: Tensor


def learned_frames(num_frames: int, burn_in: int, generator: np.random.Generator) -> range:
    """Which frames of a clip are learned: all but `burn_in`, in a row."""
    first = int(generator.integers(0, burn_in + 1)) if burn_in else 0
    return range(first, num_frames - burn_in + first)


def clip_loss(
    model: Sam2Model,
    clip: Clip,
    generator: np.random.Generator,
    long_memory: bool = False,
    burn_in: int = 0,
    mosam_rate: float = MOSAM_RATE,
) -> StepLoss:
    """Unroll a batch of clips, K targets each, and return the mean loss over the learned frames.

    Args:
        model: in training mode.
        clip: N clips of T frames and K targets.
        generator: draws prompts; the same state gives the same loss.
        long_memory: on half of the steps pretend that the prompt lies long back.
        burn_in: T - `burn_in` frames in a row are learned, from a random one on; those before
            are only tracked.
        mosam_rate: probability that forecasts prompt most frames, and that memories are selected.
    """
    device = model.device
    learned = learned_frames(clip.frames.shape[1], burn_in, generator)
    length = learned.stop
    clip = Clip(clip.frames[:, :length], clip.masks[:, :, :length], clip.views[:, :length])
    num_clips, _, size = clip.frames.shape[:3]
    num_targets = clip.masks.shape[1]
    masks = clip.masks.flatten(0, 1)
    views = clip.views.repeat_interleave(num_targets, 0)
    truth = F.interpolate(
        masks.float(), size=(size // 4, size // 4), mode="bilinear", antialias=True
    ).to(device)
    features = _clip_features(model, clip.frames, num_targets, learned.start)
    kind = str(generator.choice(PROMPT_KINDS, p=PROMPT_RATES))
    motion = generator.random() < mosam_rate
    gap = int(generator.integers(1, MAX_GAP)) if long_memory and generator.random() < 0.5 else 0
    selects = generator.random() < mosam_rate
    own_prompts = generator.random() < OWN_PROMPT_RATE
    history: list[_Remembered] = []
    losses, parts = [], []
    for t in range(length):
        with torch.set_grad_enabled(torch.is_grad_enabled() and t in learned):
            seen = features(t)
            if t == 0:
                prediction, candidates = _prompted(model, seen, kind, masks[:, 0], generator)
            else:
                memory = _memory(model, _as_seen_in(history, views, t), gap, selects)
                guide = None
                moved = not torch.equal(views[:, t], views[:, t - 1])
                if motion and not moved and generator.random() < MOTION_PROMPT_FRAME_RATE:
                    if own_prompts:
                        places = _own_mask(prediction, size)
                    else:
                        places = forecast_masks(masks[:, t - 1], masks[:, t], generator)
                    places = mislead(places, masks[:, t], num_targets, generator)
                    motion_kind = str(generator.choice(MOTION_KINDS, p=MOTION_KIND_RATES))
                    guide = point_prompts(motion_kind, places, generator, device)
                prediction, candidates = _propagated(model, seen, memory, guide)
            if t in learned:
                total, detail = combine_losses(candidates, truth[:, t])
                losses.append(total)
                parts.append(detail)
            if t + 1 < length:
                threshold = 0.5 if selects and t else 0.0
                remembered = model.encode_memory(seen, prediction, False, threshold)
                absent = prediction.object_score[:, 0].detach() <= 0
                history.append(
                    _Remembered(remembered, prediction.pointer, _reliable(prediction), absent)
                )
    means = {k: float(torch.stack([p[k] for p in parts]).mean()) for k in parts[0]}
    return StepLoss(torch.stack(losses).mean(), **means)


def image_loss(model: Sam2Model, clip: Clip, generator: np.random.Generator) -> StepLoss:
    """Every frame of the clips as an image of its own, prompted by a mask, box or point."""
    num_clips, length = clip.frames.shape[:2]
    frames = clip.frames.flatten(0, 1)[:, None]
    masks = clip.masks.transpose(1, 2).flatten(0, 1)[:, :, None]
    return clip_loss(model, Clip(frames, masks, clip.views.flatten(0, 1)[:, None]), generator)


def _clip_features(
    model: Sam2Model, frames: Tensor, num_targets: int, first_learned: int
) -> Callable[[int], ImageFeatures]:
    """Encode clips (N, T, S, S, 3); the answer gives frame t's features for every target. Frames
    before the first learned one keep nothing for the backward pass.
    """
    owner = torch.arange(len(frames), device=model.device).repeat_interleave(num_targets)

    def encode(part: Tensor) -> ImageFeatures:
        return model.encode_image(model.normalize(part.flatten(0, 1)))

    learned = encode(frames[:, first_learned:])
    num_learned = frames.shape[1] - first_learned
    if first_learned == 0:
        return lambda t: learned.for_targets(owner * num_learned + t)
    with torch.no_grad():
        tracked = encode(frames[:, :first_learned])

    def at(t: int) -> ImageFeatures:
        if t < first_learned:
            return tracked.for_targets(owner * first_learned + t)
        return learned.for_targets(owner * num_learned + t - first_learned)

    return at


def _prompted(
    model: Sam2Model, seen: ImageFeatures, kind: str, masks: Tensor, generator: np.random.Generator
) -> tuple[Prediction, Candidates]:
    if kind == "mask":
        return model.mask_prompt(seen, masks[:, None].float().to(model.device))
    points = point_prompts(kind, masks, generator, model.device)
    candidates = model.decode(seen, model.without_memory(seen), points)
    return model.choose(candidates, points.labels.shape[1]), candidates


def _propagated(
    model: Sam2Model, seen: ImageFeatures, memory: MemorySelection, guide: PointPrompts | None
) -> tuple[Prediction, Candidates]:
    conditioned = model.attend_to_memory(seen, memory)
    candidates = model.decode(seen, conditioned, guide)
    num_points = 0 if guide is None else guide.labels.shape[1]
    return model.choose(candidates, num_points), candidates


def _reliable(prediction: Prediction) -> Tensor:
    """(B,): masks that can be trusted by their own scores."""
    seen = prediction.object_score[:, 0] > 0
    return (seen & (prediction.predicted_iou > RELIABLE_IOU)).detach()


def _own_mask(prediction: Prediction, size: int) -> Tensor:
    """The masks (B, size, size) of the last frame as the model saw them; empty if unreliable."""
    logits = F.interpolate(prediction.mask_logits.detach(), size=(size, size), mode="bilinear")
    return ((logits[:, 0] > 0) & _reliable(prediction)[:, None, None]).cpu()


def _as_seen_in(history: list[_Remembered], views: Tensor, now: int) -> list[_Remembered]:
    """Memories of the views (B, T, 4) of their frames, as they lie in the present ones."""
    return [
        x
        if torch.equal(views[:, t], views[:, now])
        else replace(
            x, features=resample_maps(x.features, views[:, t], views[:, now]).to(x.features.dtype)
        )
        for t, x in enumerate(history)
    ]


def _memory(
    model: Sam2Model, history: list[_Remembered], gap: int, selects: bool
) -> MemorySelection:
    """The prompted frame and SAM 2's newest ones, or of every target the newest reliable ones.

    Where a target has fewer reliable frames than another, its prompted frame fills the gaps. With a
    `gap` the prompt is said to be so many frames older than it is, and the pointers of the frames
    between are made up from those there are.
    """
    newest, device = model.num_memory_slots, model.device
    batch, last = len(history[0].pointer), len(history)
    rows = [list(range(1, last)) for _ in range(batch)]
    if selects:
        kept = torch.stack([x.reliable for x in history])
        for t in range(max(1, last - KEPT_ABSENT), last):
            kept[t] |= history[t].absent
        rows = [
            [t for t in row if keep[t]] for row, keep in zip(rows, kept.T.tolist(), strict=True)
        ]
    count = max(map(len, rows))
    padded = torch.tensor([[0] * (count - len(row)) + row for row in rows], device=device).long()
    targets = torch.arange(batch, device=device)
    maps = torch.stack([x.features for x in history])
    tokens = torch.stack([x.pointer for x in history])
    recent = [maps[padded[:, i], targets] for i in range(count)][-newest:]
    pointers = [tokens[padded[:, i], targets] for i in range(count)][::-1][: model.num_pointers]
    ages = [(last - padded[:, i]).float() for i in range(count)][::-1][: model.num_pointers]
    if gap and pointers:
        missing = min(gap, model.num_pointers - len(pointers))
        pointers += [pointers[i % len(pointers)] for i in range(missing)]
        ages += [ages[-1] + i for i in range(1, missing + 1)]
    return MemorySelection(
        features=[history[0].features, *recent],
        slots=[0, *range(newest - len(recent) + 1, newest + 1)],
        pointers=[history[0].pointer, *pointers],
        distances=[torch.full((batch,), float(last + gap), device=device), *ages],
    )
