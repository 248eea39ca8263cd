"""The bounded bank and SAM 2's rule of what a frame attends to."""

from __future__ import annotations

import torch

from mosam_ros.mosam.memory import (
    MAX_POINTER_DISTANCE,
    MemoryBank,
    MemoryEntry,
    Sam2Memory,
    batch_recalls,
)


def entry(frame_index: int) -> MemoryEntry:
    value = float(frame_index)
    return MemoryEntry(frame_index, torch.full((4, 2), value), torch.full((3,), value), 0.9, 5.0)


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
    selection = batch_recalls(recalls)
    assert selection.features[0].shape == (2, 4, 2)
    assert selection.features[0][:, 0, 0].tolist() == [2.0, 4.0]
    assert selection.distances[0].tolist() == [7.0, 5.0]
    assert selection.pointers[1].shape == (2, 3)
