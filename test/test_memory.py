"""The bounded bank, and the rules of what a frame attends to: SAM 2's and the paper's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mosam_ros.mosam import memory
from mosam_ros.mosam.memory import (
    MAX_POINTER_DISTANCE,
    MemoryBank,
    MemoryEntry,
    Overview,
    Sam2Memory,
    SeenMaps,
    TemporalSelection,
    batch_recalls,
    resample_maps,
)
from mosam_ros.mosam.views import View

WHOLE = View.whole((48, 64))


def entry(frame_index: int, iou: float = 0.9, score: float = 5.0) -> MemoryEntry:
    value = float(frame_index)
    features, pointer = torch.full((4, 2), value), torch.full((3,), value)
    return MemoryEntry(frame_index, features, pointer, iou, score, WHOLE)


def bank_of(prompted: list[int], recent: range) -> MemoryBank:
    bank = MemoryBank(max_prompted=3, max_recent=15)
    for index in prompted:
        bank.add_prompted(entry(index))
    for index in recent:
        bank.add(entry(index))
    return bank


def frames(entries) -> list[int]:
    return [e.frame_index for e in entries]


def test_the_newest_six_frames_fill_the_slots_in_time_order():
    recall = Sam2Memory(6, 15).recall(bank_of([0], range(1, 30)), 30)
    assert frames(recall.memories) == [0, 24, 25, 26, 27, 28, 29]
    assert recall.slots == (0, 1, 2, 3, 4, 5, 6)
    assert frames(recall.pointers) == [0, *range(29, 14, -1)]
    assert recall.distances == (30, *range(1, 16))


def test_a_young_bank_uses_the_newest_slots():
    recall = Sam2Memory(6, 15).recall(bank_of([3], range(4, 6)), 6)
    assert frames(recall.memories) == [3, 4, 5]
    assert recall.slots == (0, 5, 6)


def test_the_first_and_the_newest_prompted_frames_are_kept():
    bank = bank_of([0, 10, 20, 30, 40], range(0))
    assert frames(bank.prompted) == [0, 30, 40]


def test_the_time_code_of_an_old_prompt_is_bounded():
    recall = Sam2Memory(6, 15).recall(bank_of([0], range(10**6, 10**6 + 15)), 10**6 + 15)
    assert recall.distances[0] == MAX_POINTER_DISTANCE


def test_recalls_are_stacked_by_target():
    policy = Sam2Memory(6, 15)
    recalls = [policy.recall(bank_of([first], range(5, 9)), 9) for first in (2, 4)]
    assert recalls[0].layout == recalls[1].layout
    selection = batch_recalls(recalls, [WHOLE, WHOLE], [SeenMaps(), SeenMaps()])
    assert selection.features[0].shape == (2, 4, 2)
    assert selection.features[0][:, 0, 0].tolist() == [2.0, 4.0]
    assert selection.distances[0].tolist() == [7.0, 5.0]
    assert selection.pointers[1].shape == (2, 3)


def view(x: int, y: int, width: int, height: int) -> View:
    return View(x, y, width, height, (48, 64))


def map_of(column_values: list[float]) -> torch.Tensor:
    """A 4 x 4 memory map (16, 1), the same in every row."""
    return torch.tensor(column_values).repeat(4)[:, None]


def columns(features: torch.Tensor) -> list[float]:
    rows = features.reshape(4, 4)
    assert torch.allclose(rows, rows[:1].expand(4, -1))
    return rows[0].tolist()


def seen_in(entry_view: View, now: View, values: list[float]) -> list[float]:
    bank = MemoryBank(max_prompted=3, max_recent=15)
    features, pointer = map_of(values), torch.zeros(3)
    bank.add_prompted(MemoryEntry(0, features, pointer, 0.9, 5.0, entry_view))
    selection = batch_recalls([Sam2Memory(6, 15).recall(bank, 1)], [now], [SeenMaps()])
    return columns(selection.features[0][0])


def test_a_memory_of_the_same_view_is_recalled_as_it_is():
    values = [0.1, 0.7, -3.0, 2.0]
    same = view(5, 6, 40, 30)
    assert seen_in(same, same, values) == torch.tensor(values).tolist()


def test_a_memory_of_the_frame_is_stretched_in_a_view():
    """The left half, twice as wide: cells lie at quarters between the old ones."""
    stretched = seen_in(WHOLE, view(0, 0, 32, 24), [0.0, 1.0, 2.0, 3.0])
    assert stretched == pytest.approx([0.0, 0.25, 0.75, 1.25])


def test_a_memory_of_a_view_is_shrunk_in_the_frame_and_its_edge_goes_on():
    shrunk = seen_in(view(16, 12, 32, 24), WHOLE, [0.0, 1.0, 2.0, 3.0])
    assert shrunk == pytest.approx([0.0, 0.5, 2.5, 3.0])


def test_a_memory_moves_with_its_view():
    moved = seen_in(view(0, 0, 32, 24), view(8, 6, 32, 24), [0.0, 1.0, 2.0, 3.0])
    assert moved == pytest.approx([1.0, 2.0, 3.0, 3.0])


def test_memories_of_a_batch_are_carried_each_to_its_own_view():
    maps = torch.stack([map_of([0.0, 1.0, 2.0, 3.0]), map_of([4.0, 5.0, 6.0, 7.0])])
    old = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5]])
    new = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.125, 0.125, 0.5, 0.5]])
    first, second = resample_maps(maps, old, new)
    assert columns(first) == pytest.approx([0.0, 0.25, 0.75, 1.25])
    assert columns(second) == pytest.approx([5.0, 6.0, 7.0, 7.0])


def test_a_memory_is_resampled_once_while_its_target_is_looked_for_in_one_view(monkeypatch):
    resampled = []

    def counting(maps, old, new):
        resampled.append(len(maps))
        return resample_maps(maps, old, new)

    monkeypatch.setattr(memory, "resample_maps", counting)
    bank, seen = MemoryBank(max_prompted=3, max_recent=15), SeenMaps()
    part, other = view(0, 0, 32, 24), view(8, 6, 32, 24)
    values = torch.randn(6, 16, 1, generator=torch.Generator().manual_seed(0))

    def look(index: int, made_in: View, now: View) -> list[torch.Tensor]:
        bank.add(MemoryEntry(index, values[index], torch.zeros(3), 0.9, 5.0, made_in))
        recall = Sam2Memory(2, 15).recall(bank, index + 1)
        selection = batch_recalls([recall], [now], [seen])
        anew = batch_recalls([recall], [now], [SeenMaps()])
        for kept, expected in zip(selection.features, anew.features, strict=True):
            torch.testing.assert_close(kept, expected, rtol=0, atol=0)
        return selection.features

    steps = [(part, part), (part, WHOLE), (WHOLE, WHOLE), (part, other), (other, other)]
    for index, (made_in, now) in enumerate(steps):
        resampled.clear()
        look(index, made_in, now)
        first = resampled[0] if len(resampled) > 1 else 0
        assert first == [0, 2, 0, 2, 0][index]
        assert len(seen.tensors()) == min(index + 1, 2)


def test_the_last_view_is_that_of_the_newest_frame():
    bank = bank_of([0], range(1, 3))
    assert bank.last_view == WHOLE
    newest = MemoryEntry(9, map_of([0.0] * 4), torch.zeros(3), 0.9, 5.0, view(1, 2, 32, 24))
    bank.add(newest)
    assert bank.last_view == newest.view
    assert MemoryBank(max_prompted=3, max_recent=15).last_view is None


def scored_bank(scores: list[tuple[float, float]]) -> MemoryBank:
    """Frame 0 prompted; then a frame for each (S_IoU, S_occ)."""
    bank = MemoryBank(max_prompted=3, max_recent=30)
    bank.add_prompted(entry(0))
    for index, (iou, score) in enumerate(scores, start=1):
        bank.add(entry(index, iou, score))
    return bank


SURE, FAIR, POOR = (0.9, 3.0), (0.65, 2.0), (0.4, 2.0)
UNSEEN = (0.9, -1.0)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([SURE] * 9, [4, 5, 6, 7, 8, 9]),
        ([SURE] * 6 + [POOR] * 8, [1, 2, 3, 4, 5, 6]),
        ([SURE] * 6 + [UNSEEN] * 8, [1, 2, 3, 4, 5, 6]),
        ([SURE, FAIR, POOR, UNSEEN, SURE], [1, 2, 4, 5]),
        ([(0.65, 0.5), UNSEEN, *[SURE] * 5], [1, 3, 4, 5, 6, 7]),
        ([FAIR] * 3 + [SURE] * 4 + [POOR] * 2, [2, 3, 4, 5, 6, 7]),
        ([(0.65, 1.0), (0.65, 9.0), (0.61, 5.0), *[SURE] * 4], [2, 3, 4, 5, 6, 7]),
        ([(0.7, 3.0), (0.71, 3.0), (0.6, 9.0), (0.61, 9.0)], [1, 2, 4]),
        ([POOR] * 5, []),
    ],
)
def test_selection_by_both_scores(scores, chosen):
    """First S_IoU > 0.7 and S_occ > 0, the newest; then S_IoU > 0.6 by the sum of both: the rule of
    the paper to the letter.
    """
    now = len(scores) + 1
    recall = TemporalSelection(6, 15).recall(scored_bank(scores), now)
    assert frames(recall.memories) == [0, *chosen]
    assert recall.slots == (0, *range(7 - len(chosen), 7))


def test_pointers_follow_the_selection():
    scores = [SURE, POOR, FAIR, SURE, UNSEEN, SURE]
    recall = TemporalSelection(6, 15).recall(scored_bank(scores), 7)
    assert frames(recall.pointers) == [0, 6, 5, 4, 3, 1]
    assert recall.distances == (7, 1, 2, 3, 4, 6)


def test_no_more_pointers_than_the_model_was_trained_with():
    recall = TemporalSelection(6, 15).recall(scored_bank([SURE] * 28), 29)
    assert frames(recall.pointers) == [0, *range(28, 13, -1)]


def test_candidates_come_at_the_interval_and_from_the_window():
    recall = TemporalSelection(6, 15, interval=3, window=10).recall(scored_bank([SURE] * 20), 21)
    assert frames(recall.memories) == [0, 11, 14, 17, 20]


def test_thresholds_are_settings():
    scores = [(0.8, 0.5), (0.9, 0.5), (0.95, 2.0)]
    strict = TemporalSelection(6, 15, iou_threshold=0.85, rank_threshold=0.99)
    assert frames(strict.recall(scored_bank(scores), 4).memories) == [0, 2, 3]
    seen = TemporalSelection(6, 15, occlusion_threshold=1.0, rank_threshold=0.99)
    assert frames(seen.recall(scored_bank(scores), 4).memories) == [0, 3]


def test_the_newest_frames_without_the_target_are_kept_on_request():
    """So that a hidden target is remembered as hidden; they have the newest slots."""
    keeping = TemporalSelection(6, 15, keep_absent=2)
    bank = scored_bank([SURE] * 8 + [UNSEEN] * 3)
    assert frames(keeping.recall(bank, 12).memories) == [0, 5, 6, 7, 8, 10, 11]
    assert frames(keeping.recall(bank, 12).pointers)[:4] == [0, 11, 10, 8]
    assert frames(keeping.recall(scored_bank([SURE] * 8 + [UNSEEN, SURE]), 11).memories) == [
        *(0, 5, 6, 7, 8, 9, 10)
    ]
    assert frames(keeping.recall(scored_bank([UNSEEN] + [SURE] * 8), 10).memories) == [
        *(0, 4, 5, 6, 7, 8, 9)
    ]


def test_frames_without_the_target_take_no_free_slots_where_the_newest_are_kept():
    bank = scored_bank([UNSEEN, SURE, SURE, SURE])
    assert frames(TemporalSelection(6, 15).recall(bank, 5).memories) == [0, 1, 2, 3, 4]
    keeping = TemporalSelection(6, 15, keep_absent=2)
    assert frames(keeping.recall(bank, 5).memories) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([SURE] * 7 + [FAIR], [3, 4, 5, 6, 7, 8]),
        ([SURE] * 7 + [FAIR, FAIR, POOR], [3, 4, 5, 6, 7, 9]),
        ([SURE] * 7 + [POOR], [2, 3, 4, 5, 6, 7]),
        ([SURE] * 2 + [FAIR, POOR, POOR], [1, 2, 3]),
        ([SURE] * 7 + [UNSEEN, FAIR], [3, 4, 5, 6, 7, 8]),
        ([SURE] * 7 + [UNSEEN, SURE, FAIR], [4, 5, 6, 7, 9, 10]),
        ([SURE] * 8, [3, 4, 5, 6, 7, 8]),
        ([POOR] * 8, [3, 4, 5, 6, 7, 8]),
        ([POOR] * 4 + [UNSEEN, POOR, POOR], []),
    ],
    ids=[
        *("unsure", "for long", "poor", "poor in free slots", "back", "back and sure", "sure"),
        *("never sure", "never sure and back"),
    ],
)
def test_unsure_frames_of_a_target_in_sight_are_kept_on_request(scores, chosen):
    """The newest that is fair; where none is sure, all as by plain SAM 2."""
    keeping = TemporalSelection(6, 15, keep_absent=2, keep_unsure=True)
    recall = keeping.recall(scored_bank(scores), len(scores) + 1)
    assert frames(recall.memories) == [0, *sorted(chosen)]
    assert (len(scores) in frames(recall.pointers)) == (len(scores) in chosen)
    assert recall.slots[-1] == (6 if chosen else 0)


def test_frames_in_which_the_target_is_faint_are_no_candidates_on_request():
    """Its object score says so beside what is usual of it; a frame without it is another matter."""
    bank = MemoryBank(max_prompted=3, max_recent=30)
    bank.add_prompted(entry(0))
    ratios = [1.0, 0.4, 0.1, 1.0, 0.1, 0.1]
    scores = [SURE, SURE, SURE, SURE, UNSEEN, FAIR]
    for index, (ratio, (iou, score)) in enumerate(zip(ratios, scores, strict=True), start=1):
        bank.add(replace(entry(index, iou, score), score_ratio=ratio))
    as_written = TemporalSelection(6, 15, keep_absent=2, keep_unsure=True)
    assert frames(as_written.recall(bank, 7).memories) == [0, 1, 2, 3, 4, 5, 6]
    careful = replace(as_written, min_score_ratio=0.3)
    assert frames(careful.recall(bank, 7).memories) == [0, 1, 2, 4, 5]
    assert frames(careful.recall(bank, 7).pointers) == [0, 5, 4, 2, 1]


def test_a_long_hidden_target_keeps_its_last_good_frames():
    scores = [SURE] * 6 + [(0.2, -3.0)] * 20
    assert frames(TemporalSelection(6, 15).recall(scored_bank(scores), 27).memories)[1:] == [
        *range(1, 7)
    ]
    plain = Sam2Memory(6, 15).recall(scored_bank(scores), 27)
    assert frames(plain.memories)[1:] == [*range(21, 27)]


def test_in_a_whole_frame_prompts_are_known_by_their_overview_and_views_are_not_used():
    part = View(8, 8, 16, 12, (48, 64))
    overview = Overview(torch.full((4, 2), 7.0), torch.full((3,), 8.0))
    bank = MemoryBank(max_prompted=3, max_recent=15)
    bank.add_prompted(replace(entry(0), view=part, overview=overview))
    bank.add_prompted(entry(1))
    bank.add(replace(entry(2), view=part))
    bank.add(entry(3))
    whole = bank.of_whole_frames()
    assert frames(whole.prompted) == [0, 1] and frames(whole.recent) == [3]
    assert whole.prompted[0].features is overview.features
    assert whole.prompted[0].pointer is overview.pointer
    assert all(e.view.is_whole for e in (*whole.prompted, *whole.recent))
    assert bank.prompted[0].view is part and frames(bank.recent) == [2, 3]
    assert any(x is overview.features for x in bank.tensors())
