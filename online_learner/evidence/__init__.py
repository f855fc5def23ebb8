"""Anytime-valid tests: look after every label, stop whenever you like, and the error stays bounded.

Pure numpy, constant memory. Every test takes paired score differences `d` in [-1, 1], settled in
prediction order, and keeps its state as plain numbers so that it can be stored and recomputed.

References
----------
[1] Y. J. Choe and A. Ramdas. Comparing sequential forecasters. arXiv 2110.00115.
[2] I. Waudby-Smith and A. Ramdas. Estimating means of bounded random variables by betting.
    JRSS-B 2024, arXiv 2010.09686.
[3] J. Shin, A. Ramdas and A. Rinaldo. E-detectors: a nonparametric framework for sequential change
    detection. arXiv 2203.03532.
[4] Z. Xu and A. Ramdas. Online multiple testing with e-values. AISTATS 2024, arXiv 2311.06412.
"""

from online_learner.evidence.betting import (
    BETS,
    BettingTest,
    Floats,
    bets,
    log_mean_exp,
    raised_null,
)
from online_learner.evidence.detector import (
    ChangeDetector,
)
from online_learner.evidence.forecast import (
    labels_to_go,
)
from online_learner.evidence.levels import (
    ZETA,
    log_threshold,
    lond_weight,
)
from online_learner.evidence.scores import (
    agreement,
    paired_loss,
    paired_score,
    same,
)
from online_learner.evidence.trial import (
    Case,
    Duel,
    Trial,
)

__all__ = [
    "BETS",
    "ZETA",
    "BettingTest",
    "Case",
    "ChangeDetector",
    "Duel",
    "Floats",
    "Trial",
    "agreement",
    "bets",
    "labels_to_go",
    "log_mean_exp",
    "log_threshold",
    "lond_weight",
    "paired_loss",
    "paired_score",
    "raised_null",
    "same",
]
