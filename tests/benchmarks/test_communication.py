"""Bytes counted in compiled programs against the formula."""

import dataclasses

import pytest

from benchmarks import communication

PROGRAM = """
%body (x: (s32[], f32[64])) -> (s32[], f32[64]) {
  %sum = f32[64]{0} all-reduce(%x), to_apply=%add
}

ENTRY %main (a: f32[8,3]) -> f32[8] {
  %all = f32[64,3]{1,0} all-gather(%a), dimensions={0}
  %loop = (s32[], f32[64]) while(%t), body=%body, backend_config={"known_trip_count":{"n":"20"}}
  %own = f32[8]{0} reduce-scatter(%b), dimensions={0}
}
"""  # noqa: E501


def test_loops_are_multiplied_out():
    gathered, summed, scattered = 7 / 8 * 64 * 3 * 4, 2 * 7 / 8 * 64 * 4, 7 * 8 * 4
    expected = gathered + 20 * summed + scattered
    assert communication.counted(PROGRAM, 8) == expected


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="how often"):
        communication.counted(PROGRAM.replace("known_trip_count", "unknown"), 8)


@pytest.mark.slow
@pytest.mark.parametrize("num_classes, num_devices", [(2, 4), (10, 2)])
def test_formula_and_step_agree(num_classes, num_devices):
    tiny = dataclasses.replace(
        communication.COMPILED, width=8, mlp_width=16, vocab_size=50, max_length=80
    )
    problem = 16 * num_devices, num_classes, num_devices
    program = communication.step_of(tiny, *problem)
    found = communication.counted(program, num_devices)
    assert abs(found - communication.predicted_step(tiny, *problem)) <= 1


@pytest.mark.parametrize(
    "batch_size, num_classes, num_devices", [(16, 2, 4), (16, 3, 2), (8, 100, 4)]
)
def test_formula_and_program_agree(batch_size, num_classes, num_devices):
    program = communication.program_of(batch_size, num_classes, num_devices)
    found = communication.counted(program, num_devices)
    assert found == communication.predicted(batch_size, num_classes, num_devices, 20)
