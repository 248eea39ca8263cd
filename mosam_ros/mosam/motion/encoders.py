"""The trainable motion encoders on SAM 2's own features (paper, sections 3.2 and 4.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HISTORY = 3
"""Past velocities that the key-point encoder sees."""


class FlowEncoder(nn.Module):
    """The dense motion encoder φ_D: optical flow between the features of two frames.

    Every feature is compared with those in a window around it in the other frame; the place of the
    best match, refined by a few convolutions, is the flow.

    Args:
        fine_channels: of the features at stride 4.
        middle_channels: of the features at stride 8.
        radius: of the window, in cells of stride 4.
        width: channels that features are compared in.
    """

    def __init__(
        self, fine_channels: int, middle_channels: int, radius: int = 5, width: int = 24
    ) -> None:
        super().__init__()
        self.radius = radius
        matches = (2 * radius + 1) ** 2
        self.from_fine = nn.Conv2d(fine_channels, width, 3, padding=1)
        self.from_middle = nn.Conv2d(middle_channels, width, 1)
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        self.refine = nn.Sequential(
            nn.Conv2d(matches + 2 + width, 48, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(48, 32, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(32, 2, 3, padding=1),
        )
        last = self.refine[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        self.register_buffer("offsets", torch.stack([x, y]).flatten(1), persistent=False)

    def describe(self, fine: Tensor, middle: Tensor) -> Tensor:
        """Features to compare (N, width, h, w), of unit length; h, w are those of `fine`."""
        coarse = F.interpolate(
            self.from_middle(middle), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        return F.normalize(self.from_fine(fine) + coarse, dim=1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow (N, 2, h, w) in cells, x and y, from `first` to `second`, both from `describe`."""
        matches = self._matches(first, second)
        likely = (matches * self.sharpness.exp()).softmax(1)
        offsets = self.offsets
        assert isinstance(offsets, Tensor)
        expected = torch.einsum("nmhw,cm->nchw", likely, offsets)
        return expected + self.refine(torch.cat([likely, expected, first], dim=1))

    def _matches(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, window², h, w): how alike each feature is to those around it in the other frame.

        Place by place of the window: all at once would need window² copies of the features.
        """
        height, width = first.shape[-2:]
        side = 2 * self.radius + 1
        padded = F.pad(second, [self.radius] * 4)
        shifted = (
            padded[..., y : y + height, x : x + width] for y in range(side) for x in range(side)
        )
        return torch.stack([(first * other).sum(1) for other in shifted], dim=1)


class KeyPointEncoder(nn.Module):
    """The sparse motion encoder φ_S, trainable: where key points go, by their past and features.

    It starts as linear extrapolation and learns what to add to it.

    Args:
        feature_channels: of the features at stride 16.
        width: of its layers.
    """

    def __init__(self, feature_channels: int, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Linear(feature_channels, width)
        self.motion = nn.Linear(2 * HISTORY, width)
        self.mix = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU())
        self.out = nn.Linear(width, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, velocities: Tensor, features: Tensor) -> Tensor:
        """Velocities of key points in the next frame.

        Args:
            velocities: (B, K, HISTORY, 2), the newest last, per frame, in sizes of the target.
            features: (B, K, C) at the key points.

        Returns:
            (B, K, 2) per frame, in sizes of the target.
        """
        points = self.features(features) + self.motion(velocities.flatten(2))
        context = points.mean(1, keepdim=True).expand_as(points)
        return velocities.mean(2) + self.out(self.mix(torch.cat([points, context], dim=-1)))


class MotionEncoders(nn.Module):
    """Both encoders for a model of width C.

    Args:
        width: C; the model's features have C / 8, C / 4 and C channels at strides 4, 8 and 16.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.flow = FlowEncoder(width // 8, width // 4)
        self.key_points = KeyPointEncoder(width)


def features_at(coarse: Tensor, points: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Features at points of one image, interpolated.

    Args:
        coarse: (1, C, h, w) over the whole image.
        points: (..., 2) x, y in pixels of the image.
        image_size: (height, width).

    Returns:
        (..., C).
    """
    extent = torch.tensor([image_size[1], image_size[0]], device=points.device)
    grid = (2 * (points + 0.5) / extent - 1).reshape(1, 1, -1, 2)
    sampled = F.grid_sample(coarse.float(), grid, padding_mode="border", align_corners=False)
    return sampled[0, :, 0].T.reshape(*points.shape[:-1], -1)
