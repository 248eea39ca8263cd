"""What is said where messages do not pair."""

import pytest

from mosam_ros.localization.pairing import PairingWatch

TOPICS = ("/masks", "/depth", "/camera_info")


@pytest.fixture
def watch() -> PairingWatch:
    return PairingWatch(TOPICS, slop=0.02, patience=3.0, now=100.0)


def play(watch: PairingWatch, delays: dict[str, float], seconds: float = 2.0) -> None:
    """Messages at 10 Hz on the topics of `delays`, their stamps shifted by it in seconds."""
    for index in range(round(10 * seconds)):
        for topic, delay in delays.items():
            watch.arrived(topic, 50.0 + 0.1 * index + delay)


def test_there_is_patience(watch):
    assert watch.trouble(102.9) == ""
    assert watch.trouble(103.0) != ""


def test_silent_topics_are_named(watch):
    play(watch, {"/masks": 0.0})
    text = watch.trouble(104.0)
    assert "4.0 s" in text
    assert "nothing arrives on /depth and /camera_info;" in text
    assert "/masks" not in text


@pytest.mark.parametrize(("delay", "side"), [(-7.0, "5.100 s earlier"), (7.0, "5.100 s later")])
def test_the_topic_with_other_stamps_is_named(watch, delay, side):
    play(watch, {"/masks": 0.0, "/depth": delay, "/camera_info": 0.0})
    assert f"the stamps on /depth are {side} than those on /masks" in watch.trouble(104.0)


def test_a_shift_of_less_than_a_frame_is_found(watch):
    play(watch, {"/masks": 0.0, "/depth": 0.0, "/camera_info": 0.04})
    assert "/camera_info are 0.040 s later" in watch.trouble(104.0)


def test_stamps_that_fit_ask_for_a_longer_queue(watch):
    play(watch, dict.fromkeys(TOPICS, 0.0))
    assert "raise queue_size" in watch.trouble(104.0)


def test_it_is_said_once_until_something_pairs(watch):
    assert watch.trouble(104.0)
    assert not watch.trouble(110.0)
    assert watch.paired(111.0)
    assert not watch.paired(112.0)
    assert not watch.trouble(114.0)
    assert watch.trouble(115.5)
