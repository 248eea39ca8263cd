"""The targets as vision_msgs detections, for whoever has vision_msgs. No node in sight."""

from __future__ import annotations

from typing import Any

from std_msgs.msg import Header

from mosam_ros.mosam.results import FrameResult, TargetResult


def detections_message(result: FrameResult, header: Header) -> Any:
    """A Detection2DArray with one detection per target that has a mask.

    Its `id` is the target's id, its class the target's label, its score the mask's predicted IoU.
    Its box, in pixels, is that of vision_msgs' own `createAABB2D`: center = corner + size / 2.

    Args:
        result: what the tracker said about the frame.
        header: the frame's.

    Raises:
        ImportError: vision_msgs is not installed.
    """
    from vision_msgs.msg import Detection2DArray

    found = sorted(result.targets, key=lambda target: target.target_id)
    return Detection2DArray(
        header=header, detections=[_detection(t, header) for t in found if t.box is not None]
    )


def _detection(target: TargetResult, header: Header) -> Any:
    from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose

    assert target.box is not None
    detection = Detection2D(header=header, id=str(target.target_id))
    box = target.box
    detection.bbox.center.position.x = box.x + box.width / 2
    detection.bbox.center.position.y = box.y + box.height / 2
    detection.bbox.size_x, detection.bbox.size_y = float(box.width), float(box.height)
    guess = ObjectHypothesisWithPose()
    guess.hypothesis.class_id = target.label
    guess.hypothesis.score = float(target.predicted_iou)
    detection.results = [guess]
    return detection
