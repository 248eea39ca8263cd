"""The generated messages are what the .msg files promise."""

import re
from pathlib import Path

import pytest

msg = pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")

MSG_FILES = sorted((Path(__file__).parents[1] / "msg").glob("*.msg"))
FIELDS = {
    "TargetSelection": "header action target_id label points point_labels box mask",
    "MotionPrompt": "predicted_stamp valid key_points box velocity uncertainty",
    "TargetPosition": "id label state valid position position_covariance extent velocity "
    "velocity_covariance depth_share",
    "TargetPositionArray": "header positions",
    "TrackedTarget": "id label state box centroid area mask_confidence presence "
    "frames_since_seen motion_prompt",
    "TrackedTargetArray": "header targets seconds_convert seconds_encode seconds_decode "
    "seconds_memory seconds_motion seconds_total",
}


def test_there_is_a_class_for_every_file():
    assert [path.stem for path in MSG_FILES] == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name):
    message = getattr(msg, name)()
    assert list(message.get_fields_and_field_types()) == FIELDS[name].split()


def test_constants():
    selection, target = msg.TargetSelection, msg.TrackedTarget
    assert (selection.SELECT, selection.REFINE, selection.REMOVE, selection.CLEAR) == (0, 1, 2, 3)
    assert (target.TRACKED, target.OCCLUDED, target.LOST) == (0, 1, 2)


def test_an_untouched_selection_selects_on_the_newest_frame_with_an_id_of_the_nodes_choice():
    selection = msg.TargetSelection()
    assert selection.action == msg.TargetSelection.SELECT
    assert selection.target_id == 0
    assert (selection.header.stamp.sec, selection.header.stamp.nanosec) == (0, 0)
    assert not selection.points and not selection.point_labels and not selection.box
    assert selection.mask.height == 0


def test_an_untouched_forecast_is_not_valid():
    assert msg.MotionPrompt().valid is False


def test_ids_are_the_values_of_a_16_bit_label_image():
    assert msg.TrackedTarget.get_fields_and_field_types()["id"] == "uint16"
    assert msg.TargetSelection.get_fields_and_field_types()["target_id"] == "uint16"


@pytest.mark.parametrize("path", MSG_FILES, ids=lambda path: path.stem)
def test_every_field_is_explained_in_the_lines_above_it(path):
    lines = path.read_text().splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        if re.match(r"[a-zA-Z]", line):
            assert above.startswith("# "), f"{path.name}: no comment above {line!r}"
