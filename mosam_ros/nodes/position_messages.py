"""Depth images and lenses from their messages, and positions into theirs. No node in sight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import ColorRGBA, Header

from mosam_ros.localization.camera import Camera
from mosam_ros.localization.target_motion import Velocity
from mosam_ros.localization.target_position import TargetPosition
from mosam_ros.msg import TargetPosition as TargetPositionMessage
from mosam_ros.msg import TargetPositionArray, TrackedTarget
from mosam_ros.nodes.image_input import ImageError, image_pixels

PINHOLE_LENSES = ("", "plumb_bob", "rational_polynomial")

STATE_COLORS = {
    TrackedTarget.TRACKED: (0.1, 0.9, 0.2),
    TrackedTarget.OCCLUDED: (0.95, 0.7, 0.1),
    TrackedTarget.LOST: (0.6, 0.6, 0.6),
}

NO_TURN = Quaternion(w=1.0)


def depth_pixels(message: Image) -> NDArray:
    """The depth as it was sent: (height, width) uint16 in millimetres or float32 in metres.

    Raises:
        ImageError: another encoding, no pixels, or too little data.
    """
    if message.encoding not in ("16UC1", "mono16", "32FC1"):
        raise ImageError(
            f"the depth's encoding is {message.encoding!r}: send 16UC1 (millimetres) or "
            "32FC1 (metres)"
        )
    return image_pixels(message)


def camera_from_info(info: CameraInfo, size: tuple[int, int], rectified: bool) -> Camera:
    """The lens that images, masks and depth were seen through.

    Args:
        info: what the camera says about itself.
        size: (height, width) of the images in pixels.
        rectified: whether they are, so that P counts instead of K and the distortion.

    Raises:
        ImageError: not calibrated, calibrated for another size, or a lens that is not understood.
    """
    if (info.height, info.width) != size:
        raise ImageError(
            f"camera_info is for {info.width}x{info.height}, the images are "
            f"{size[1]}x{size[0]}: give the camera_info of the tracked camera"
        )
    if rectified:
        matrix, distortion = np.reshape(info.p, (3, 4)), ()
    else:
        if info.distortion_model not in PINHOLE_LENSES:
            raise ImageError(
                f"the lens is {info.distortion_model!r}: rectify the images and set rectified"
            )
        matrix, distortion = np.reshape(info.k, (3, 3)), tuple(info.d)[:8]
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise ImageError("camera_info has no focal length: calibrate the camera")
    if not (np.isfinite(matrix).all() and np.isfinite(distortion).all()):
        raise ImageError("a number in camera_info is not finite: calibrate the camera")
    return Camera(
        fx=matrix[0, 0], fy=matrix[1, 1], cx=matrix[0, 2], cy=matrix[1, 2], distortion=distortion
    )


def position_message(
    target: TrackedTarget, found: TargetPosition | None, velocity: Velocity | None
) -> TargetPositionMessage:
    """One target's position, not valid where none was found."""
    message = TargetPositionMessage(id=target.id, label=target.label, state=target.state)
    if found is None or velocity is None:
        return message
    message.valid = True
    message.position = Point(**_axes(found.position))
    message.position_covariance = found.covariance.ravel()
    message.extent = Vector3(**_axes(found.extent))
    message.velocity = Vector3(**_axes(velocity.velocity))
    message.velocity_covariance = velocity.covariance.ravel()
    message.depth_share = found.depth_share
    return message


def _axes(vector: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip("xyz", map(float, vector), strict=True))


def poses(positions: TargetPositionArray) -> PoseArray:
    """Where the measured targets are; they have no orientation of their own."""
    return PoseArray(
        header=positions.header,
        poses=[
            Pose(position=item.position, orientation=NO_TURN)
            for item in positions.positions
            if item.valid
        ],
    )


def markers(positions: TargetPositionArray, lifetime: float):
    """A MarkerArray: a box, a name and an arrow per measured target.

    Args:
        positions: what to show.
        lifetime: seconds after which a marker that is not renewed goes away.
    """
    from visualization_msgs.msg import MarkerArray

    shown = [item for item in positions.positions if item.valid]
    return MarkerArray(
        markers=[
            marker for item in shown for marker in _target_markers(item, positions.header, lifetime)
        ]
    )


def _target_markers(item: TargetPositionMessage, header: Header, lifetime: float) -> Sequence:
    from visualization_msgs.msg import Marker

    red, green, blue = STATE_COLORS.get(item.state, STATE_COLORS[TrackedTarget.LOST])

    def marker(name: str, kind: int, alpha: float) -> Marker:
        whole, rest = divmod(lifetime, 1.0)
        return Marker(
            header=header,
            ns=name,
            id=item.id,
            type=kind,
            pose=Pose(orientation=NO_TURN),
            color=ColorRGBA(r=red, g=green, b=blue, a=alpha),
            lifetime=Duration(sec=int(whole), nanosec=int(rest * 1e9)),
        )

    center, size, speed = item.position, item.extent, item.velocity
    box = marker("extent", Marker.CUBE, 0.4)
    box.pose.position = center
    # RViz draws nothing that has no thickness.
    box.scale = Vector3(**{axis: max(getattr(size, axis), 0.01) for axis in "xyz"})
    name = marker("name", Marker.TEXT_VIEW_FACING, 1.0)
    name.pose.position = Point(x=center.x, y=center.y - size.y / 2 - 0.05, z=center.z)
    name.scale.z = 0.08
    name.text = f"{item.id} {item.label}".strip()
    arrow = marker("velocity", Marker.ARROW, 0.9)
    tip = Point(x=center.x + speed.x, y=center.y + speed.y, z=center.z + speed.z)
    arrow.points = [center, tip]
    arrow.scale = Vector3(x=0.02, y=0.05, z=0.0)
    return box, name, arrow
