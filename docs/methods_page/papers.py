"""The papers that this project follows: what each changes, and what is open here.

Which experiments run a paper's method, and what tables say of its claims, is not said
here: `page` finds it.
"""

from typing import Literal, NamedTuple

Change = Literal["loss", "time", "teacher", "input", "student", "analysis"]
"""What is compared; when a teacher is believed; who teaches; what is asked; who
learns; what is computed of networks that are trained."""


class Paper(NamedTuple):
    """A paper and its method here."""

    key: str
    """In references.bib."""
    name: str
    changes: tuple[Change, ...]
    what: str
    """The method as a sentence, in the code's own words."""
    open: str = ""
    """What is inferred, or not built; empty where nothing is."""


PAPERS = (
    Paper(
        "cui2024sinkhorn", "SinKD", ("loss",),
        "`SinKD`: a Sinkhorn distance between all student and all teacher outputs of "
        "a batch; `LabelWords` and `SinKDOfT0Script` are its forms "
        "for sequences.",
        "GPT-2 stands for GPT-Neo; label words are single tokens.",
    ),
    Paper(
        "cui2025multilevelot", "MultiLevelOT", ("loss",),
        "`MultiLevelOT`: transport between the tokens of two vocabularies, within and "
        "over positions.",
        "No task that writes text runs it.",
    ),
    Paper(
        "wen2023fdistill", "f-DISTILL", ("loss",),
        "`KL`, `ReverseKL`, `JS` and `TotalVariation` step by step.",
        "The teacher's texts are drawn in every step, not once before.",
    ),
    Paper(
        "tu2020engine", "ENGINE", ("loss",),
        "`ReverseCrossEntropy`: the teacher's energy of what the student predicts.",
        "No task that writes text runs it.",
    ),
    Paper(
        "jafari2021annealing", "Annealing-KD", ("time",),
        "Phase one regresses the teacher's logits, whose amplitude rises; phase two "
        "starts from its best checkpoint and learns from labels.",
    ),
    Paper(
        "jafari2022continuation", "Continuation-KD", ("time",),
        "From the teacher's answers to the labels, by schedules of the mix and of the "
        "margin under which errors do not count.",
        "No public code: schedules and margin are inferred from the text.",
    ),
    Paper(
        "amara2022bdkd", "BD-KD", ("loss", "student"),
        "Two networks that learn from each other, forward and reverse divergence "
        "balanced by the gap of their entropies.",
        "No public code: how the balance is made is inferred from the text.",
    ),
    Paper(
        "zhang2018mutual", "Deep mutual learning", ("student",),
        "`Online`: every network learns from the others' answers and from labels.",
    ),
    Paper(
        "guo2020kdcl", "KDCL", ("student",),
        "`Online`: the ensemble of all that learn teaches each.",
    ),
    Paper(
        "wang2023norm", "Norm and direction", ("loss",),
        "`NormAndDirection`: long features that point to the teacher's mean of their "
        "class.",
    ),
    Paper(
        "ding2023east", "EAsT", ("teacher",),
        "Embeddings of an audio network as the teacher, by distance correlation or "
        "cosine differences.",
        "Audio networks are out of scope: features of tables and images stand in.",
    ),
    Paper(
        "ding2024embedding", "Embedding compression", ("loss", "teacher"),
        "`EmbeddingCompression`: the student learns a compressed embedding.",
    ),
    Paper(
        "xu2025speculative", "Speculative KD", ("input",),
        "The student writes, the teacher replaces what it would not have said.",
        "Not built: it needs tasks that write text.",
    ),
    Paper(
        "zhong2024atkd", "ATKD", ("loss",),
        "`ATKD`: the target's part of KL dropped for tokens that the teacher finds "
        "easy.",
        "No language model runs it; classes of a task stand in for tokens.",
    ),
    Paper(
        "ko2024distillm", "DistiLLM", ("loss", "input"),
        "`SkewedKL`, `SkewedReverseKL`.",
        "The student's own texts and their replay are not built.",
    ),
    Paper(
        "kim2024r2kd", "R2KD", ("loss", "teacher", "input"),
        "`ValueCorrelation` and `RankCorrelation` with a teacher and its pruned copy, "
        "on images mixed where they are uncertain.",
    ),
    Paper(
        "wilf2023comparative", "Comparative KD", ("loss", "teacher"),
        "`ComparativeKL`: differences of answers within groups of examples, the "
        "teacher being asked about a few of them.",
    ),
    Paper(
        "amara2022ceskd", "CES-KD", ("teacher", "time"),
        "`Curriculum`: one of several experts teaches each example, by how difficult "
        "it is and how far training has come.",
        "No public code: the pacing is inferred from the text.",
    ),
    Paper(
        "mirzadeh2020improved", "TAKD", ("teacher",),
        "Assistants between teacher and student: a chain of `Network`s.",
    ),
    Paper(
        "wang2022augmentation", "Distillation with augmentation", ("input",),
        "Views of a batch on the device: mixtures, holes, flips and crops, of which "
        "the most uncertain are picked.",
    ),
    Paper(
        "passalis2020heterogeneous", "Information flow", ("loss", "teacher", "time"),
        "`information_flow`: PKT over layers, with weights that decay, from a teacher "
        "of the student's family.",
    ),
    Paper(
        "ozair2019wasserstein", "Wasserstein dependency measure", ("loss",),
        "Predictive coding with a Lipschitz critic on views without labels, and "
        "`WassersteinDependency` between student and teacher.",
    ),
    Paper(
        "he2024information", "Generalization bounds", ("analysis",),
        "`kd.analysis`: bounds of the linear-Gaussian case, contraction of noisy "
        "layers, the Gibbs algorithm; `make profile` draws the layers of a run.",
        "Constants are derived here; profiles of trained networks are diagnostics, no "
        "bounds.",
    ),
    Paper(
        "hinton2015distilling", "KD", ("loss",),
        "`KL` of softened predictions beside the labels.",
    ),
    Paper(
        "touvron2021deit", "DeiT", ("loss", "student"),
        "`OfHead`, `HardCrossEntropy`: a vision transformer with a token that learns "
        "the teacher's first choices.",
        "Without the paper's augmentation.",
    ),
    Paper(
        "romero2015fitnets", "FitNets", ("loss",),
        "`Hints`: features regressed onto the teacher's.",
    ),
    Paper(
        "zagoruyko2017attention", "Attention transfer", ("loss",),
        "`AttentionTransfer`: where features are large.",
    ),
    Paper(
        "park2019rkd", "RKD", ("loss",),
        "`RKDDistance`, `RKDAngle`: distances and angles among examples.",
    ),
    Paper(
        "tung2019similarity", "Similarity-preserving", ("loss",),
        "`SimilarityPreserving`: inner products of all pairs of examples.",
    ),
    Paper(
        "passalis2018pkt", "PKT", ("loss",),
        "`PKT`: who is whose neighbour in a batch.",
    ),
    Paper(
        "tian2020crd", "CRD", ("loss",),
        "`CRD`: recognising one's own teacher among those of a batch.",
        "Negatives are those of the batch; there is no memory bank.",
    ),
    Paper(
        "zhao2022dkd", "DKD", ("loss",),
        "`DKD`: target and other classes weighted apart.",
    ),
    Paper(
        "huang2022dist", "DIST", ("loss",),
        "`DIST`: correlations within and across examples.",
    ),
)  # fmt: skip
