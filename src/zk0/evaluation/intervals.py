"""How sure one can be of a success rate.

Written out, since scipy.stats takes longer to import than a report to write.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.

    >>> tuple(round(bound, 3) for bound in wilson(8, 10))
    (0.49, 0.943)
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    failures, whole = trials - successes, trials + z**2
    centre = (successes + z**2 / 2) / whole
    half = z * math.sqrt(successes * failures / trials + z**2 / 4) / whole
    # At the ends rounding must not leave a hair's breadth.
    return centre - half if successes else 0.0, centre + half if failures else 1.0


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact p value: how often a fair coin would differ from half by as much.

    >>> sign_test(1, 7)
    0.0703125
    """
    tosses = wins + losses
    tail = sum(math.comb(tosses, fewer) for fewer in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**tosses)
