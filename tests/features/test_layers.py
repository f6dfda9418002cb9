"""How hidden states become vectors, and what is said where they do not."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_features as reference

from kd.divergences import PerToken
from kd.errors import UserError
from kd.features import (
    CKA,
    PKT,
    VID,
    AttentionMSE,
    AttentionTransfer,
    EmbeddingCompression,
    Hints,
    NormalizedMSE,
    NormAndDirection,
    OverLayers,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
    WassersteinDependency,
    class_means,
    information_flow,
    layers,
    pkd,
    skip,
    tinybert,
)
from kd.objective import CrossEntropy
from kd.types import Outputs

RANDOM = np.random.default_rng(0)
MASK = jnp.array([True, True, False])
TOKENS = jnp.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], bool)


def normal(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def transformer(num_layers=2, width=4, heads=2, rows=3):
    """Outputs of as many layers beside the embeddings."""
    return Outputs(
        normal(rows, 2),
        tuple(normal(rows, 4, width) for _ in range(num_layers + 1)),
        tuple(normal(rows, heads, 4, 4) for _ in range(num_layers)),
    )


BATCH = {"mask": MASK, "token_mask": TOKENS, "labels": jnp.array([0, 1, 0])}


def test_vectors_of_tokens_are_of_the_real_ones():
    states = normal(3, 4, 5)
    garbage = jnp.where((TOKENS & MASK[:, None])[..., None], states, jnp.nan)
    x = np.asarray(states)
    expected: dict[layers.Read, np.ndarray] = {
        "mean": np.stack([x[0, :3].mean(axis=0), x[1, 0], 0 * x[2, 0]]),
        "first": np.stack([x[0, 0], x[1, 0], 0 * x[2, 0]]),
        "all": np.where((TOKENS & MASK[:, None])[..., None], x, 0).reshape(3, -1),
    }
    for read, values in expected.items():
        found = layers.vectors(garbage, BATCH, read)
        np.testing.assert_allclose(found, values, rtol=1e-6)
    assert layers.vectors(states.astype(jnp.bfloat16), BATCH, "mean").dtype == "float32"


def test_vectors_of_targets_are_of_the_real_ones():
    states = normal(3, 4, 5)
    batch = {"mask": jnp.ones(3, bool), "target_mask": TOKENS}
    batch["token_mask"] = jnp.ones((3, 4), bool)
    np.testing.assert_array_equal(
        layers.vectors(states, batch, "mean"),
        layers.vectors(states, batch | {"token_mask": TOKENS[:, :2]}, "mean"),
    )
    expected = np.asarray(states[1])[np.asarray(TOKENS[1])].mean(axis=0)
    np.testing.assert_allclose(
        layers.vectors(states, batch, "mean")[1], expected, rtol=1e-5
    )
    with pytest.raises(ValueError, match=re.escape("tokens of target_mask, (3, 4)")):
        layers.vectors(normal(3, 3, 5), batch, "mean")


def test_vectors_of_images_and_of_vectors():
    batch = {"mask": jnp.ones(3, bool), "token_mask": TOKENS}
    maps, plain = normal(3, 2, 4, 5), normal(3, 5)
    np.testing.assert_allclose(
        layers.vectors(maps, batch, "mean"), maps.mean(axis=(1, 2)), rtol=1e-5
    )
    assert layers.vectors(maps, batch, "all").shape == (3, 40)
    for read in ("mean", "first", "all"):
        np.testing.assert_array_equal(layers.vectors(plain, batch, read), plain)
    with pytest.raises(ValueError, match="a feature map has none"):
        layers.vectors(maps, batch, "first")
    with pytest.raises(ValueError, match=re.escape("(3, 3, 5) is not of the tokens")):
        layers.vectors(normal(3, 3, 5), batch, "mean")
    with pytest.raises(ValueError, match=re.escape("a hidden state is [b, d]")):
        layers.vectors(normal(3), batch, "mean")


def test_larger_feature_maps_are_averaged_down():
    fine = normal(3, 4, 6, 2)
    coarse = fine.reshape(3, 2, 2, 3, 2, 2).mean(axis=(2, 4))
    batch = {"mask": jnp.ones(3, bool)}
    ours, theirs = (Outputs(normal(3, 2), (x,)) for x in (fine, 2 * coarse))
    for pair in ((ours, theirs), (theirs, ours)):
        losses = AttentionTransfer().per_example((), *pair, batch)
        np.testing.assert_allclose(losses, 0, atol=1e-10)
    other = Outputs(normal(3, 2), (normal(3, 3, 6, 2),))
    with pytest.raises(UserError, match="4 x 6 and 3 x 6 points"):
        AttentionTransfer().per_example((), ours, other, batch)


@pytest.mark.parametrize(
    ("index", "who", "message"),
    [
        (4, "student", "student layer 4: the student has layers 0 to 2"),
        (-4, "student", "student layer -4: the student has layers 0 to 2"),
        (3, "teacher", "teacher layer 3: the teacher has layers 0 to 2"),
    ],
)
def test_layers_past_the_model_are_refused_with_those_there_are(index, who, message):
    model = transformer()
    loss = RKDDistance(**{f"{who}_layer": index})
    for ask in (
        lambda: loss.init(jax.random.key(0), model, model),
        lambda: loss.per_example((), model, model, BATCH),
    ):
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            ask()
        assert isinstance(caught.value, UserError)  # one line at the terminal


def test_attention_is_counted_like_hidden_states():
    model = transformer()
    with pytest.raises(ValueError, match=r"has layers 1 to 2$"):
        AttentionMSE(student_layer=0).per_example((), model, model, BATCH)
    with pytest.raises(ValueError, match="the teacher exposes no layers"):
        bare = Outputs(model.logits)
        AttentionMSE().per_example((), model, bare, BATCH)
    other = model._replace(attention=(model.attention[1], model.attention[0]))
    crossed = AttentionMSE(student_layer=1, teacher_layer=2)
    np.testing.assert_array_equal(crossed.per_example((), model, other, BATCH), 0)
    with pytest.raises(UserError, match='heads="mean" compares their means'):
        AttentionMSE().per_example((), model, transformer(heads=1), BATCH)


def test_widths_that_differ_need_a_projection():
    # Misfits are the person's to mend, so one line at the terminal.
    with pytest.raises(UserError, match=r"student is 4 wide, the teacher 6.*RKD"):
        NormalizedMSE()(normal(3, 4), normal(3, 6))
    made = Hints().parameters(jax.random.key(0), 5, 6, 2)
    with pytest.raises(ValueError, match="of width 5, these have 4"):
        Hints()(normal(3, 2, 4), normal(3, 2, 6), params=made)
    with pytest.raises(ValueError, match="no projection of features of width 4"):
        Hints()(normal(3, 2, 4), normal(3, 2, 6))
    with pytest.raises(ValueError, match="give labels="):
        NormAndDirection(class_means="batch")(normal(3, 4), normal(3, 4))
    with pytest.raises(ValueError, match="give means="):
        NormAndDirection()(normal(3, 4), normal(3, 4), labels=jnp.zeros(3, int))
    with pytest.raises(ValueError, match="give labels="):
        EmbeddingCompression()(normal(3, 4), normal(3, 4))


@pytest.mark.slow
def test_losses_read_their_layers_by_their_rule():
    student, teacher = transformer(), transformer(num_layers=3, width=6)
    loss = CKA(student_layer=0, teacher_layer=2, read="first")
    kept = np.asarray(MASK)
    expected = loss(student.hidden[0][kept, 0], teacher.hidden[2][kept, 0])
    found = loss.per_example((), student, teacher, BATCH)
    np.testing.assert_allclose(found[kept], expected, rtol=1e-5)
    assert not found[~kept].any()


def test_over_layers_is_the_sum_over_pairs_with_parameters_of_their_own():
    student, teacher = transformer(), transformer(num_layers=4, width=6)
    loss = OverLayers(loss=Hints(), student_layers=(0, 2), teacher_layers=(1, -1))
    params = loss.init(jax.random.key(0), student, teacher)
    assert not np.array_equal(*(own["kernel"] for own in params))
    expected = [
        Hints(student_layer=s, teacher_layer=t).per_example(
            own, student, teacher, BATCH
        )
        for s, t, own in zip((0, 2), (1, -1), params, strict=True)
    ]
    np.testing.assert_allclose(
        loss.per_example(params, student, teacher, BATCH),
        (expected[0] + expected[1]) / 2,
        rtol=1e-6,
    )
    weighted = dataclasses.replace(loss, weights=(2.0, -1.0))
    np.testing.assert_allclose(
        weighted.per_example(params, student, teacher, BATCH),
        2 * expected[0] - expected[1],
        rtol=1e-5,
        atol=1e-6,
    )
    assert loss.name == "hints_layers" and (1.0 * loss).reads_hidden
    assert not (1.0 * CrossEntropy()).reads_hidden
    with pytest.raises(ValueError, match="are pairs"):
        OverLayers(loss=Hints(), student_layers=(1,), teacher_layers=())
    with pytest.raises(ValueError, match="weights are 2 for 1 pairs"):
        OverLayers(
            loss=CKA(), student_layers=(1,), teacher_layers=(1,), weights=(1.0, 2.0)
        )
    past = OverLayers(loss=PKT(), student_layers=(1, 3), teacher_layers=(1, 2))
    with pytest.raises(ValueError, match=r"student layer 3: .* 0 to 2"):
        past.init(jax.random.key(0), student, teacher)


@pytest.mark.slow
def test_over_layers_shows_the_metrics_of_every_pair():
    student, teacher = transformer(), transformer(width=6)
    loss = OverLayers(
        loss=EmbeddingCompression(width=2), student_layers=(0, 2), teacher_layers=(1, 2)
    )
    params = loss.init(jax.random.key(0), student, teacher)
    values, metrics = loss.per_example_with_metrics(params, student, teacher, BATCH)
    np.testing.assert_array_equal(
        values, loss.per_example(params, student, teacher, BATCH)
    )
    for k, (ours, theirs) in enumerate(((0, 1), (2, 2))):
        alone = dataclasses.replace(loss.loss, student_layer=ours, teacher_layer=theirs)
        _, expected = alone.per_example_with_metrics(params[k], student, teacher, BATCH)
        for name, value in expected.items():
            np.testing.assert_array_equal(metrics.pop(f"{name}_{k + 1}"), value)
    assert not metrics


def test_layer_maps_are_those_of_the_papers():
    for none in ((0, 12), (3, 0)):
        with pytest.raises(ValueError, match="at least 1 layer on both sides"):
            skip(*none)
    assert skip(6, 12)["teacher_layers"] == (2, 4, 6, 8, 10, 12)
    assert skip(4, 12)["teacher_layers"] == (3, 6, 9, 12)
    assert skip(2, 1)["teacher_layers"] == (1, 1)
    assert pkd(6, 12).teacher_layers == (2, 4, 6, 8, 10)
    last = pkd(6, 12, strategy="last")
    assert last.student_layers == (1, 2, 3, 4, 5)
    assert last.teacher_layers == (7, 8, 9, 10, 11)
    for wrong in ((1, 12), (4, 2)):
        with pytest.raises(ValueError, match="at least 2 layers"):
            pkd(*wrong)
    (hidden, attention) = (term.loss for term in tinybert(4, 12).terms)
    assert isinstance(hidden, OverLayers) and isinstance(attention, OverLayers)
    assert hidden.teacher_layers == (0, 3, 6, 9, 12)
    assert attention.teacher_layers == (3, 6, 9, 12)


def test_weight_of_lower_layers_decays_by_the_epoch():
    student, teacher = transformer(), transformer(width=6)
    mix = information_flow((0, 1), (0, 1), steps_per_epoch=10)
    params = mix.init(jax.random.key(0), student, teacher)
    for step, weight in ((0, 100.0), (9, 100.0), (10, 70.0), (25, 49.0)):
        loss, metrics = mix.apply(params, student, teacher, BATCH, jnp.int32(step))
        expected = metrics["loss/pkt"] + weight * metrics["loss/pkt_layers"]
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_class_means_are_those_of_the_training_set():
    features, labels = RANDOM.normal(size=(7, 3)), np.array([0, 1, 0, 1, 1, 0, 2])
    means = class_means(features, labels, 3)
    np.testing.assert_allclose(means[1], features[[1, 3, 4]].mean(axis=0), rtol=1e-6)
    assert means.dtype == np.float32 and np.isfinite(means).all()
    with_more = class_means(features, labels, 4)
    np.testing.assert_array_equal(with_more[:3], means)
    assert np.isnan(with_more[3]).all()


@pytest.mark.parametrize("variance", [2e-5, 5.0, 1000.0])
def test_variance_begins_where_it_is_told_to(variance):
    params = VID(variance=variance).parameters(jax.random.key(0), 2, 3, 2)
    found = jax.nn.softplus(params["variance"]) + 1e-5
    np.testing.assert_allclose(found, np.full(3, variance), rtol=1e-5)


def test_critic_is_lipschitz_on_unit_vectors():
    loss = WassersteinDependency(width=8, slope=3.0)
    made = loss.parameters(jax.random.key(0), 4, 6, 2)
    params = jax.tree.map(lambda x: 10 * x, made)  # far beyond what is allowed

    def score(pair):
        ours, theirs = pair[None, :4], pair[None, 4:]
        return loss.critic(params, ours, theirs)[0, 0]

    # Of the critic behind the normalisation, at points of length 1.
    pairs = normal(64, 10)
    pairs = pairs.at[:, :4].divide(jnp.linalg.norm(pairs[:, :4], axis=1)[:, None])
    pairs = pairs.at[:, 4:].divide(jnp.linalg.norm(pairs[:, 4:], axis=1)[:, None])
    slopes = jnp.linalg.norm(jax.jit(jax.vmap(jax.grad(score)))(pairs), axis=1)
    assert 0.1 < slopes.max() <= 3.0 + 1e-5


@pytest.mark.slow
def test_what_embedding_compression_learns_from():
    loss = EmbeddingCompression(width=2)
    student, teacher, labels = normal(6, 4), normal(6, 5), jnp.arange(6) % 2
    params = loss.parameters(jax.random.key(0), 4, 5, 2)

    def total(student, params, labels):
        return loss(student, teacher, params=params, labels=labels).sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))
    ours, own = gradients(student, params, labels)
    other, own_other = gradients(student, params, 1 - labels)
    np.testing.assert_array_equal(ours, other)  # the student: not from labels
    assert not np.allclose(own["compress"]["kernel"], own_other["compress"]["kernel"])
    _, moved = gradients(student**3, params, labels)
    ours, theirs = (Outputs(normal(6, 2), (x,)) for x in (student, teacher))
    batch = {"mask": jnp.arange(6) > 1, "labels": labels}
    losses, metrics = loss.per_example_with_metrics(params, ours, theirs, batch)
    distance = loss.distance(
        student, teacher @ params["compress"]["kernel"], where=batch["mask"]
    )
    np.testing.assert_allclose(
        losses[2:].mean(), distance[2:].mean() + metrics["labels"], rtol=1e-5
    )
    jax.tree.map(np.testing.assert_array_equal, moved, own)  # not from the student


def test_similarities_do_not_depend_on_padding():
    student, teacher = transformer(), transformer(width=6)
    loss = SimilarityPreserving()
    wide = BATCH | {"token_mask": jnp.pad(TOKENS, ((0, 0), (0, 3)))}
    padded = [
        x._replace(
            hidden=tuple(
                jnp.pad(h, ((0, 0), (0, 3), (0, 0)), constant_values=9.0)
                for h in x.hidden
            )
        )
        for x in (student, teacher)
    ]
    np.testing.assert_allclose(
        loss.per_example((), padded[0], padded[1], wide),
        loss.per_example((), student, teacher, BATCH),
        rtol=1e-5,
    )


def test_tokens_are_not_flattened_twice():
    with pytest.raises(ValueError, match="rkd_distance reads hidden"):
        PerToken(RKDDistance())


@pytest.mark.slow
def test_more_rows_than_are_held_at_a_time(x64):
    student, teacher = (
        jnp.asarray(RANDOM.normal(size=(21, width))) for width in (4, 6)
    )
    for loss, definition in (
        (RKDDistance(), reference.rkd_distance),
        (RKDAngle(), reference.rkd_angle),
    ):
        found = jax.jit(lambda s, t, loss=loss: loss(s, t))(student, teacher)
        expected = definition((), np.asarray(student), np.asarray(teacher), None)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
