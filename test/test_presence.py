"""TRACKED, OCCLUDED, LOST with hysteresis."""

from __future__ import annotations

import pytest

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


SURE, DOUBTFUL = (50, 6.0, 0.9), (50, 1.5, 0.6)


def test_masks_with_scores_far_below_the_usual_ones_are_not_the_target_from_the_third_on():
    presence = Presence(lost_after=30, doubt_frames=3)
    assert states(presence, [SURE] * 5 + [DOUBTFUL] * 2) == [TRACKED] * 7
    assert not presence.is_doubted
    assert states(presence, [DOUBTFUL] * 3) == [OCCLUDED] * 3
    assert presence.is_doubted and presence.frames_since_tracked == 3
    assert states(presence, [SURE]) == [TRACKED] and not presence.is_doubted


def test_doubt_needs_low_values_of_both_scores_in_frames_in_a_row():
    low_score, low_iou = (50, 1.5, 0.8), (50, 3.0, 0.3)
    for frames in ([low_score] * 6, [low_iou] * 6, [DOUBTFUL, DOUBTFUL, SURE] * 3):
        presence = Presence(lost_after=30, doubt_frames=3)
        assert states(presence, [SURE] * 9 + frames) == [TRACKED] * (9 + len(frames))
    presence = Presence(lost_after=30, doubt_frames=3)
    hidden_between = [DOUBTFUL, DOUBTFUL, (0, -1.0, 0.1), DOUBTFUL, DOUBTFUL]
    assert states(presence, [SURE] * 9 + hidden_between)[-1] is TRACKED


def test_a_target_that_is_always_hard_to_make_out_is_not_doubted():
    presence = Presence(lost_after=30, doubt_frames=3)
    assert states(presence, [DOUBTFUL] * 60) == [TRACKED] * 60


def test_what_stays_doubtful_becomes_what_is_usual():
    presence = Presence(lost_after=100, doubt_frames=3)
    assert states(presence, [SURE] * 30 + [DOUBTFUL] * 10)[-1] is OCCLUDED
    assert states(presence, [DOUBTFUL] * 10)[-1] is TRACKED


def test_what_the_user_shows_is_not_doubted_and_says_nothing_of_what_is_usual():
    presence = Presence(lost_after=30, doubt_frames=3)
    states(presence, [SURE] * 9 + [DOUBTFUL] * 3)
    assert presence.update(50, 10.0, 1.0, prompted=True) is TRACKED and not presence.is_doubted
    assert states(presence, [DOUBTFUL] * 9) == [TRACKED] * 9


def test_the_score_ratio_is_that_to_the_median_of_the_masks_seen_before():
    presence = Presence(lost_after=30)
    assert presence.score_ratio == 1.0
    states(presence, [(50, 4.0, 0.9)])
    assert presence.score_ratio == 1.0
    for score, ratio in ((6.0, 1.5), (1.0, 0.2), (-2.0, -0.5), (2.0, 0.5)):
        states(presence, [(50 * (score > 0), score, 0.9)])
        assert presence.score_ratio == pytest.approx(ratio)
    presence.update(50, 10.0, 1.0, prompted=True)
    assert presence.score_ratio == 1.0


def test_a_mask_far_from_where_the_target_is_expected_is_doubtful_if_its_score_is_lower_too():
    presence = Presence(lost_after=30, doubt_frames=3)
    states(presence, [SURE] * 9)
    for score, displacement, misplaced in ((4.0, 0.9, True), (4.0, 0.6, False), (5.0, 3.0, False)):
        presence.update(50, score, 0.9, prompted=False, displacement=displacement)
        assert presence.is_misplaced is misplaced and not presence.is_doubted
    far = [presence.update(50, 4.0, 0.9, prompted=False, displacement=2.0) for _ in range(3)]
    assert far == [TRACKED, TRACKED, OCCLUDED] and presence.is_doubted
    assert presence.update(50, 4.0, 0.9, prompted=True, displacement=2.0) is TRACKED
    assert not presence.is_misplaced


def test_a_faint_target_is_to_be_remembered_only_when_it_comes_back():
    presence = Presence(lost_after=30, doubt_frames=0)
    steps = [*[(6.0, 1.0)] * 4, (1.2, 0.2), (-2.0, 1.0), (1.2, 1.0), (1.2, 1.0), (3.0, 0.5)]
    for score, ratio in steps:
        states(presence, [(50 * (score > 0), score, 0.9)])
        assert presence.ratio_to_remember == pytest.approx(ratio), score
    states(presence, [(50, 6.0, 0.9)] * 6 + [(50, 1.2, 0.9)])
    assert presence.ratio_to_remember == pytest.approx(0.2)
    presence.update(50, 3.0, 0.9, prompted=False, displacement=2.0)
    assert presence.is_misplaced and presence.ratio_to_remember == 0.0


def test_without_doubt_frames_no_mask_is_doubted():
    presence = Presence(lost_after=30, doubt_frames=0)
    assert states(presence, [SURE] * 9 + [DOUBTFUL] * 9) == [TRACKED] * 18
