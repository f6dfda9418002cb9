"""The transport plan of one batch of dev examples, to look at."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from kd.divergences import SinKD
from kd.objective import Mix


def transport_plan(
    objective: Mix,
    labels: Int[np.ndarray, "n"],
    student_logits: Float[np.ndarray, "n v"],
    teacher_logits: Float[np.ndarray, "n v"],
    *,
    num_examples: int = 64,
) -> dict[str, np.ndarray]:
    """How SinKD moves the first student predictions onto the teacher's.

    With the temperature, epsilon and iterations of the objective's own SinKD term,
    or of a default one, so that runs with and without it can be compared.

    Returns:
        plan, cost [m, m], rows being the student; student_probs, teacher_probs
        [m, v], softened; labels [m]; m is at most `num_examples`.
    """
    own = [term.loss for term in objective.terms if isinstance(term.loss, SinKD)]
    sinkd = own[0] if own else SinKD()
    student, teacher = student_logits[:num_examples], teacher_logits[:num_examples]
    plan, cost = sinkd.plan(jnp.asarray(student), jnp.asarray(teacher))
    return {
        "plan": np.asarray(plan),
        "cost": np.asarray(cost),
        "student_probs": np.asarray(jax.nn.softmax(student / sinkd.temperature)),
        "teacher_probs": np.asarray(jax.nn.softmax(teacher / sinkd.temperature)),
        "labels": labels[:num_examples],
    }
