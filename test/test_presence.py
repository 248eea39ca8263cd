"""TRACKED, OCCLUDED, LOST with hysteresis."""

from __future__ import annotations

from mosam_ros.mosam.presence import Presence
from mosam_ros.mosam.results import TargetState

TRACKED, OCCLUDED, LOST = TargetState.TRACKED, TargetState.OCCLUDED, TargetState.LOST


def states(presence: Presence, frames: list[tuple[int, float, float]]) -> list[TargetState]:
    return [presence.update(area, score, iou, prompted=False) for area, score, iou in frames]


def test_a_hidden_target_is_occluded_at_once_and_lost_after_a_time():
    presence = Presence(lost_after=3)
    assert states(presence, [(50, 2.0, 0.9)] + [(0, -2.0, 0.1)] * 4) == [
        TRACKED,
        OCCLUDED,
        OCCLUDED,
        OCCLUDED,
        LOST,
    ]
    assert presence.frames_since_tracked == 4


def test_an_unsure_glimpse_must_be_confirmed():
    presence = Presence(lost_after=30)
    frames = [(50, 2.0, 0.9), (0, -1.0, 0.1), (50, 1.0, 0.5), (0, -1.0, 0.1), (50, 1.0, 0.5)]
    assert states(presence, frames) == [TRACKED, OCCLUDED, OCCLUDED, OCCLUDED, OCCLUDED]
    assert states(presence, [(50, 1.0, 0.5)]) == [TRACKED]


def test_a_sure_mask_or_a_prompt_is_believed_at_once():
    presence = Presence(lost_after=1)
    assert states(presence, [(0, -1.0, 0.1)] * 3)[-1] is LOST
    assert states(presence, [(50, 1.0, 0.9)]) == [TRACKED]
    states(presence, [(0, -1.0, 0.1)])
    assert presence.update(50, 1.0, 0.2, prompted=True) is TRACKED


def test_an_empty_mask_is_not_the_target_whatever_its_score():
    assert states(Presence(lost_after=5), [(0, 5.0, 0.9)]) == [OCCLUDED]
