"""A small convolutional image trunk that takes Hiera's place under sam2's ImageEncoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def _conv_norm(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv_norm(channels, channels)
        self.second = _conv_norm(channels, channels)
        nn.init.zeros_(next(self.second[1].parameters()))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ConvTrunk(nn.Module):
    """A U-shaped residual network: down to stride 32 and up again to strides 16, 8 and 4.

    Args:
        widths: channels at strides 2, 4, 8, 16 and 32.
        blocks: residual blocks at strides 4, 8, 16 and 32.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (16, 32, 64, 112, 128),
        blocks: tuple[int, ...] = (1, 1, 2, 2),
    ) -> None:
        super().__init__()
        self.stem = _conv_norm(3, widths[0], stride=2)
        self.down = nn.ModuleList(
            _conv_norm(widths[i], widths[i + 1], stride=2) for i in range(len(blocks))
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(_ResidualBlock(widths[i + 1]) for _ in range(count)))
            for i, count in enumerate(blocks)
        )
        coarse_to_fine = tuple(reversed(widths[1:]))
        self.lateral = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1)
            for coarse, fine in zip(coarse_to_fine[:-1], coarse_to_fine[1:], strict=True)
        )
        self.fuse = nn.ModuleList(_conv_norm(fine, fine) for fine in coarse_to_fine[1:])
        self.channel_list = list(coarse_to_fine[1:])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (N, 3, S, S) to feature maps at strides 4, 8 and 16, finest first."""
        x = F.relu(self.stem(images))
        maps = []
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(F.relu(down(x)))
            maps.append(x)
        outputs: list[Tensor] = []
        for lateral, fuse, skip in zip(self.lateral, self.fuse, reversed(maps[:-1]), strict=True):
            x = F.interpolate(lateral(x), size=skip.shape[-2:], mode="nearest")
            x = F.relu(fuse(x + skip))
            outputs.append(x)
        return outputs[::-1]
