"""The parameters of localizer and follower, and the files and tables that list them."""

from pathlib import Path

import pytest
import yaml
from readme_tables import Row, as_written, parameter_rows

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from mosam_ros.following.controller import FollowerConfig  # noqa: E402
from mosam_ros.nodes import follower_node, localizer_node  # noqa: E402
from mosam_ros.nodes.parameters import Change  # noqa: E402

ROOT = Path(__file__).parents[2]
TABLES = {"localizer": localizer_node.SETTINGS, "follower": follower_node.SETTINGS}
HEADINGS = {
    "localizer": "In space: the localizer",
    "follower": "Follow it: an example of a planner",
}
EVERY = [(node, name) for node, table in TABLES.items() for name in table]


@pytest.mark.parametrize("node", TABLES)
def test_the_file_lists_every_parameter_with_its_default(node):
    tree = yaml.safe_load((ROOT / "config" / f"{node}.yaml").read_text())
    listed = tree["/**"]["ros__parameters"]
    defaults = {name: setting.default for name, setting in TABLES[node].items()}
    assert listed == defaults
    assert {name: type(value) for name, value in listed.items()} == {
        name: type(value) for name, value in defaults.items()
    }


@pytest.mark.parametrize(("node", "name"), EVERY)
def test_every_parameter_is_described_and_its_default_in_range(node, name):
    setting = TABLES[node][name]
    descriptor = setting.descriptor()
    assert descriptor.description.endswith(".")
    assert descriptor.read_only == (setting.change is Change.FIXED)
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    assert len(ranges) == (type(setting.default) in (int, float))
    for limits in ranges:
        assert limits.from_value <= setting.default <= limits.to_value


@pytest.mark.parametrize("node", TABLES)
def test_the_readme_lists_every_parameter_with_its_default(node):
    rows = [Row(name, as_written(s.default), live=False) for name, s in TABLES[node].items()]
    assert sorted(parameter_rows(HEADINGS[node])) == sorted(rows)


def test_the_control_law_is_set_by_parameters_alone():
    defaults = {name: s.default for name, s in follower_node.CONTROL_SETTINGS.items()}
    assert FollowerConfig(**defaults) == FollowerConfig()
    assert FollowerConfig.__dataclass_fields__.keys() == defaults.keys()
