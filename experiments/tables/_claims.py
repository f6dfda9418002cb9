"""What papers claim of divergences, for tables whose rows have these names."""

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
