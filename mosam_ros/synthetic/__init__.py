"""Procedural video with ground truth for the demo, the tests and the training."""

from mosam_ros.synthetic.scene import (
    SCENARIOS,
    TARGET,
    SceneConfig,
    SceneFrame,
    SyntheticScene,
)

__all__ = ["SCENARIOS", "TARGET", "SceneConfig", "SceneFrame", "SyntheticScene"]
