"""The node's parameters, their defaults and the file that lists them all."""

from pathlib import Path

import pytest
import yaml
from readme_tables import Row, as_written, parameter_rows

pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from rclpy.parameter import Parameter  # noqa: E402

from mosam_ros.mosam.tracker import TrackerConfig  # noqa: E402
from mosam_ros.nodes.parameters import Change, settings_problem  # noqa: E402
from mosam_ros.nodes.tracker_parameters import (  # noqa: E402
    METHOD_DEFAULTS,
    METHOD_SETTINGS,
    TRACKER_SETTINGS,
    tracker_config,
)

ROOT = Path(__file__).parents[2]
DEFAULTS = {name: setting.default for name, setting in TRACKER_SETTINGS.items()}
LIVE = {name for name, setting in TRACKER_SETTINGS.items() if setting.change is Change.LIVE}


def flat(tree: dict, prefix: str = "") -> dict:
    """A nested mapping with its keys joined by dots."""
    leaves = {}
    for key, value in tree.items():
        name = prefix + key
        leaves |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return leaves


def test_every_setting_of_the_tracker_is_a_parameter():
    assert METHOD_SETTINGS.keys() == METHOD_DEFAULTS.keys()


def test_the_defaults_are_full_mosam():
    assert tracker_config(DEFAULTS) == TrackerConfig()


def test_every_parameter_arrives_in_the_tracker():
    changed = {
        name: not value if isinstance(value, bool) else value
        for name, value in METHOD_DEFAULTS.items()
    } | {
        "motion.num_key_points": 9,
        "motion.sparse_encoder": "trained",
        "motion.flow": "raft",
        "motion.flow_interval": 2,
        "motion.reliable_iou": 0.55,
        "motion.prompt_iou": 0.5,
        "motion.max_overlap": 0.9,
        "motion.min_area_ratio": 0.5,
        "motion.min_iou_ratio": 0.6,
        "memory.iou_threshold": 0.8,
        "memory.occlusion_threshold": 0.5,
        "memory.rank_threshold": 0.3,
        "memory.interval": 3,
        "memory.window": 20,
        "memory.keep_absent": 1,
        "memory.min_score_ratio": 0.2,
        "memory.foreground_threshold": 0.45,
        "memory.max_prompted_frames": 2,
        "view.max_zoom": 2.5,
        "view.context": 3.0,
        "lost_after": 7,
        "doubt_frames": 7,
        "max_targets": 5,
    }
    config = tracker_config(changed)
    for name, value in changed.items():
        part = config
        for word in name.split("."):
            part = getattr(part, word)
        assert part == value != METHOD_DEFAULTS[name], name


def test_values_that_do_not_go_together_are_named():
    with pytest.raises(ValueError, match="1, 5, 9, …"):
        tracker_config({**DEFAULTS, "motion.num_key_points": 4})


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_parameter_is_described_and_its_default_in_range(name):
    setting = TRACKER_SETTINGS[name]
    default, descriptor = setting.default, setting.descriptor()
    assert not setting.problem(default, configured=False)
    assert descriptor.read_only == (setting.change is Change.FIXED)
    assert descriptor.description.endswith(".")
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    assert len(ranges) == (type(default) in (int, float))
    for limits in ranges:
        assert limits.from_value <= default <= limits.to_value


def test_the_file_lists_every_parameter_with_its_default():
    tree = yaml.safe_load((ROOT / "config" / "tracker.yaml").read_text())
    listed = flat(tree["/**"]["ros__parameters"])
    assert listed == DEFAULTS
    assert {name: type(value) for name, value in listed.items()} == {
        name: type(default) for name, default in DEFAULTS.items()
    }


def test_the_readme_lists_every_parameter_its_default_and_whether_it_can_be_changed_live():
    rows = [Row(name, as_written(default), name in LIVE) for name, default in DEFAULTS.items()]
    assert sorted(parameter_rows("Topics and parameters")) == sorted(rows)


def file_marks(text: str) -> dict[str, bool]:
    """By name: whether the comment above a parameter in the file says (live)."""
    marks, sections, comment = {}, [], ""
    for line in text.splitlines():
        indent, word = len(line) - len(line.lstrip()), line.strip()
        if word.startswith("#") or not word:
            comment = comment + word if word else ""
            continue
        key, _, value = word.partition(": ")
        sections = [*sections[: indent // 2], key.rstrip(":")]
        if value:
            marks[".".join(sections[2:])] = "(live)" in comment
        comment = ""
    return marks


def test_the_file_marks_what_can_be_changed_live():
    marks = file_marks((ROOT / "config" / "tracker.yaml").read_text())
    assert marks == {name: name in LIVE for name in DEFAULTS}


def problem(name: str, value, configured: bool = True) -> str:
    values = {key: setting.default for key, setting in TRACKER_SETTINGS.items()}
    return settings_problem(TRACKER_SETTINGS, [Parameter(name, value=value)], values, configured)


def test_what_the_model_is_built_for_is_refused_while_it_is():
    assert "needs reconfigure: deactivate, cleanup" in problem("memory.window", 20)
    assert not problem("memory.window", 20, configured=False)
    assert not problem("memory.iou_threshold", 0.5)
    assert not problem("use_sim_time", True), "not the table's"


def test_what_a_parameter_is_already_may_be_set_at_any_time():
    assert not problem("memory.window", TRACKER_SETTINGS["memory.window"].default)
    assert not problem("model", TRACKER_SETTINGS["model"].default)


def test_an_unknown_choice_is_refused_with_what_there_is():
    assert problem("click_on_target", "kick") == (
        "click_on_target: it is 'kick': use one of remove, refine"
    )
    assert "use one of dis, raft, feature" in problem("motion.flow", "lucas", configured=False)
