"""Selects the target of a robot that follows it, records what happens, and reports at the end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from geometry_msgs.msg import Twist

from mosam_ros.demo_report import FrameRecord
from mosam_ros.following.controller import FollowerConfig
from mosam_ros.following.report import (
    NEAR_CENTER,
    FollowedFrame,
    center_offset,
    format_following,
    summarize_following,
)
from mosam_ros.nodes.demo_recorder import ANSWERS, DemoRecorder
from mosam_ros.nodes.running import run_node

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)


class FollowRecorder(DemoRecorder):
    """As the demo's recorder, with the commands on `cmd_vel`."""

    summary_file = "follow_summary.json"
    video_file = "follow.mp4"
    contact_sheet_file = "follow_contact_sheet.png"

    def _connect(self) -> None:
        super()._connect()
        self._commands: list[tuple[float, float]] = []
        self.create_subscription(Twist, "cmd_vel", self._on_command, ANSWERS)

    def _on_command(self, message: Twist) -> None:
        now = self.get_clock().now().nanoseconds / 1e9
        self._commands.append((now, message.angular.z))

    def _summary(self, records: Mapping[int, FrameRecord]) -> tuple[dict, str]:
        frames = [
            FollowedFrame(stamp / 1e9, center_offset(record.truth.unpack()), record.tracked)
            for stamp, record in records.items()
            if record.truth is not None
        ]
        limit = FollowerConfig().occluded_limit
        summary = {
            "seed": self._value("seed"),
            **summarize_following(frames, self._commands, limit),
        }
        return summary, format_following(summary)

    def _overlay(self, stamp: int) -> np.ndarray:
        """The tracker's answer, the band that the target belongs in, and the command."""
        picture = super()._overlay(stamp)
        height, width = picture.shape[:2]
        for side in (-NEAR_CENTER, NEAR_CENTER):
            x = round(width / 2 * (1 + side))
            cv2.line(picture, (x, 0), (x, height), WHITE, 1)
        index = bisect_right(self._commands, stamp / 1e9, key=lambda pair: pair[0])
        turn = self._commands[index - 1][1] if index else 0.0
        text = f"turn {turn:+.2f} rad/s" if turn else "standing"
        for color, thickness in ((BLACK, 3), (WHITE, 1)):
            place = (width // 2 - 70, height - 16)
            cv2.putText(
                picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, thickness, cv2.LINE_AA
            )
        return picture


def main(args: Sequence[str] | None = None) -> int:
    return run_node(FollowRecorder, args)


if __name__ == "__main__":
    raise SystemExit(main())
