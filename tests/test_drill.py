import pytest
from drill import drill

pytestmark = pytest.mark.slow


def test_three_kills():
    assert drill(3) == 0
