"""TRACKED, OCCLUDED, LOST with hysteresis."""

from __future__ import annotations

import pytest

from mosam_ros.mosam.presence import AS_EXPECTED, Displacement, Presence
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


def test_masks_with_scores_far_below_the_usual_one_are_not_the_target_from_the_third_on():
    presence = Presence(lost_after=30, doubt_frames=3)
    assert states(presence, [SURE] * 5 + [DOUBTFUL] * 2) == [TRACKED] * 7
    assert not presence.is_doubted
    assert states(presence, [DOUBTFUL] * 3) == [OCCLUDED] * 3
    assert presence.is_doubted and presence.frames_since_tracked == 3
    assert states(presence, [SURE]) == [TRACKED] and not presence.is_doubted


def test_doubt_needs_low_scores_in_frames_in_a_row():
    low_iou = (50, 6.0, 0.3)
    hidden_between = [DOUBTFUL, DOUBTFUL, (0, -1.0, 0.1), DOUBTFUL, DOUBTFUL]
    for frames in ([low_iou] * 6, [DOUBTFUL, DOUBTFUL, SURE] * 3, hidden_between):
        presence = Presence(lost_after=30, doubt_frames=3)
        states(presence, [SURE] * 9 + frames)
        assert presence.state is TRACKED and not presence.is_doubted


@pytest.mark.parametrize(("share", "is_doubtful"), [(0.34, True), (0.36, False)])
def test_a_score_is_low_below_a_share_of_the_median(share, is_doubtful):
    presence = Presence(lost_after=30, doubt_frames=1)
    states(presence, [(50, 2.0, 0.9), (50, 6.0, 0.9), (50, 6.0, 0.9)])
    states(presence, [(50, 6.0 * share, 0.9)])
    assert presence.is_doubted is is_doubtful


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


@pytest.mark.parametrize(
    ("score", "displacement", "misplaced"),
    [
        (4.0, Displacement(center=0.9), True),
        (4.0, Displacement(center=0.6), False),
        (5.0, Displacement(center=3.0), False),
        (4.0, Displacement(edge=0.5), True),
        (4.0, Displacement(edge=0.3), False),
        (5.0, Displacement(edge=2.0), False),
        (4.0, AS_EXPECTED, False),
    ],
)
def test_a_mask_out_of_place_is_doubtful_if_its_score_is_lower_too(score, displacement, misplaced):
    presence = Presence(lost_after=30, doubt_frames=3)
    states(presence, [SURE] * 9)
    for state in (TRACKED, TRACKED, OCCLUDED if misplaced else TRACKED):
        found = presence.update(50, score, 0.9, prompted=False, displacement=displacement)
        assert found is state and presence.is_misplaced is misplaced
    assert presence.is_doubted is misplaced
    presence.update(50, score, 0.9, prompted=True, displacement=displacement)
    assert presence.state is TRACKED and not presence.is_misplaced


@pytest.mark.parametrize("turns", range(4))
def test_what_ends_short_of_an_edge_at_which_the_target_leaves_is_displaced(turns):
    """The same scene with the edge on the left, on top, on the right and at the bottom."""

    def turned(box: list[float]) -> list[float]:
        for _ in range(turns):
            x_min, y_min, x_max, y_max = box
            box = [100 - y_max, x_min, 100 - y_min, x_max]
        return box

    def edge(found: list[float], expected: list[float], before: list[float]) -> float:
        boxes = (turned(box) for box in (found, expected, before))
        return Displacement.of(*boxes, image_size=(100, 100), target_size=20.0).edge

    leaving, inside, at_edge = [-5, 40, 15, 60], [30, 40, 50, 60], [0, 40, 20, 60]
    assert edge([10, 40, 25, 60], leaving, inside) == pytest.approx(0.5)
    assert edge(at_edge, leaving, inside) == 0.0
    assert edge([10, 40, 25, 60], leaving, at_edge) == 0.0
    assert edge([10, 40, 25, 60], inside, inside) == 0.0
    assert edge([10, 40, 25, 60], [1, 40, 21, 60], [2, 40, 22, 60]) == pytest.approx(0.5)
    assert edge([10, 40, 25, 60], [2, 40, 22, 60], inside) == 0.0


def test_the_center_is_held_to_the_part_of_the_forecast_within_the_frame():
    def center(expected: list[float]) -> float:
        inside = [60.0, 40, 80, 60]
        return Displacement.of(inside, expected, inside, (100, 100), target_size=10.0).center

    assert center([30, 40, 50, 60]) == pytest.approx(3.0)
    assert center([90, 40, 110, 60]) == center([190, 40, 210, 60]) == pytest.approx(3.0)


def test_a_faint_target_is_to_be_remembered_only_when_it_comes_back():
    presence = Presence(lost_after=30, doubt_frames=0)
    steps = [*[(6.0, 1.0)] * 4, (1.2, 0.2), (-2.0, 1.0), (1.2, 1.0), (1.2, 1.0), (3.0, 0.5)]
    for score, ratio in steps:
        states(presence, [(50 * (score > 0), score, 0.9)])
        assert presence.ratio_to_remember == pytest.approx(ratio), score
    states(presence, [(50, 6.0, 0.9)] * 6 + [(50, 1.2, 0.9)])
    assert presence.ratio_to_remember == pytest.approx(0.2)
    presence.update(50, 3.0, 0.9, prompted=False, displacement=Displacement(center=2.0))
    assert presence.is_misplaced and presence.ratio_to_remember == 0.0


def test_only_a_target_that_was_in_sight_is_suspect():
    presence = Presence(lost_after=30, doubt_frames=3)
    states(presence, [SURE] * 9 + [DOUBTFUL] * 2)
    assert not presence.is_suspect
    states(presence, [DOUBTFUL])
    assert presence.is_doubted and presence.is_suspect
    states(presence, [(0, -1.0, 0.1)] + [DOUBTFUL] * 3)
    assert presence.is_doubted and not presence.is_suspect
    presence.update(50, 3.0, 0.9, prompted=False, displacement=Displacement(center=2.0))
    assert presence.is_suspect


def test_without_doubt_frames_no_mask_is_doubted():
    presence = Presence(lost_after=30, doubt_frames=0)
    assert states(presence, [SURE] * 9 + [DOUBTFUL] * 9) == [TRACKED] * 18
