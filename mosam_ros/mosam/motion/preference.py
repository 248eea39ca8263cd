"""What the forecast of a hidden target says about the decoder's candidate masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mosam_ros.mosam.results import MotionPrompt
from mosam_ros.mosam.views import View

WEIGHT = 0.25
"""What a candidate exactly at the forecast place gains over one far away, in predicted IoU."""


def forecast_preference(
    mask_logits: Tensor,
    forecasts: Sequence[MotionPrompt | None],
    views: Sequence[View],
) -> Tensor:
    """A bonus for candidates near the forecast: a bell over the distance of their centers.

    The bell is as wide as the forecast is uncertain and the target large, so that a forecast that
    has become a guess decides nothing.

    Args:
        mask_logits: (B, M, h, w) of the candidates, over the targets' views.
        forecasts: one per row; None gives no bonus.
        views: one per row, of the image that the forecasts are in pixels of.

    Returns:
        (B, M) in 0..WEIGHT.
    """
    height, width = mask_logits.shape[-2:]
    rows = [
        _center_and_spread(f, view, (width / view.width, height / view.height))
        for f, view in zip(forecasts, views, strict=True)
    ]
    expected = torch.tensor(rows, dtype=torch.float32).to(mask_logits.device, non_blocking=True)
    masks = (mask_logits > 0).float()
    area = masks.sum((2, 3)).clamp(min=1.0)
    x = masks.sum(2) @ torch.arange(width, device=masks.device, dtype=torch.float32) / area
    y = masks.sum(3) @ torch.arange(height, device=masks.device, dtype=torch.float32) / area
    distance = ((x - expected[:, 0:1]) / expected[:, 2:3]).square()
    distance = distance + ((y - expected[:, 1:2]) / expected[:, 3:4]).square()
    known = expected[:, 4:5] * (masks.amax((2, 3)) > 0)
    return WEIGHT * known * torch.exp(-0.5 * distance)


def _center_and_spread(
    forecast: MotionPrompt | None, view: View, scale: tuple[float, float]
) -> tuple[float, float, float, float, float]:
    """x, y and their standard deviations in pixels of the logits, and whether there is any."""
    if forecast is None:
        return 0.0, 0.0, 1.0, 1.0, 0.0
    x_min, y_min, x_max, y_max = map(float, forecast.box)
    spread_x = forecast.uncertainty + 0.25 * (x_max - x_min)
    spread_y = forecast.uncertainty + 0.25 * (y_max - y_min)
    x, y = (x_min + x_max) / 2 - view.x, (y_min + y_max) / 2 - view.y
    center = (x * scale[0], y * scale[1])
    return *center, max(spread_x * scale[0], 0.5), max(spread_y * scale[1], 0.5), 1.0
