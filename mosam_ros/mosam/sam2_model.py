"""The one file that knows sam2's internals: load, encode an image, decode with memory and prompts,
encode a memory.

`Sam2Model` is stateless. What is kept between frames travels in `MemoryEntry`s, which the caller
selects and hands back as `MemorySelection`s. Tensors are batched over targets: B is the number of
targets, N the number of images, S the model's image size in pixels, C its width and h = w = S / 16
the size of its coarsest feature map.

Follows sam2 1.1.0's `SAM2Base`, used unchanged; the parity tests hold it to the results of
sam2's own `SAM2VideoPredictor`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
LOGIT_LIMIT = 32.0
"""Bound of mask logits that are fed back as a prompt, as in sam2's predictor."""

POSITIVE, NEGATIVE, BOX_FIRST, BOX_LAST, PADDING = 1, 0, 2, 3, -1
"""Labels of SAM's point prompts: on the object, off it, the box's two corners, no point."""


@dataclass(frozen=True)
class ImageFeatures:
    """Feature maps of N images.

    Attributes:
        fine: (N, C/8, S/4, S/4), middle: (N, C/4, S/8, S/8), for the mask decoder.
        coarse: (N, C, h, w), for memory attention and the memory encoder.
        position: (N, C, h, w), the position encoding of `coarse`.
    """

    fine: Tensor
    middle: Tensor
    coarse: Tensor
    position: Tensor

    def for_targets(self, image_index: Tensor | Sequence[int]) -> ImageFeatures:
        """Features with one row per target: row b is image `image_index[b]`."""
        index = torch.as_tensor(image_index).to(self.coarse.device, non_blocking=True)
        return ImageFeatures(*(x[index] for x in self._maps()))

    def expand(self, num_targets: int) -> ImageFeatures:
        """A single image's features seen by `num_targets` targets, without a copy."""
        return ImageFeatures(*(x.expand(num_targets, -1, -1, -1) for x in self._maps()))

    def _maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.fine, self.middle, self.coarse, self.position


@dataclass(frozen=True)
class PointPrompts:
    """Points for B targets: coordinates (B, P, 2) x, y in pixels of S, labels (B, P) int32."""

    coordinates: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Candidates:
    """Everything that the mask decoder says, before a mask is chosen.

    Attributes:
        mask_logits: (B, 4, S/4, S/4); 0 is the single-mask token, 1-3 the alternatives.
        predicted_iou: (B, 4) in 0..1.
        tokens: (B, 4, C).
        object_score: (B, 1) logit, positive when the target is in the image.
    """

    mask_logits: Tensor
    predicted_iou: Tensor
    tokens: Tensor
    object_score: Tensor


@dataclass(frozen=True)
class Prediction:
    """The chosen mask.

    Attributes:
        mask_logits: (B, 1, S/4, S/4) float32; -1024 everywhere when the target is absent.
        predicted_iou: (B,).
        object_score: (B, 1) logit.
        pointer: (B, C), the object pointer.
    """

    mask_logits: Tensor
    predicted_iou: Tensor
    object_score: Tensor
    pointer: Tensor


@dataclass(frozen=True)
class MemorySelection:
    """The memories that one batch of targets attends to; all tensors hold B targets.

    Attributes:
        features: maps (B, h·w, C_mem), one per slot.
        slots: for each of `features`: 0 for a prompted frame, else 1 (oldest) … 6 (newest).
        pointers: object pointers (B, C).
        distances: for each of `pointers`: how many frames ago, (B,) float32.
    """

    features: Sequence[Tensor]
    slots: Sequence[int]
    pointers: Sequence[Tensor]
    distances: Sequence[Tensor]


class Sam2Model:
    """sam2's modules, called one stage at a time.

    Args:
        base: an instance of sam2's SAM2Base with the flags of the SAM 2.1 family.

    Raises:
        ValueError: `base` is not of the SAM 2.1 family.
    """

    def __init__(self, base: SAM2Base) -> None:
        _require_sam21(base)
        self.base = base

    @classmethod
    def from_config(cls, config: DictConfig, image_size: int | None = None) -> Sam2Model:
        """Build with fresh weights from a sam2 YAML configuration.

        Args:
            config: the configuration, with sam2's `model:` at its top.
            image_size: side of the model's square input in pixels, a multiple of 32; None keeps
                the configuration's.

        Raises:
            ValueError: `image_size` is no positive multiple of 32.
        """
        if image_size is not None and (image_size < 32 or image_size % 32):
            raise ValueError(f"image_size must be a positive multiple of 32, not {image_size}")
        size = image_size or config.model.image_size
        stable_masks = {
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        }
        base = instantiate(config.model, image_size=size, sam_mask_decoder_extra_args=stable_masks)
        return cls(base.eval())

    @property
    def image_size(self) -> int:
        """S, the side of the square input in pixels."""
        return self.base.image_size

    @property
    def width(self) -> int:
        """C, the channels of its coarsest features."""
        return self.base.hidden_dim

    @property
    def device(self) -> torch.device:
        return self.base.maskmem_tpos_enc.device

    @property
    def num_memory_slots(self) -> int:
        """Memories per frame beside the prompted ones (six in SAM 2)."""
        return self.base.num_maskmem - 1

    @property
    def num_pointers(self) -> int:
        """Object pointers per frame beside the prompted ones (fifteen in SAM 2)."""
        return self.base.max_obj_ptrs_in_encoder - 1

    def normalize(self, frames: Tensor) -> Tensor:
        """Resize and normalise frames as SAM 2 does.

        Args:
            frames: (N, H, W, 3) uint8 RGB on any device.

        Returns:
            (N, 3, S, S) float32 on the model's device.
        """
        images = frames.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            if images.is_cuda:
                images = images.float()
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True)
        mean, std = self._pixel_statistics
        return images.float().contiguous().clamp(0, 255).div_(255.0).sub_(mean).div_(std)

    @cached_property
    def _pixel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (3, 1, 1) of the network's input."""
        with _constants():
            mean, std = (
                torch.tensor(x, device=self.device)[:, None, None] for x in (PIXEL_MEAN, PIXEL_STD)
            )
            return mean, std

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Run the image encoder on normalised images (N, 3, S, S)."""
        output = self.base.forward_image(images)
        fine, middle, coarse = output["backbone_fpn"][-3:]
        return ImageFeatures(fine, middle, coarse, output["vision_pos_enc"][-1])

    def without_memory(self, features: ImageFeatures) -> Tensor:
        """Coarse features (B, C, h, w) for a frame that is decoded from its prompt alone."""
        return features.coarse + self.base.no_mem_embed.transpose(1, 2)[..., None]

    def attend_to_memory(self, features: ImageFeatures, memory: MemorySelection) -> Tensor:
        """Coarse features (B, C, h, w) conditioned on past frames."""
        coarse = features.coarse
        tokens, positions = self._memory_tokens(memory)
        pointers, pointer_positions = self._pointer_tokens(memory)
        conditioned = self.base.memory_attention(
            curr=coarse.flatten(2).permute(2, 0, 1),
            curr_pos=features.position.flatten(2).permute(2, 0, 1),
            memory=torch.cat([tokens, pointers]),
            memory_pos=torch.cat([positions, pointer_positions]),
            num_obj_ptr_tokens=len(pointers),
        )
        return conditioned.permute(1, 2, 0).view(coarse.shape)

    def _memory_tokens(self, memory: MemorySelection) -> tuple[Tensor, Tensor]:
        """Memory maps and their spatial and temporal codes, each (tokens, B, C_mem)."""
        dtype = self.base.maskmem_tpos_enc.dtype
        spatial = self._memory_position
        time_codes = self.base.maskmem_tpos_enc
        batch = memory.features[0].shape[0]
        tokens = torch.cat([x.to(dtype) for x in memory.features], dim=1).transpose(0, 1)
        positions = torch.cat([spatial + time_codes[-1 - slot] for slot in memory.slots])
        return tokens, positions.expand(-1, batch, -1)

    @cached_property
    def _memory_position(self) -> Tensor:
        """The memory encoder's position code, (h·w, 1, C_mem); the same for every frame."""
        side = self.image_size // self.base.backbone_stride
        with _constants():
            grid = torch.empty(1, 1, side, side, device=self.device)
            code = self.base.memory_encoder.position_encoding(grid)
        return code.flatten(2).permute(2, 0, 1)

    @cached_property
    def _image_position(self) -> Tensor:
        """The mask decoder's position code, (1, C, h, w)."""
        with _constants():
            return self.base.sam_prompt_encoder.get_dense_pe()

    def _pointer_tokens(self, memory: MemorySelection) -> tuple[Tensor, Tensor]:
        """Object pointers cut into tokens of C_mem, their time codes, each (tokens, B, C_mem)."""
        base = self.base
        pieces = base.hidden_dim // base.mem_dim
        pointers = torch.stack(tuple(memory.pointers))
        count, batch, _ = pointers.shape
        tokens = pointers.reshape(count, batch, pieces, base.mem_dim).transpose(1, 2).flatten(0, 1)
        time = torch.stack(tuple(memory.distances)) / (base.max_obj_ptrs_in_encoder - 1)
        codes = base.obj_ptr_tpos_proj(get_1d_sine_pe(time, dim=base.hidden_dim))
        return tokens, codes.repeat_interleave(pieces, dim=0)

    def decode(
        self,
        features: ImageFeatures,
        conditioned: Tensor,
        points: PointPrompts | None = None,
        mask_logits: Tensor | None = None,
    ) -> Candidates:
        """Run the prompt encoder and the mask decoder.

        Args:
            features: of the frame, with B rows.
            conditioned: (B, C, h, w) from `attend_to_memory` or `without_memory`.
            points: clicks and box corners; None is SAM's "no point".
            mask_logits: (B, 1, S/4, S/4), a mask as a dense prompt.
        """
        if points is None:
            points = self._no_points(conditioned.shape[0])
        sparse, dense = self.base.sam_prompt_encoder(
            points=(points.coordinates, points.labels), boxes=None, masks=mask_logits
        )
        return Candidates(
            *self.base.sam_mask_decoder.predict_masks(
                image_embeddings=conditioned,
                image_pe=self._image_position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                repeat_image=False,
                high_res_features=[features.fine, features.middle],
            )
        )

    def _no_points(self, batch: int) -> PointPrompts:
        labels = torch.full((batch, 1), PADDING, dtype=torch.int32, device=self.device)
        return PointPrompts(torch.zeros(batch, 1, 2, device=self.device), labels)

    def choose(
        self, candidates: Candidates, num_points: int, preference: Tensor | None = None
    ) -> Prediction:
        """Choose a mask as SAM 2 does: of three alternatives for no or one point, else the single
        mask unless it is unstable. An absent target's mask is emptied.

        Args:
            candidates: the decoder's output.
            num_points: points in the prompt, a box counts as two, padding not.
            preference: (B, 3), added to the alternatives' predicted IoU before one is chosen.
        """
        rows = torch.arange(len(candidates.tokens), device=self.device)
        if num_points <= self.base.multimask_max_pt_num:
            quality = candidates.predicted_iou[:, 1:]
            best = (quality if preference is None else quality + preference).argmax(dim=1) + 1
            mask_logits = candidates.mask_logits[rows, best][:, None]
            predicted_iou = candidates.predicted_iou[rows, best]
            token = candidates.tokens[rows, best]
        else:
            mask_logits, iou = self.base.sam_mask_decoder._dynamic_multimask_via_stability(
                candidates.mask_logits, candidates.predicted_iou
            )
            predicted_iou = iou[:, 0]
            token = candidates.tokens[:, 0]
        present = candidates.object_score > 0
        mask_logits = torch.where(present[..., None, None], mask_logits, NO_OBJ_SCORE).float()
        pointer = self._pointer(token, present)
        return Prediction(mask_logits, predicted_iou, candidates.object_score, pointer)

    def _pointer(self, token: Tensor, present: Tensor) -> Tensor:
        return torch.where(present, self.base.obj_ptr_proj(token), self.base.no_obj_ptr)

    def mask_prompt(self, features: ImageFeatures, masks: Tensor) -> tuple[Prediction, Candidates]:
        """Take the user's mask as the output; the decoder only makes the object pointer.

        Args:
            features: of the prompted frame, with B rows.
            masks: (B, 1, S, S) float, 0 or 1, not empty.

        Returns:
            The prediction, and what the decoder itself made of the mask (for training).
        """
        logits = F.interpolate(
            masks * 20.0 - 10.0,
            size=self.base.sam_prompt_encoder.mask_input_size,
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        prompt = self.base.mask_downsample(masks)
        candidates = self.decode(features, features.coarse, mask_logits=prompt)
        present = candidates.object_score > 0
        pointer = self._pointer(candidates.tokens[:, 0], present)
        score = torch.full_like(candidates.object_score, 10.0)
        iou = torch.ones_like(candidates.predicted_iou[:, 0])
        return Prediction(logits, iou, score, pointer), candidates

    def encode_memory(
        self,
        features: ImageFeatures,
        prediction: Prediction,
        binarize: bool,
        foreground_threshold: float = 0.0,
    ) -> Tensor:
        """Encode a frame and its mask into a memory (B, h·w, C_mem).

        Args:
            features: of the frame, with B rows.
            prediction: the mask to remember and the object score.
            binarize: harden the mask, as SAM 2 does for masks that a user prompted.
            foreground_threshold: pixels with a lower foreground probability are remembered as
                background (paper, section 3.3.2); 0 keeps every pixel as it is.
        """
        base = self.base
        # As sam2 enlarges its three candidates: one alone is rounded otherwise on a single thread.
        logits = F.interpolate(
            prediction.mask_logits.expand(-1, 3, -1, -1),
            size=(self.image_size, self.image_size),
            mode="bilinear",
            align_corners=False,
        )[:, :1]
        probability = (logits > 0).to(logits.dtype) if binarize else logits.sigmoid()
        if foreground_threshold > 0:
            probability = torch.where(probability >= foreground_threshold, probability, 0.0)
        scaled = probability * base.sigmoid_scale_for_mem_enc + base.sigmoid_bias_for_mem_enc
        memory = base.memory_encoder(features.coarse, scaled, skip_mask_sigmoid=True)
        absent = (prediction.object_score <= 0)[..., None, None]
        embedding = base.no_obj_embed_spatial[..., None, None]
        memory_map = memory["vision_features"] + absent * embedding
        return memory_map.flatten(2).transpose(1, 2)


@contextmanager
def _constants() -> Iterator[None]:
    """Tensors made here may be used with and without gradients, whoever asks for them first."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _require_sam21(base: SAM2Base) -> None:
    """Refuse configurations whose flags `Sam2Model` does not implement."""
    wanted = {
        "use_mask_input_as_output_without_sam": True,
        "directly_add_no_mem_embed": True,
        "use_high_res_features_in_sam": True,
        "multimask_output_in_sam": True,
        "multimask_output_for_tracking": True,
        "use_multimask_token_for_obj_ptr": True,
        "multimask_min_pt_num": 0,
        "use_obj_ptrs_in_encoder": True,
        "add_tpos_enc_to_obj_ptrs": True,
        "proj_tpos_enc_in_obj_ptrs": True,
        "use_signed_tpos_enc_to_obj_ptrs": True,
        "pred_obj_scores": True,
        "fixed_no_obj_ptr": True,
        "soft_no_obj_ptr": False,
        "non_overlap_masks_for_mem_enc": False,
        "memory_temporal_stride_for_eval": 1,
        "max_cond_frames_in_attn": -1,
    }
    for name, value in wanted.items():
        if getattr(base, name) != value:
            raise ValueError(
                f"the model's configuration has {name}: {getattr(base, name)}, but only the "
                f"SAM 2.1 family ({name}: {value}) is supported"
            )
    if base.no_obj_embed_spatial is None:
        raise ValueError(
            "the model's configuration lacks no_obj_embed_spatial: only SAM 2.1 is supported"
        )
