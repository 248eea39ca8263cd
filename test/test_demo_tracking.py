"""The tracker as it comes holds the demo's targets and notices when they are hidden."""

import numpy as np
import pytest

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.checkpoints import load_model
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.tracker import MosamTracker
from mosam_ros.synthetic import TARGET, VISIBLE_PIXELS
from mosam_ros.synthetic.demo_scene import find_demo_scene


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demos_target_is_held(seed):
    scene = find_demo_scene(seed)
    first = scene.frame(0).masks[TARGET]
    rows, columns = np.nonzero(first)
    tracker = MosamTracker(load_model("nano"))
    tracker.add(Prompt.from_box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    tracked, repeated, noticed = [], [], []
    for t in range(len(scene)):
        frame = scene.frame(t)
        truth = frame.masks[TARGET]
        result = tracker.track(frame.image).targets[0]
        if np.count_nonzero(truth) >= VISIBLE_PIXELS:
            tracked.append(mask_iou(result.mask, truth))
            repeated.append(mask_iou(first, truth))
        elif not truth.any():
            noticed.append(result.object_score < 0)
    assert np.mean(repeated) <= 0.40
    assert np.mean(tracked) >= np.mean(repeated) + 0.25
    assert np.mean(noticed) >= 0.70
