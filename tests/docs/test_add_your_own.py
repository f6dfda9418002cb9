"""The page's own code, put where the page says, passes the battery."""

import pathlib
import re
import subprocess
import sys

import pytest

from kd.objective import CrossEntropy, Mix

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_your_own.md").read_text(encoding="utf-8")
LOSS, CASE, DEFINITION, OBJECTIVE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_a_divergence_is_under_30_lines():
    assert len(LOSS.splitlines()) < 30
    assert len(CASE.splitlines()) == 1


def test_it_takes_part_in_a_mix():
    known = {"CrossEntropy": CrossEntropy}
    exec(LOSS + OBJECTIVE, known)
    mix = known["objective"]
    assert isinstance(mix, Mix) and mix.names == ["ce", "le_cam"]


@pytest.mark.slow
def test_it_passes_the_battery_by_one_line(tmp_path):
    def copy(name, *changes):
        text = (ROOT / "tests" / name).read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) == 1
            text = text.replace(old, new)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    copy("conftest.py")
    copy("reference.py", ("\ndef kl(", f"\n{DEFINITION}\n\ndef kl("))
    (tmp_path / "le_cam.py").write_text(LOSS, encoding="utf-8")
    battery = copy("divergences/test_battery.py")
    copy(
        "divergences/battery_cases.py",
        ("import reference\n", "import reference\nfrom le_cam import LeCam\n"),
        ("\nLOSSES = [\n", f"\nLOSSES = [\n    {CASE.strip()},\n"),
    )
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "LeCam", "-c",
         str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT),
         "-o", f"pythonpath={tmp_path} {ROOT}", str(battery)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout
    (passed,) = re.findall(r"(\d+) passed", found.stdout)
    assert int(passed) >= 15
