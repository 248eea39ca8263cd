"""Selections on past frames: the right object, in bounded time, and the others never notice."""

from __future__ import annotations

import math
from dataclasses import replace

import crossing
import numpy as np
import pytest

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.catch_up import (
    CATCH_UP_FRAMES,
    MAX_CATCHING_UP,
    FrameBuffer,
    SeenTarget,
    StreamTracker,
    seen_targets,
)
from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import Box, FrameResult, StageSeconds, TargetState
from mosam_ros.mosam.selection import Action, Selection
from mosam_ros.mosam.tracker import MosamTracker, TrackerConfig

RATE = 30.0
NOW = crossing.GAP_FRAMES
"""The frame in which the second object is where the first one was in frame 0."""

X, Y = crossing.center(0, 0)
BOX = Prompt.from_box(X - 32, Y - 32, X + 32, Y + 32)
MASK = Prompt.from_mask(crossing.mask(0, 0))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("nano", device="cpu")


def stamp(index: int) -> float:
    return 100.0 + index / RATE


def play(stream: StreamTracker, frames: range, seconds: float = 0.001) -> list[FrameResult]:
    """Track frames with the least catching up that there is: one past frame per new one."""
    results = []
    for index in frames:
        stream.take(crossing.frame(index), stamp(index))
        results.append(stream.track())
        stream.catch_up(seconds)
    return results


def stream_at_now(loaded: LoadedModel, **options) -> StreamTracker:
    """A stream without targets that has just taken the frame NOW."""
    stream = StreamTracker(MosamTracker(loaded), options.pop("buffer_seconds", 2.0), **options)
    play(stream, range(NOW))
    stream.take(crossing.frame(NOW), stamp(NOW))
    return stream


def overlaps(result: FrameResult, target_id: int, index: int) -> tuple[float, float]:
    """IoU of a target's mask with each of the two objects."""
    (mask,) = [t.mask for t in result.targets if t.target_id == target_id]
    return mask_iou(mask, crossing.mask(0, index)), mask_iou(mask, crossing.mask(1, index))


def test_the_same_pixels_mean_one_object_then_and_another_one_now(loaded):
    stream = stream_at_now(loaded)
    then = stream.select(BOX, "then", stamp=stamp(0))
    now = stream.select(BOX, "now")
    assert (then.behind, then.too_old) == (pytest.approx(0.5), 0.0)
    assert now.behind == 0.0
    assert stream.catching_up == (then.target_id,) and stream.target_ids == (now.target_id,)
    stream.track()
    stream.catch_up(0.001)
    last = NOW + CATCH_UP_FRAMES + 1
    results = play(stream, range(NOW + 1, last + 1))
    assert stream.catching_up == () and stream.target_ids == (now.target_id, then.target_id)
    first, second = overlaps(results[-1], then.target_id, last)
    assert first > 0.8 and second < 0.1
    first, second = overlaps(results[-1], now.target_id, last)
    assert first < 0.1 and second > 0.8
    (joined,) = [t for t in results[-1].targets if t.target_id == then.target_id]
    assert (joined.label, joined.state) == ("then", TargetState.TRACKED)
    assert joined.motion_prompt.valid, "its motion was learnt on the way"


def test_with_time_enough_no_frame_is_skipped(loaded):
    """It joins with the very masks of a tracker that had been told at once."""
    told_at_once = MosamTracker(loaded)
    target_id = told_at_once.add(BOX)
    for index in range(NOW + 1):
        told_at_once.track(crossing.frame(index), stamp(index))
    stream = stream_at_now(loaded)
    assert stream.select(BOX, stamp=stamp(0)).target_id == target_id
    stream.track()
    stream.catch_up(1000.0)
    assert stream.catching_up == ()
    for index in range(NOW + 1, NOW + 5):
        expected = told_at_once.track(crossing.frame(index), stamp(index)).targets[0]
        (result,) = play(stream, range(index, index + 1))
        difference = result.targets[0].mask_logits - expected.mask_logits
        assert np.abs(difference).max() <= 1e-3


def test_the_others_do_not_notice(loaded):
    alone, busy = (StreamTracker(MosamTracker(loaded), 2.0) for _ in range(2))
    for stream in (alone, busy):
        stream.take(crossing.frame(0), stamp(0))
        stream.select(Prompt.from_mask(crossing.mask(1, 0)), target_id=5)
    for index in range(NOW + CATCH_UP_FRAMES):
        seen = []
        for stream in (alone, busy):
            stream.take(crossing.frame(index), stamp(index))
            if stream is busy and index == NOW - 6:
                stream.select(BOX, target_id=9, stamp=stamp(0))
            seen.append(stream.track().targets[0])
            stream.catch_up(0.001)
        assert [target.target_id for target in seen] == [5, 5]
        assert np.array_equal(seen[0].mask, seen[1].mask)
        assert np.abs(seen[0].mask_logits - seen[1].mask_logits).max() <= 1e-4
    assert busy.target_ids == (5, 9)


def test_with_the_least_time_it_ends_all_the_same(loaded):
    stream = stream_at_now(loaded)
    stream.select(BOX, stamp=stamp(0))
    stream.track()
    for index in range(NOW + 1, NOW + CATCH_UP_FRAMES + 1):
        stream.catch_up(0.0)
        stream.take(crossing.frame(index), stamp(index))
        stream.track()
    assert stream.catching_up, "one frame after each new one"
    stream.catch_up(0.0)
    assert stream.catching_up == (), "the frames in between were skipped"


def test_a_stamp_of_the_future_or_none_means_the_newest_frame(loaded):
    stream = stream_at_now(loaded)
    for moment in (stamp(NOW), stamp(NOW) + 5.0, None):
        selected = stream.select(BOX, stamp=moment)
        assert (selected.behind, selected.too_old) == (0.0, 0.0)
    assert stream.catching_up == () and len(stream.target_ids) == 3


def test_a_stamp_before_the_buffer_means_its_oldest_frame(loaded):
    stream = stream_at_now(loaded, buffer_seconds=0.21)
    selected = stream.select(BOX, stamp=stamp(0))
    assert selected.behind == pytest.approx(0.2, abs=1e-6)
    assert selected.too_old == pytest.approx(0.3, abs=1e-6)


def test_without_a_buffer_all_selections_are_about_now(loaded):
    stream = stream_at_now(loaded, buffer_seconds=0.0)
    selected = stream.select(BOX, stamp=stamp(0))
    assert selected.behind == 0.0 and selected.too_old == pytest.approx(0.5)
    assert stream.target_ids == (selected.target_id,)


def test_what_catches_up_can_be_removed_cleared_and_refined(loaded):
    stream = stream_at_now(loaded)
    ids = [stream.select(BOX, stamp=stamp(0)).target_id for _ in range(3)]
    assert ids == [1, 2, 3]
    stream.remove(1)
    assert stream.catching_up == (2, 3)
    with pytest.raises(PromptError, match="no target 1"):
        stream.remove(1)
    stream.track()
    stream.catch_up(0.0)
    assert stream.catching_up == (3, 2), "target 2 is on its way"
    stream.take(crossing.frame(NOW + 1), stamp(NOW + 1))
    stream.refine(2, Prompt.from_mask(crossing.mask(0, NOW + 1)))
    assert stream.target_ids == (2,), "a correction is about now, so it is here at once"
    assert overlaps(stream.track(), 2, NOW + 1)[0] > 0.6
    stream.clear()
    assert stream.target_ids == stream.catching_up == ()
    assert stream.memory_bytes() == 0


def test_a_correction_about_now_leaves_a_selection_of_the_past_in_its_frame(loaded):
    """Both came before the first frame of the way was tracked."""
    stream = stream_at_now(loaded)
    target_id = stream.select(MASK, stamp=stamp(0)).target_id
    corrected = stream.refine(target_id, correction(NOW))
    assert corrected.behind == 0.0 and stream.catching_up == (target_id,)
    stream.track()
    stream.catch_up(1000.0)
    told_at_once = MosamTracker(loaded)
    told_at_once.add(MASK)
    for index in range(NOW + 2):
        if index == NOW:
            told_at_once.refine(1, correction(NOW))
        expected = told_at_once.track(crossing.frame(index), stamp(index)).targets[0]
    (result,) = play(stream, range(NOW + 1, NOW + 2))
    difference = result.targets[0].mask_logits - expected.mask_logits
    assert np.abs(difference).max() <= 1e-3


OUTSIDE = Prompt.from_points([(5000, 5000)])


@pytest.mark.parametrize("past", [True, False])
def test_a_correction_that_does_not_fit_leaves_a_target_that_does(loaded, past):
    stream = stream_at_now(loaded)
    moment = stamp(0) if past else stamp(NOW)
    index = 0 if past else NOW
    target_id = stream.select(Prompt.from_mask(crossing.mask(0, index)), stamp=moment).target_id
    for correction_stamp in (moment, stamp(3), None):
        with pytest.raises(PromptError, match="lies outside the image"):
            stream.refine(target_id, OUTSIDE, correction_stamp)
    stream.track()
    stream.catch_up(1000.0)
    (result,) = play(stream, range(NOW + 1, NOW + 2))
    assert overlaps(result, target_id, NOW + 1)[0] > 0.6


def test_a_correction_whose_frame_has_passed_and_that_does_not_fit_the_next_is_reported(loaded):
    stream = StreamTracker(MosamTracker(loaded), 2.0)
    for index in range(6):
        scale = 2 if index else 1
        image = np.ascontiguousarray(crossing.frame(index)[::scale, ::scale])
        stream.take(image, stamp(index))
        stream.track()
    target_id = stream.select(MASK, stamp=stamp(0)).target_id
    assert stream.catch_up(0.0) == ()
    stream.refine(target_id, Prompt.from_points([(300, 200)], [0]), stamp(0))
    (rejected,) = stream.catch_up(0.0)
    assert rejected.target_id == target_id
    assert "outside the image of 160x120" in rejected.reason
    assert stream.catching_up == (target_id,), "its selection was good"


def test_a_selection_that_does_not_fit_uses_up_no_id(loaded):
    stream = stream_at_now(loaded)
    for moment in (stamp(0), None):
        with pytest.raises(PromptError, match="lies outside the image"):
            stream.select(OUTSIDE, stamp=moment)
    with pytest.raises(PromptError, match="no point lies on the target"):
        stream.select(Prompt.from_points([(10, 10)], [0]))
    assert stream.select(BOX).target_id == 1


def correction(index: int) -> Prompt:
    """Points on object 0 and beside it in a frame."""
    return Prompt.from_points([crossing.center(0, index), (10, 10)], [1, 0])


def tracked(loaded: LoadedModel, last: int, corrections: tuple[int, ...] = ()) -> FrameResult:
    """What a target selected in frame 0 is in a later one, corrected in some on the way there."""
    tracker = MosamTracker(loaded, TrackerConfig.sam2())
    tracker.add(MASK)
    for index in range(last + 1):
        if index in corrections:
            tracker.refine(1, correction(index))
        result = tracker.track(crossing.frame(index), stamp(index))
    return result


def corrected_late(loaded: LoadedModel) -> StreamTracker:
    """A target selected in frame 0, corrected in frame 3 when frame NOW is the newest."""
    stream = StreamTracker(MosamTracker(loaded, TrackerConfig.sam2()), 2.0)
    for index in range(NOW):
        stream.take(crossing.frame(index), stamp(index))
        if index == 0:
            stream.select(MASK)
        stream.track()
    stream.take(crossing.frame(NOW), stamp(NOW))
    assert stream.refine(1, correction(3), stamp(3)).behind == pytest.approx((NOW - 3) / RATE)
    return stream


def assert_same(a: FrameResult, b: FrameResult) -> None:
    assert [t.target_id for t in a.targets] == [t.target_id for t in b.targets]
    assert np.abs(a.targets[0].mask_logits - b.targets[0].mask_logits).max() <= 1e-3


def test_a_correction_in_the_past_is_as_if_it_had_been_made_at_once(loaded):
    stream = corrected_late(loaded)
    stream.track()
    stream.catch_up(1000.0)
    assert stream.catching_up == ()
    (result,) = play(stream, range(NOW + 1, NOW + 2))
    assert_same(result, tracked(loaded, NOW + 1, corrections=(3,)))


def test_until_its_correction_has_caught_up_a_target_goes_on_without_it(loaded):
    stream = corrected_late(loaded)
    assert_same(stream.track(), tracked(loaded, NOW))
    stream.catch_up(0.0)
    (result,) = play(stream, range(NOW + 1, NOW + 2), seconds=0.0)
    assert_same(result, tracked(loaded, NOW + 1))
    assert stream.catching_up == (1,)


def test_a_target_whose_correction_catches_up_can_be_corrected_now(loaded):
    stream = corrected_late(loaded)
    stream.refine(1, correction(NOW))
    assert_same(stream.track(), tracked(loaded, NOW, corrections=(NOW,)))
    stream.catch_up(1000.0)
    (result,) = play(stream, range(NOW + 1, NOW + 2))
    assert_same(result, tracked(loaded, NOW + 1, corrections=(3, NOW)))


def test_a_target_whose_correction_catches_up_can_be_removed(loaded):
    stream = corrected_late(loaded)
    stream.remove(1)
    stream.track()
    stream.catch_up(1000.0)
    assert stream.catching_up == stream.target_ids == ()


def test_a_target_cannot_be_corrected_before_it_was_selected(loaded):
    stream = stream_at_now(loaded)
    stream.select(BOX)
    play(stream, range(NOW + 1, NOW + 3))
    with pytest.raises(PromptError, match="selected after"):
        stream.refine(1, correction(3), stamp(3))
    with pytest.raises(PromptError, match="no target 2"):
        stream.refine(2, correction(3), stamp(3))
    assert stream.catching_up == () and stream.target_ids == (1,)


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_after_a_late_correction_another_late_one_still_finds_its_frame(loaded, seconds):
    """Frames are skipped while it catches up; those that are remembered stay in their times."""
    stream = corrected_late(loaded)
    stream.track()
    stream.catch_up(seconds)
    last = NOW + CATCH_UP_FRAMES
    play(stream, range(NOW + 1, last + 1), seconds)
    assert stream.catching_up == ()
    stream.take(crossing.frame(last + 1), stamp(last + 1))
    for index in (7, 3, 1):
        behind = stream.refine(1, correction(index), stamp(index)).behind
        assert behind == pytest.approx((last + 1 - index) / RATE)
        stream._catching_up.clear()


def test_the_frame_of_the_selection_is_refined_by_points_too(loaded):
    """As on a still image: one click, and another one where the mask is wrong."""
    first = Prompt.from_points([crossing.center(0, 0)])
    both = first.followed_by(correction(0))
    at_once = MosamTracker(loaded, TrackerConfig.sam2())
    at_once.add(both)
    stream = StreamTracker(MosamTracker(loaded, TrackerConfig.sam2()), 2.0)
    stream.take(crossing.frame(0), stamp(0))
    stream.select(first)
    stream.track()
    expected = at_once.track(crossing.frame(0), stamp(0))
    for index in range(1, NOW + 1):
        expected = at_once.track(crossing.frame(index), stamp(index))
        stream.take(crossing.frame(index), stamp(index))
        if index == 5:
            stream.refine(1, correction(0), stamp(0))
        result = stream.track()
        stream.catch_up(1000.0)
    assert_same(result, expected)


def test_points_cannot_refine_a_mask_in_its_own_frame(loaded):
    stream = StreamTracker(MosamTracker(loaded), 2.0)
    stream.take(crossing.frame(0), stamp(0))
    stream.select(MASK)
    stream.track()
    play(stream, range(1, 4))
    with pytest.raises(PromptError, match="given as a mask in that frame"):
        stream.refine(1, correction(0), stamp(0))
    assert stream.catching_up == () and stream.target_ids == (1,)
    stream.refine(1, Prompt.from_mask(crossing.mask(0, 0)), stamp(0))
    assert stream.catching_up == (1,)


def test_a_new_target_is_corrected_on_its_way(loaded):
    stream = StreamTracker(MosamTracker(loaded, TrackerConfig.sam2()), 2.0)
    play(stream, range(NOW))
    stream.take(crossing.frame(NOW), stamp(NOW))
    stream.select(MASK, stamp=stamp(0))
    for index in (9, 5):
        stream.refine(1, correction(index), stamp(index))
    assert stream.catching_up == (1,)
    stream.track()
    stream.catch_up(1000.0)
    (result,) = play(stream, range(NOW + 1, NOW + 2))
    assert_same(result, tracked(loaded, NOW + 1, corrections=(5, 9)))


def test_ids_of_those_that_catch_up_are_in_use(loaded):
    stream = stream_at_now(loaded)
    stream.select(BOX, target_id=65535, stamp=stamp(0))
    with pytest.raises(PromptError, match="65535 is in use"):
        stream.select(BOX, target_id=65535)
    chosen = [stream.select(BOX, stamp=moment).target_id for moment in (stamp(0), None)]
    assert chosen == [1, 2], "no id is given twice, even when all were given once"


def test_only_so_many_catch_up_at_a_time(loaded):
    stream = stream_at_now(loaded)
    for _ in range(MAX_CATCHING_UP):
        stream.select(BOX, stamp=stamp(0))
    with pytest.raises(PromptError, match="still catching up"):
        stream.select(BOX, stamp=stamp(0))
    selected = stream.select(BOX)
    assert selected.target_id == MAX_CATCHING_UP + 1, "what was refused used up no id"


def test_frames_of_another_size_and_a_small_step_back_in_time_do_not_disturb_it(loaded):
    stream = stream_at_now(loaded)
    target_id = stream.select(BOX, stamp=stamp(0)).target_id
    half = np.ascontiguousarray(crossing.frame(NOW + 1)[::2, ::2])
    for moment in (stamp(NOW + 1), stamp(0) - 0.3, stamp(0) - 0.2):
        stream.catch_up(0.001)
        assert not stream.take(half, moment).cleared
        stream.track()
    stream.catch_up(1000.0)
    assert stream.target_ids == (target_id,)


def test_after_a_small_step_back_in_time_a_late_correction_finds_its_frame(loaded):
    stream = StreamTracker(MosamTracker(loaded, TrackerConfig.sam2()), 2.0)
    for index in range(NOW + 1):
        stream.take(crossing.frame(index), stamp(index) - (0.5 if index > 2 else 0.0))
        if index == 2:
            stream.select(MASK)
        if index < NOW:
            stream.track()
    stream.refine(1, correction(4), stamp(4) - 0.5)
    stream.track()
    stream.catch_up(1000.0)
    assert stream.catching_up == () and stream.target_ids == (1,)


def test_a_jump_back_in_time_forgets_all_targets(loaded):
    stream = stream_at_now(loaded)
    stream.select(BOX, stamp=stamp(0))
    stream.select(BOX)
    taken = stream.take(crossing.frame(0), stamp(NOW) - 1.5)
    assert (taken.elapsed, taken.cleared) == (pytest.approx(-1.5), True)
    assert stream.target_ids == stream.catching_up == ()
    assert stream.track().targets == ()


def test_a_frame_tells_how_it_follows_the_one_before(loaded):
    stream = StreamTracker(MosamTracker(loaded), 2.0)
    taken = [stream.take(crossing.frame(0), moment) for moment in (50.0, 50.25, 50.25)]
    assert [entry.elapsed for entry in taken] == [math.inf, 0.25, 0.0]
    assert not any(entry.cleared for entry in taken)


def test_selections_do_what_they_ask_for(loaded):
    stream = stream_at_now(loaded)
    apply = stream.apply
    then = apply(Selection(Action.SELECT, BOX, label="then", stamp=stamp(0)))
    now = apply(Selection(Action.SELECT, BOX, target_id=7))
    assert (then.behind, now.target_id, now.behind) == (pytest.approx(0.5), 7, 0.0)
    assert stream.catching_up == (then.target_id,) and stream.target_ids == (7,)
    stream.track()
    stream.catch_up(0.0)
    assert apply(Selection(Action.REFINE, BOX, then.target_id)).behind == 0.0
    assert stream.target_ids == (7, then.target_id)
    assert apply(Selection(Action.REMOVE, target_id=7)) is None
    assert stream.target_ids == (then.target_id,)
    for action in (Action.REFINE, Action.REMOVE):
        with pytest.raises(PromptError, match="no target 7"):
            apply(Selection(action, BOX, target_id=7))
    for action in (Action.SELECT, Action.REFINE):
        with pytest.raises(PromptError, match="says nothing about where"):
            apply(Selection(action))
    assert apply(Selection(Action.CLEAR)) is None
    assert stream.target_ids == ()


PIXELS = np.zeros((10, 20, 3), np.uint8)


def test_the_buffer_is_bounded_in_time_and_in_bytes():
    long, small = FrameBuffer(1.0), FrameBuffer(1e9, max_bytes=3 * PIXELS.nbytes)
    for index in range(100):
        for buffer in (long, small):
            buffer.add(PIXELS, index / 10)
    assert (len(long), len(small)) == (11, 3)
    assert small.num_bytes == 3 * PIXELS.nbytes
    small.add(np.zeros((500, 500, 3), np.uint8), 11.0)
    assert len(small) == 1, "the newest frame is kept in any case"


def test_masks_count_as_memory_of_the_buffer_as_long_as_they_are_kept():
    bits = np.zeros((10, 3), np.uint8)
    buffer = FrameBuffer(1e9, max_bytes=4 * PIXELS.nbytes)
    seen = [SeenTarget(target_id, 0.9, Box(0, 0, 20, 10), bits) for target_id in (1, 2)]
    for moment in range(3):
        buffer.add(PIXELS, float(moment))
        buffer.note(buffer.newest, seen)
    assert buffer.num_bytes == 3 * PIXELS.nbytes + 6 * bits.nbytes
    gone = buffer.oldest
    buffer.add(PIXELS, 3.0)
    assert len(buffer) == 3, "four without masks"
    assert buffer.num_bytes == 3 * PIXELS.nbytes + 4 * bits.nbytes
    buffer.note(gone, [SeenTarget(3, 0.9, Box(0, 0, 20, 10), bits)])
    assert buffer.num_bytes == 3 * PIXELS.nbytes + 4 * bits.nbytes
    buffer.forget(2)
    assert list(buffer.oldest.seen) == [1]
    assert buffer.num_bytes == 3 * PIXELS.nbytes + 2 * bits.nbytes
    buffer.forget_targets()
    assert not buffer.oldest.seen and buffer.num_bytes == 3 * PIXELS.nbytes


def test_the_buffer_knows_whether_memory_or_time_bounds_it():
    by_time, by_memory = FrameBuffer(0.5), FrameBuffer(10.0, max_bytes=5 * PIXELS.nbytes)
    full = []
    for index in range(8):
        for buffer in (by_time, by_memory):
            buffer.add(PIXELS, index / 10)
        full.append((by_time.is_full, by_memory.is_full))
    assert full == [(False, False)] * 4 + [(False, True)] * 4


def test_a_mask_is_kept_bit_by_bit(loaded):
    tracker = MosamTracker(loaded)
    tracker.add(Prompt.from_mask(crossing.mask(0, 0)))
    result = tracker.track(crossing.frame(0), stamp(0))
    (seen,) = seen_targets(result)
    mask = result.targets[0].mask
    kept = [[seen.covers(x, y) for x in range(mask.shape[1])] for y in range(mask.shape[0])]
    assert mask.any() and np.array_equal(kept, mask)


def test_kept_frames_know_where_the_targets_were(loaded):
    """Also those that caught up later; until the target is removed."""
    stream = StreamTracker(MosamTracker(loaded), 2.0)
    stream.take(crossing.frame(0), stamp(0))
    stream.select(Prompt.from_mask(crossing.mask(1, 0)), target_id=5)
    play(stream, range(NOW))
    stream.take(crossing.frame(NOW), stamp(NOW))
    stream.select(BOX, target_id=9, stamp=stamp(0))
    stream.track()
    stream.catch_up(1000.0)
    then, now = stream.frames.nearest(stamp(0)).seen, stream.frames.newest.seen
    assert set(then) == set(now) == {5, 9}
    x, y = crossing.center(0, 0)
    assert then[9].covers(x, y) and not then[5].covers(x, y)
    assert now[5].covers(x, y) and not now[9].covers(x, y)
    stream.remove(9)
    assert set(then) == set(now) == {5}
    stream.clear()
    assert not then and not now


def test_the_buffer_finds_the_nearest_frame():
    buffer = FrameBuffer(10.0)
    for moment in (1.0, 2.0, 4.0):
        buffer.add(PIXELS, moment)
    found = [buffer.nearest(moment).stamp for moment in (-5, 1.4, 1.6, 2.9, 3.1, 99)]
    assert found == [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    assert buffer.nearest(None) is buffer.newest


@pytest.mark.parametrize("moment", [2.0, 1.0, -50.0])
def test_stamps_that_do_not_increase_start_the_buffer_anew(moment):
    buffer = FrameBuffer(10.0)
    for earlier in (1.0, 2.0):
        buffer.add(PIXELS, earlier)
    buffer.add(PIXELS, moment)
    assert (len(buffer), buffer.num_bytes) == (1, PIXELS.nbytes)


def test_thresholds_change_while_targets_stay(loaded):
    stream = stream_at_now(loaded)
    stream.select(BOX, target_id=1)
    stream.select(BOX, target_id=2, stamp=stamp(0))
    config = TrackerConfig()
    stream.reconfigure(replace(config, lost_after=2), buffer_seconds=0.3)
    stream.track()
    stream.catch_up(1000.0)
    assert stream.frames.seconds == 0.3
    empty = np.full_like(crossing.frame(0), 90)
    for index in range(NOW + 1, NOW + 6):
        stream.take(empty, stamp(index))
        result = stream.track()
    assert {t.target_id: t.state for t in result.targets} == {
        1: TargetState.LOST,
        2: TargetState.LOST,
    }, "after two frames instead of thirty, for those that caught up too"


def test_thresholds_reach_the_memory_selection(loaded):
    """A threshold that no frame passes leaves only the prompted frame to remember."""
    plain, strict = MosamTracker(loaded), MosamTracker(loaded)
    for tracker in (plain, strict):
        tracker.add(BOX)
        for index in range(4):
            tracker.track(crossing.frame(index), stamp(index))
    thresholds = {"iou_threshold": 1.0, "rank_threshold": 1.0}
    memory = replace(plain.config.memory, **thresholds, keep_absent=0, keep_unsure=False)
    strict.reconfigure(replace(strict.config, memory=memory))
    a, b = (t.track(crossing.frame(4), stamp(4)).targets[0] for t in (plain, strict))
    assert np.abs(a.mask_logits - b.mask_logits).max() > 1e-3


def test_what_memories_are_built_for_cannot_change(loaded):
    tracker = MosamTracker(loaded)
    memory = replace(tracker.config.memory, window=5, iou_threshold=0.1)
    with pytest.raises(ValueError, match=r"^memory\.window cannot change"):
        tracker.reconfigure(replace(tracker.config, memory=memory))
    assert tracker.config == TrackerConfig()


def test_another_frame_is_tracked_only_if_it_is_expected_to_fit(loaded, monkeypatch):
    """With a clock in which each frame takes 40 ms, 100 ms are two frames."""
    stream = stream_at_now(loaded)
    stream.select(BOX, stamp=stamp(0))
    stream.track()
    clock, tracked = [0.0], []
    monkeypatch.setattr("mosam_ros.mosam.catch_up.time.perf_counter", lambda: clock[0])

    def pretend(self, pixels, moment):
        clock[0] += 0.04
        tracked.append(round((moment - stamp(0)) * RATE))
        return FrameResult(0, (240, 320), (), (), StageSeconds())

    monkeypatch.setattr(MosamTracker, "track", pretend)
    for seconds, frames in ((0.1, 2), (0.03, 1), (0.05, 1), (0.13, 3)):
        before = len(tracked)
        stream.catch_up(seconds)
        assert len(tracked) - before == frames
    assert tracked[0] == 0 and tracked == sorted(set(tracked))
