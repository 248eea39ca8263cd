"""Random messages, most of them wrong, which must not touch the target PROTECTED."""

from __future__ import annotations

from array import array

import numpy as np
from geometry_msgs.msg import Point32
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mosam_ros.msg import TargetSelection
from mosam_ros.nodes.image_input import ENCODINGS

PROTECTED = 7
NUMBERS = (float("nan"), float("inf"), -float("inf"), 1e30, -1.0, 0.0, 5.5, 100.0, 160.0, 319.0)
WORDS = ("", "cup", "\N{SNOWMAN}", "x" * 300, "a\nb", "%s {0}")


class Garbage:
    """A stream of messages that only depends on its seed.

    Args:
        seed: of the random numbers.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def one_of(self, things):
        return things[self._rng.integers(len(things))]

    def _numbers(self, most: int) -> list[float]:
        return [float(self.one_of(NUMBERS)) for _ in range(self._rng.integers(most + 1))]

    def header(self, newest: float) -> Header:
        """A stamp of nothing, the past, the frames kept or the future."""
        seconds = self.one_of((0.0, 0.0, 1.0, newest - 0.5, newest - 30.0, newest + 1e4, 2e9))
        header = Header(frame_id=self.one_of(WORDS))
        header.stamp.sec = int(seconds)
        header.stamp.nanosec = int(seconds % 1 * 1e9)
        return header

    def selection(self, newest: float) -> TargetSelection:
        """Anything but a CLEAR, and nothing about the target PROTECTED; seldom of use.

        Args:
            newest: the stamp of the newest frame, seconds.
        """
        ids = (0, 0, 1, 2, 3, 65535, int(self._rng.integers(8, 65535)))
        actions = (0, 0, 0, 1, 2, 4, 255, int(self._rng.integers(4, 256)))
        selection = TargetSelection(
            header=self.header(newest),
            action=self.one_of(actions),
            target_id=self.one_of(ids),
            label=self.one_of(WORDS),
            box=self._numbers(5) if self._rng.random() < 0.3 else [],
        )
        if self._rng.random() < 0.5:
            coordinates = [
                (float(x), float(y)) for x, y in zip(*[self._numbers(4)] * 2, strict=True)
            ]
            selection.points = [Point32(x=x, y=y) for x, y in coordinates if max(x, y) < 1e38]
            selection.point_labels = self._rng.integers(0, 3, self._rng.integers(5)).tolist()
        if self._rng.random() < 0.2:
            selection.mask = self.image(newest)
        return selection

    def image(self, newest: float) -> Image:
        """An image that hardly ever fits together."""
        height, width = (int(self.one_of((0, 1, 3, 10, 240, 320, 2**31))) for _ in range(2))
        message = Image(
            header=self.header(newest),
            encoding=self.one_of((*ENCODINGS, "", "nv12", "RGB8", "\N{SNOWMAN}")),
            height=height,
            width=width,
            step=int(self.one_of((0, 1, width, 3 * width, 2**32 - 1)) % 2**32),
            is_bigendian=int(self._rng.integers(2)),
        )
        message.data = array("B", self._rng.bytes(int(self._rng.integers(0, 2000))))
        return message
