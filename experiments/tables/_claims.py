"""What papers claim of divergences, for tables whose rows have these names."""

import dataclasses
from collections.abc import Iterable

from experiments.tables._procedures import EQUAL
from kd.compare.table import Claim

_SINKD = "cui2024sinkhorn"
_SYMMETRIC = "wen2023fdistill: symmetric above asymmetric"

OF_DIVERGENCES = (
    Claim("KL", "labels", "hinton2015distilling"),
    Claim("SinKD", "KL", _SINKD),
    Claim("SinKD", "reverse KL", _SINKD),
    Claim("SinKD", "JS", _SINKD),
    Claim("KL + SinKD", "KL", _SINKD),
    Claim("Jeffreys", "KL", _SYMMETRIC),
    Claim("JS", "KL", _SYMMETRIC),
)

_BDKD = "amara2022bdkd"
_CESKD = "amara2022ceskd"
_KDCL = "guo2020kdcl"
_AUGMENTATION = "wang2022augmentation"

_OF_PROCEDURES = (
    Claim("KL", "labels", "hinton2015distilling"),
    Claim("annealing", "KL", "jafari2021annealing"),
    Claim("continuation", "KL", "jafari2022continuation"),
    Claim("DML", "labels", "zhang2018mutual"),
    Claim("KDCL", "DML", _KDCL),
    Claim("KDCL", "KL", _KDCL),
    Claim("BD-KD", "DML", _BDKD),
    Claim("BD-KD", "KL", _BDKD),
    Claim("TAKD", "KL", "mirzadeh2020improved"),
    Claim("CES-KD", "KL", _CESKD),
    Claim("CES-KD", "TAKD", _CESKD),
    Claim("mixup", "KL", _AUGMENTATION),
    Claim("CutMixPick", "KL", _AUGMENTATION),
    Claim("CutMixPick", "mixup", _AUGMENTATION),
    Claim("R2KD", "KL", "kim2024r2kd"),
    Claim("CKD", "KL, 4 % answered", "wilf2023comparative"),
    Claim("KD++", "KL", "wang2023norm"),
    Claim("DKD++", "KL", "wang2023norm"),
    Claim("DIST++", "KL", "wang2023norm"),
    Claim("EAsT, of digits", "labels", "ding2023east"),
    Claim("information flow", "KL", "passalis2020heterogeneous"),
)
"""Each paper's, of its own tasks; what it compares with, or the plain one of these."""


def of_procedures(rows: Iterable[str]) -> tuple[Claim, ...]:
    """What papers claim of the rows of a table of procedures.

    Where a row asks its teachers more often than plain KD, the same of the row that
    asks as often.
    """
    there = {*rows}
    fewer = (
        dataclasses.replace(claim, better=claim.better + EQUAL)
        for claim in _OF_PROCEDURES
        if claim.better + EQUAL in there
    )
    claims = (*_OF_PROCEDURES, *fewer)
    return tuple(claim for claim in claims if {claim.better, claim.than} <= there)
