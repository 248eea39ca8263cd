"""Procedural video with ground truth for the demo, the tests and the training."""

from mosam_ros.synthetic.scene import (
    FIRST_HELD_OUT_SEED,
    SCENARIOS,
    SUITE,
    TARGET,
    VISIBLE_PIXELS,
    ObjectKinds,
    SceneConfig,
    SceneFrame,
    SyntheticScene,
)

__all__ = [
    "FIRST_HELD_OUT_SEED",
    "SCENARIOS",
    "SUITE",
    "TARGET",
    "VISIBLE_PIXELS",
    "ObjectKinds",
    "SceneConfig",
    "SceneFrame",
    "SyntheticScene",
]
