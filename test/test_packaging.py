"""The files that make this a ROS 2 package fit together."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import mosam_ros
from mosam_ros import cli, dds

ROOT = Path(__file__).parents[1]


def test_one_version_everywhere():
    assert ET.parse(ROOT / "package.xml").findtext("version") == mosam_ros.__version__


def test_every_executable_is_installed_and_runs_a_main_of_the_package():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    executables = sorted((ROOT / "bin").iterdir())
    assert executables
    for path in executables:
        assert f"bin/{path.name}" in cmake
        assert os.access(path, os.X_OK)
        assert re.search(r"^from mosam_ros\.[\w.]+ import main$", path.read_text(), re.M)


def test_every_message_is_built():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    for path in (ROOT / "msg").glob("*.msg"):
        assert f"msg/{path.name}" in cmake


def test_the_dds_profile_has_room_for_many_large_images():
    root = ET.parse(ROOT / "config/fastdds.xml").getroot()
    shared = root.find(".//{*}transport_descriptor[{*}type='SHM']")
    assert int(shared.findtext("{*}segment_size")) == 32 * 2**20
    assert int(shared.findtext("{*}maxMessageSize")) == 4 * 2**20
    assert root.find(".//{*}participant").get("is_default_profile") == "true"
    known = {element.text for element in root.findall(".//{*}transport_descriptor/{*}transport_id")}
    used = {element.text for element in root.findall(".//{*}userTransports/{*}transport_id")}
    assert used == known


def test_the_dds_profile_is_set_for_every_release():
    environment = {}
    assert dds.use_large_image_profile(environment) == environment
    assert set(environment) == set(dds.VARIABLES)
    for path in environment.values():
        assert Path(path).samefile(ROOT / "config/fastdds.xml")


@pytest.mark.parametrize("variable", dds.VARIABLES)
def test_a_dds_profile_of_the_users_own_stays(variable):
    environment = {variable: "mine.xml"}
    assert dds.use_large_image_profile(environment) == {}
    assert environment == {variable: "mine.xml"}


def test_the_source_trees_dds_profile_is_used_where_nothing_is_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setattr(dds.sys, "prefix", str(tmp_path))
    assert dds.large_image_profile() == ROOT / "config/fastdds.xml"


@pytest.mark.parametrize("own", [None, "7"])
def test_threads_spin_briefly_unless_the_user_says_otherwise(own):
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    environment |= {"GOMP_SPINCOUNT": own} if own else {}
    script = (
        "import mosam_ros, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.split() == [own or "10000", "False"]


def test_a_replay_asks_for_the_same_bits_in_every_run(monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    monkeypatch.setattr(sys, "argv", ["mosam", "replay", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ["MKL_CBWR"] == "AUTO"
