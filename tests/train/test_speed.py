import json

from kd.train.speed import Speed


def test_the_median_of_whole_blocks():
    speed = Speed()
    assert speed.examples_per_second == 0.0
    speed.add(3.0, whole=False)
    assert speed.examples_per_second == 3.0
    for rate in (10.0, 30.0, 20.0):
        speed.add(rate, whole=True)
    assert speed.examples_per_second == 20.0


def test_goes_on_from_notes():
    speed = Speed(seconds=3.0)
    speed.add(5.0, whole=True)
    later = Speed()
    later.go_on_from(json.loads(json.dumps(speed.to_notes())))
    assert later == speed and not later.partial
    later.go_on_from({})
    assert later.partial


def test_notes_do_not_grow_for_ever():
    speed = Speed()
    for rate in range(3000):
        speed.add(float(rate), whole=True)
    assert len(speed.to_notes()["rates"]) == 1000
    assert speed.rates[-1] == 2999.0
