"""When a camera counts as silent."""

from mosam_ros.nodes.stall_watch import StallWatch


def test_a_silence_begins_once_and_ends_with_its_length():
    watch = StallWatch(now=10.0)
    assert not watch.check(12.9, limit=3.0)
    assert watch.check(13.1, limit=3.0) and watch.stalled
    assert not watch.check(14.0, limit=3.0), "it is told once"
    assert watch.silence(14.0) == 4.0
    assert watch.arrived(15.0) == 5.0 and not watch.stalled
    assert watch.arrived(16.0) == 0.0
    assert not watch.check(18.9, limit=3.0)
    assert watch.check(19.1, limit=3.0), "the next silence is told again"
