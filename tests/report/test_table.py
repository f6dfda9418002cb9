import pytest

from kd.report.table import final_table


def test_table_holds_what_matters(summary):
    text = final_table(summary, directory="runs/sst2_sinkd/0")

    lines = {line.split()[0]: line for line in text.splitlines()}
    assert lines["teacher"].split()[1:] == [
        "4.39",
        "M",
        "83.14",
        "%",
        "0.4121",
        "4.12",
        "%",
    ]
    assert lines["student"].split()[1:] == [
        "1.10",
        "M",
        "81.08",
        "%",
        "0.4459",
        "3.37",
        "%",
    ]
    assert "93.12 %" in lines["fidelity"]
    assert "KL divergence 0.0312" in lines["fidelity"]
    assert "local SST-2 (67,349 train, 872 dev)" in lines["data"]
    assert "1,000 steps, 514 examples/s" in lines["training"]
    assert "student 1 min 2 s" in lines["time"]
    assert lines["page"].endswith("runs/sst2_sinkd/0/report.html")


def test_long_text_wraps_under_itself(summary):
    summary["data"]["origin"] = "a rather long description of a corpus " * 5

    lines = final_table(summary).splitlines()

    assert max(map(len, lines)) <= 80
    first = next(i for i, line in enumerate(lines) if line.startswith("data"))
    assert lines[first + 1].startswith(" " * 12)
    assert "corpus" in lines[first + 1]


def test_columns_end_below_their_headings(summary):
    lines = final_table(summary).splitlines()[2:5]

    assert len({len(line) for line in lines}) == 1


def test_no_teacher(summary):
    summary |= {"teacher": None, "fidelity": None}

    text = final_table(summary)

    assert "\nteacher " not in text
    assert "fidelity" not in text


@pytest.mark.parametrize("summary", [{}, {"student": {"nll": float("nan")}, "x": 1}])
def test_what_is_missing_is_a_dash(summary):
    assert "–" in final_table(summary)


def test_a_page_that_is_not_there_is_not_named(summary, tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    assert "report.html" not in final_table(summary, directory=tmp_path)
    (tmp_path / "report.html").write_text("")
    assert str(tmp_path / "report.html") in final_table(summary, directory=tmp_path)
