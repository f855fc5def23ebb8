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
[5] P. R. Rosenbaum. Observational Studies, chapter 4: sensitivity to hidden bias. Springer 2002.
[6] N. Karampatziakis, P. Mineiro and A. Ramdas. Off-policy confidence sequences. ICML 2021,
    arXiv 2102.09540.
[7] S. R. Howard, A. Ramdas, J. McAuliffe and J. Sekhon. Time-uniform, nonparametric, nonasymptotic
    confidence sequences. Annals of Statistics 2021, arXiv 1810.08240.
"""

from online_learner.evidence.account import account, caveat, e, missed, numbers, outlook
from online_learner.evidence.betting import (
    BETS,
    PRIOR,
    BettingTest,
    Floats,
    bets,
    gamma_of,
    log_factors,
    log_mean_exp,
    log_mixture,
    raised_null,
)
from online_learner.evidence.case import Case
from online_learner.evidence.confidence import confidence_sequence
from online_learner.evidence.detector import ChangeDetector
from online_learner.evidence.exposure import ExposureTest
from online_learner.evidence.forecast import labels_to_go, requests_to_go
from online_learner.evidence.influence import Influence
from online_learner.evidence.levels import ZETA, log_threshold, log_threshold_spent, lond_weight
from online_learner.evidence.reliability import Reliability
from online_learner.evidence.running import RunningMean
from online_learner.evidence.scores import (
    agreement,
    difference,
    paired_loss,
    paired_score,
    same,
    score,
)
from online_learner.evidence.segments import Segments
from online_learner.evidence.sensitivity import Sensitivity
from online_learner.evidence.terms import Duel, Terms
from online_learner.evidence.trial import Reading, Standing, Trial
from online_learner.evidence.unpaired import Unpaired
from online_learner.evidence.watch import Watch

__all__ = [
    "BETS",
    "PRIOR",
    "ZETA",
    "BettingTest",
    "Case",
    "ChangeDetector",
    "Duel",
    "ExposureTest",
    "Floats",
    "Influence",
    "Reading",
    "Reliability",
    "RunningMean",
    "Segments",
    "Sensitivity",
    "Standing",
    "Terms",
    "Trial",
    "Unpaired",
    "Watch",
    "account",
    "agreement",
    "bets",
    "caveat",
    "confidence_sequence",
    "difference",
    "e",
    "gamma_of",
    "labels_to_go",
    "log_factors",
    "log_mean_exp",
    "log_mixture",
    "log_threshold",
    "log_threshold_spent",
    "lond_weight",
    "missed",
    "numbers",
    "outlook",
    "paired_loss",
    "paired_score",
    "raised_null",
    "requests_to_go",
    "same",
    "score",
]
