import os
import pathlib
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from kd.evaluate.calibration import reliability
from kd.report import plots

SVG = "{http://www.w3.org/2000/svg}"
STEPS = np.arange(1, 201)


def texts(svg: str) -> list[str]:
    """What the figure says; fails where it isn't well-formed XML."""
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]


def test_moving_average_keeps_a_line_except_at_its_end():
    line = np.arange(500.0)

    smooth = plots.moving_average(line)

    np.testing.assert_allclose(smooth[:-10], line[:-10], atol=1e-9)
    assert smooth[-1] == pytest.approx(line[-11:].mean())


def test_moving_average_shrinks_noise():
    noise = np.random.default_rng(0).normal(size=1000)

    assert plots.moving_average(noise)[20:].std() < 0.25


def test_moving_average_leaves_out_what_is_not_finite():
    values = np.ones(200)
    values[50] = np.nan
    values[60] = np.inf
    values[100:120] = np.nan

    smooth = plots.moving_average(values)

    np.testing.assert_array_equal(smooth[:100], 1)
    assert np.isnan(smooth[110])


def test_short_curve_is_not_averaged():
    values = np.array([3.0, 1.0, 2.0])

    np.testing.assert_array_equal(plots.moving_average(values), values)


def test_axis_is_logarithmic_only_where_it_helps():
    def ticks(values, **options):
        said = texts(plots.curve(STEPS, values, label="kl", name="kl", **options))
        return {text for text in said if re.fullmatch(r"[\d.]+", text)}

    falling = np.geomspace(1, 1e-2, 200)

    assert {"0.02", "0.05", "0.1"} <= ticks(falling)
    assert "0.05" not in ticks(falling - 0.02)
    assert "0.05" not in ticks(falling, smooth=False)


def test_curve_of_nothing_finite_is_still_a_figure():
    svg = plots.curve(STEPS, np.full(200, np.nan), label="loss", name="loss")

    assert "loss" in texts(svg)


def test_label_is_text_not_mathematics_or_markup():
    svg = plots.curve(STEPS, 1.0 / STEPS, label="a<b & $x_1$", name="x")

    assert "a<b & $x_1$" in texts(svg)


def test_colors_are_variables_of_the_page():
    svg = plots.dev_curves(STEPS, STEPS / 200, teacher=0.9)

    assert "var(--student, #0072b2)" in svg
    assert "var(--teacher, #d55e00)" in svg
    assert not re.search(r"(?<!, )#(0072b2|d55e00|24292f)", svg)


def test_dev_curves_say_what_they_show():
    accuracy = STEPS / 200

    alone = texts(plots.dev_curves(STEPS, accuracy))
    full = texts(plots.dev_curves(STEPS, accuracy, agreement=accuracy, teacher=0.9))

    assert "student accuracy" in alone
    assert not {"teacher accuracy", "agreement with teacher"} & set(alone)
    assert {"teacher accuracy", "agreement with teacher"} <= set(full)
    assert "optimizer step" in full


@pytest.mark.parametrize("num_classes", [2, 10])
def test_reliability_diagram_gives_the_error_of_both(num_classes):
    random = np.random.default_rng(0)
    labels = random.integers(num_classes, size=300)
    models = {
        name: reliability(random.normal(size=(300, num_classes)), labels)
        for name in ("student", "teacher")
    }

    said = texts(plots.reliability_diagram(models))

    for name, model in models.items():
        error = 100 * model.expected_calibration_error
        assert f"{name}, ECE {error:.2f} %" in said


def test_reliability_of_a_perfect_model():
    labels = np.arange(20) % 2
    perfect = reliability(np.eye(2)[labels] * 100, labels)

    assert "student, ECE 0.00 %" in texts(
        plots.reliability_diagram({"student": perfect})
    )


def test_whiskers_are_wilson_intervals():
    """Against the limits of 8 in 10, and 10 in 10, in Wilson's closed form."""
    distances = plots._wilson(np.array([0.8, 1.0]), np.array([10, 10]))

    np.testing.assert_allclose(distances[:, 0], [0.8 - 0.4902, 0.9433 - 0.8], atol=1e-4)
    np.testing.assert_allclose(distances[:, 1], [1 - 0.7225, 0], atol=1e-4)


def test_figures_leave_global_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.curve(STEPS, 1.0 / STEPS, label="loss", name="loss")

    assert dict(matplotlib.rcParams) == before


def test_long_run_stays_small():
    steps = np.arange(50_000)
    noise = np.random.default_rng(0).normal(size=50_000)

    svg = plots.curve(steps, 2 + noise, label="loss", name="loss")

    assert len(svg) < 1_000_000


def test_settings_of_the_user_do_not_show():
    import matplotlib

    plain = plots.curve(STEPS, 1.0 / STEPS, label="loss", name="loss")
    theirs = {
        "axes.titlesize": 30, "font.size": 30, "axes.labelpad": 40, "text.usetex": True,
        "svg.image_inline": False, "axes.formatter.use_locale": True,
        "savefig.bbox": "tight", "lines.linestyle": ":", "path.sketch": (1, 2, 3),
    }  # fmt: skip
    with matplotlib.rc_context(theirs):
        assert plots.curve(STEPS, 1.0 / STEPS, label="loss", name="loss") == plain


@pytest.mark.slow
def test_a_backend_that_is_not_there_is_not_asked_for(tmp_path):
    """As in a process that a notebook started, for which its backend is named."""
    program = (
        "import os; from kd.report import plots; import numpy as np;"
        "svg = plots.curve(np.arange(9), np.ones(9), label='loss', name='loss');"
        "assert svg.startswith('<svg');"
        "assert os.environ['MPLBACKEND'] == 'module://nowhere.inline'"
    )
    (tmp_path / "matplotlibrc").write_text("font.size: 40\naxes.labelsize: 40\n")
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"MPLBACKEND": "module://nowhere.inline",
                          "PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        timeout=120,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
