import math

import pytest

from kd.report.quantities import count, decimal, described, duration, percent, rounded


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (percent(0.8314), "83.14 %"),
        (percent(1, digits=0), "100 %"),
        (decimal(0.03125), "0.0312"),
        (decimal(0.0), "0.0000"),
        (decimal(3.64e-8), "3.64e-08"),
        (decimal(math.inf), "∞"),
        (count(872), "872"),
        (count(67349), "67,349"),
        (count(4386178), "4.39 M"),
        (count(7.1e9), "7.10 B"),
        (count(rounded(2381.8)), "2,380"),
        (duration(40.12), "40.1 s"),
        (duration(62.3), "1 min 2 s"),
        (duration(4980), "1 h 23 min"),
        (described({"a": [1, "b"], "c": None}), "a: 1, b, c: –"),
        (described(0), "0"),
    ],
)
def test_reads_like_a_person_would_write_it(shown, expected):
    assert shown == expected


@pytest.mark.parametrize("missing", [None, math.nan])
@pytest.mark.parametrize("show", [percent, decimal, count, duration])
def test_missing_is_a_dash(show, missing):
    assert show(missing) == "–"
