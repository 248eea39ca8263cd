"""The bundled model's own parts under sam2's ImageEncoder: a small convolutional trunk in Hiera's
place, and a position code that is not copied for every image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import PositionEmbeddingSine
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class _ConvNorm(nn.Sequential):
    """A convolution and its batch normalisation, in one step where they are not trained."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self._merged: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training or (torch.is_grad_enabled() and self[0].weight.requires_grad):
            return super().forward(x)
        if self._merged is None:
            self._merged = self._merge()
        return self._merged(x)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _merge(self) -> Callable[[Tensor], Tensor]:
        """The convolution that does what both do."""
        return fuse_conv_bn_eval(*self).to(memory_format=torch.channels_last).forward

    def train(self, mode: bool = True) -> _ConvNorm:
        self._merged = None
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> _ConvNorm:
        self._merged = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._merged = None
        super()._load_from_state_dict(*args, **kwargs)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _ConvNorm(channels, channels)
        self.second = _ConvNorm(channels, channels)
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
        self.stem = _ConvNorm(3, widths[0], stride=2)
        self.down = nn.ModuleList(
            _ConvNorm(widths[i], widths[i + 1], stride=2) for i in range(len(blocks))
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
        self.fuse = nn.ModuleList(_ConvNorm(fine, fine) for fine in coarse_to_fine[1:])
        self.channel_list = list(coarse_to_fine[1:])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (N, 3, S, S) to feature maps at strides 4, 8 and 16, finest first."""
        x = F.relu(self.stem(images.contiguous(memory_format=torch.channels_last)))
        maps = []
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(F.relu(down(x)))
            maps.append(x)
        outputs: list[Tensor] = []
        for lateral, fuse, skip in zip(self.lateral, self.fuse, reversed(maps[:-1]), strict=True):
            x = F.interpolate(lateral(x), size=skip.shape[-2:], mode="nearest")
            x = F.relu(fuse(x + skip))
            outputs.append(x)
        return [x.contiguous() for x in outputs[::-1]]


class SharedPosition(PositionEmbeddingSine):
    """sam2's sine code of positions, one for all images of a size."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._codes: dict[tuple[torch.Size, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """The code (N, C, h, w) for feature maps of that shape; its rows share their memory."""
        kind = x.shape[-2:], x.device
        if kind not in self._codes:
            with torch.inference_mode(False):
                self._codes[kind] = super().forward(torch.empty(1, 1, *kind[0], device=x.device))
        return self._codes[kind].expand(len(x), -1, -1, -1)
