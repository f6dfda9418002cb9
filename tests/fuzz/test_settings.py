"""Any assignment to any field of any experiment."""

import json

import hypothesis
from fuzz.outcomes import FUZZ, outcome
from hypothesis import strategies as st

from kd import catalog, config

NAMES = ["sst2_sinkd", "stsb_kd", "gtzan_kd", "fashion_mnist_kdpp", "cb_kd", "sst2_rkd"]
BASES = {name: catalog.load(name, "mini") for name in NAMES}


def paths(record, prefix=(), depth=5):
    """Every field of a record and of what it holds."""
    for name, (value, _) in config._children(record).items():
        yield ".".join((*prefix, name))
        if depth:
            yield from paths(value, (*prefix, name), depth - 1)


PATHS = {name: sorted(paths(base)) for name, base in BASES.items()}
SPECIAL = [
    *("", "none", "None", "true", "live", "1,2", "8,16", "32,16", ",", "0x10", "1e400"),
    *("nan", "-0.0", "1_000", "~", "~nobody/x", ".", "/", "a/b", "a/b/c", "\0", "٣"),
    *("mean", "first", "every second", "balanced", "float32", "1" * 5000),
]
VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(-3, 300).map(str),
    st.floats(width=64).map(str),
    st.sampled_from(SPECIAL),
    st.text(max_size=12),
)


@st.composite
def assignments(draw):
    name = draw(st.sampled_from(NAMES))
    pairs = draw(
        st.lists(
            st.tuples(st.sampled_from(PATHS[name]), VALUES), min_size=1, max_size=3
        )
    )
    paths_and_values = [
        (draw(st.text(max_size=6)) if draw(st.integers(0, 9)) == 0 else path, value)
        for path, value in pairs
    ]
    return name, [f"{path}={value}" for path, value in paths_and_values]


@hypothesis.given(assignments())
@hypothesis.settings(FUZZ)
def test_any_assignment(chosen):
    name, texts = chosen

    def resolved():
        changed = config.override(BASES[name], *texts).sharing_data()
        # What is accepted can be recorded, and compared with what was recorded.
        tree = json.loads(json.dumps(config.to_json(changed), allow_nan=False))
        assert config.differences(tree, config.to_json(changed)) == []
        changed.optimizer.schedule(100)(0)
        return changed

    outcome("settings", resolved)
