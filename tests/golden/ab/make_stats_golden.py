"""Writes stats.json: tests, corrections, powers and quantiles by scipy, statsmodels and numpy.

  paired_t    differences, scipy's t, p and intervals at two levels
  holm        p values and statsmodels' adjusted ones
  powers      [effect, n, alpha, power]: the noncentral t as an integral over the spread, asserted to be
              statsmodels' TTestPower to 1e-9 wherever that is a number: scipy's far tail is often NaN
  resolvable  [n, alpha, effect that has power 0.8]
  pairs       [effect, alpha, number of pairs that reaches power 0.8]
  quantiles   values, [q, numpy.quantile]
  intervals   values, level and numpy's percentile interval
  resamples   num_images, seed, draw and counts, by SplitMix64 in Python's integers
"""

import json
import math
import pathlib
import sys
import warnings
from importlib.metadata import version

import numpy as np
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ndtr
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

rng = np.random.default_rng(20260301)
ALPHA = 0.05
# Of each power, whether statsmodels gave a number to check it with.
CHECKED = []


def paired_t():
    for n in [2, 3, 3, 4, 5, 5, 8, 10, 30, 200]:
        control = 30 + rng.normal(0, 0.5, n)
        arm = control + rng.normal(rng.choice([0, 0.3, 1.5]), rng.choice([0.05, 0.4]), n)
        # Differences are what the tests are given; against 0, so that they are exactly those.
        differences = arm - control
        result = stats.ttest_rel(differences, np.zeros(n))
        intervals = []
        for level in [0.95, 1 - ALPHA / 3, 0.999]:
            ci = result.confidence_interval(level)
            intervals.append([level, ci.low, ci.high])
        yield dict(differences=differences.tolist(), mean=differences.mean(), sd=differences.std(ddof=1),
                   t=result.statistic, p=result.pvalue, intervals=intervals)


def holm():
    families = [[0.01], [0.04, 0.01], [0.04, 0.03, 0.02], [0.01, 0.01, 0.01, 0.5], [1.0, 0.0, 0.2], [0.6, 0.7, 0.8, 0.9]]
    families += [(rng.random(m) ** 3).tolist() for m in [2, 3, 5, 8, 12]]
    for p in families:
        yield dict(p=p, adjusted=multipletests(p, ALPHA, "holm")[1].tolist())


NS = [2, 3, 4, 5, 7, 10, 20, 50, 200, 1000]
ALPHAS = [ALPHA, ALPHA / 2, ALPHA / 3, ALPHA / 7, 0.01]


def power(effect, n, alpha):
    """P(|Z + shift| > critical S), S the spread: of all S, the probability given S."""
    freedom, shift = n - 1, abs(effect) * math.sqrt(n)
    critical = stats.t.isf(alpha / 2, freedom)
    density = lambda s: stats.chi.pdf(s * math.sqrt(freedom), freedom) * math.sqrt(freedom)
    found = lambda s: ndtr(shift - critical * s) + ndtr(-shift - critical * s)
    middle, width = shift / critical, 1 / critical
    furthest = stats.chi.isf(1e-18, freedom) / math.sqrt(freedom)
    cuts = sorted({0.0, furthest} | {c for k in range(-9, 10, 2) if 0 < (c := middle + k * width) < furthest} | {c for c in [0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5] if c < furthest})
    parts = [quad(lambda s: density(s) * found(s), low, high, epsabs=1e-15, epsrel=1e-13)[0] for low, high in zip(cuts, cuts[1:])]
    theirs = float(TTestPower().power(effect, n, alpha))
    total = math.fsum(parts)
    CHECKED.append(math.isfinite(theirs))
    assert math.isnan(theirs) or abs(total - theirs) < 1e-9, (effect, n, alpha, total, theirs)
    return total


def powers():
    for n in NS:
        for alpha in [ALPHA, ALPHA / 3, 0.001]:
            for effect in [0.0, 0.05, 0.3, 1.0, -1.0, 2.5, 20.0]:
                yield [effect, n, alpha, power(effect, n, alpha)]


def resolvable():
    for n in NS:
        for alpha in ALPHAS:
            high = 1
            while power(high, n, alpha) < 0.8:
                high *= 2
            yield [n, alpha, brentq(lambda e: power(e, n, alpha) - 0.8, 0, high, xtol=1e-15, rtol=1e-14)]


def pairs():
    for effect in [0.1, 0.2, 0.35, 0.5, 0.8, 1.0, 1.7, 3.0, 8.0]:
        for alpha in [ALPHA, ALPHA / 3]:
            low, high = 1, 4000
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if power(effect, middle, alpha) >= 0.8 else (middle, high)
            yield [effect, alpha, high]


def quantiles():
    for n in [1, 2, 3, 10, 41]:
        values = np.sort(rng.normal(0, 1, n))
        qs = [0.0, 0.025, 0.1, 0.25, 0.5, 0.61, 0.75, 0.975, 1.0]
        yield dict(values=values.tolist(), quantiles=[[q, float(np.quantile(values, q))] for q in qs])


def intervals():
    for n in [2, 40, 41, 200]:
        values = rng.normal(0.3, 1, n)
        for level in [0.95, 0.9]:
            tail = 50 * (1 - level)
            low, high = np.percentile(values, [tail, 100 - tail])
            yield dict(values=values.tolist(), level=level, low=low, high=high,
                       se=values.std(ddof=1), share_above=float((values > 0).mean()))


MASK, GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15


def mix(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def resamples():
    for images, seed, draw in [(1, 0, 0), (7, 0, 3), (50, 1, 0), (50, 1, 1999), (50, 2**64 - 1, 12)]:
        state = mix(GOLDEN)
        for word in [*b"resample images", seed, draw]:
            state = mix(state ^ word) + GOLDEN & MASK
        state = mix(state)
        counts = [0] * images
        for _ in range(images):
            state = state + GOLDEN & MASK
            counts[mix(state) * images >> 64] += 1
        yield dict(num_images=images, seed=seed, draw=draw, counts=counts)


if __name__ == "__main__":
    warnings.simplefilter("error")
    versions = {name: version(name) for name in ["scipy", "statsmodels", "numpy"]} | dict(python=sys.version.split()[0])
    out = dict(versions=versions)
    for section in [paired_t, holm, powers, resolvable, pairs, quantiles, intervals, resamples]:
        out[section.__name__] = list(section())
    print(f"{sum(CHECKED)} of {len(CHECKED)} powers are checked against statsmodels")
    path = pathlib.Path(__file__).with_name("stats.json")
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in out.items())
    path.write_text("{\n" + lines + "\n}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")
