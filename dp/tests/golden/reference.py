"""Prints the reference figures of dp/tests/accounting.rs: Google's dp-accounting 0.6.0, and mpmath quadrature.

    python3 -m venv venv && venv/bin/pip install dp-accounting==0.6.0 mpmath
    venv/bin/python dp/tests/golden/reference.py > dp/tests/golden/reference.json
"""

import json

import dp_accounting as dp
import mpmath
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

# A third of the default, which overstates epsilon by up to 1e-4 after ten thousand steps.
STEP = 3e-5
ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(11, 64)) + [128, 256, 512, 1024]

# (rounds, delta); one round is (noise multiplier, sampling rate, steps).
COMPOSITIONS = [
    ([(0.8, 0.02, 500)], 1e-5),
    ([(1.5, 0.5, 50)], 1e-5),
    ([(10.0, 0.2, 1000)], 1e-8),
    ([(4.0, 1.0, 100)], 1e-5),
    ([(0.7, 0.03, 200)], 1e-6),
    ([(3.0, 0.25, 40)], 1e-7),
    ([(1.2, 0.004, 5000)], 1e-5),
    ([(0.9, 0.9, 5)], 1e-5),
    ([(5.0, 0.05, 20000)], 1e-6),
    ([(1.0, 0.01, 500), (2.0, 0.05, 300)], 1e-5),
    ([(0.8, 0.02, 100), (4.0, 1.0, 20), (1.5, 0.1, 50)], 1e-6),
]

# (noise multiplier, sampling rate, order): one step.
STEPS = [(1.0, 0.01, 1.5), (1.0, 0.01, 3.7), (2.0, 0.1, 2.5), (2.0, 0.1, 32.0), (0.8, 0.02, 3.7), (1.5, 0.5, 2.5),
         (0.8, 0.02, 63.0), (2.0, 0.1, 256.0), (3.0, 0.25, 7.3), (0.6, 0.005, 1.2)]

# (noise multiplier, drawn, of how many, steps, delta): without replacement, one example replaced by another.


def compose(accountant, rounds):
    for sigma, rate, steps in rounds:
        event = dp.GaussianDpEvent(sigma)
        if rate < 1.0:
            event = dp.PoissonSampledDpEvent(rate, event)
        accountant.compose(event, steps)
    return accountant


def renyi(sigma, rate, order):
    """Larger Renyi divergence of the mixture and N(0, sigma^2), by quadrature."""
    mpmath.mp.dps = 30
    s, q, a = mpmath.mpf(sigma), mpmath.mpf(rate), mpmath.mpf(order)
    p0 = lambda x: mpmath.exp(-x * x / (2 * s * s)) / (s * mpmath.sqrt(2 * mpmath.pi))
    ratio = lambda x: (1 - q) + q * mpmath.exp((2 * x - 1) / (2 * s * s))
    grid = [mpmath.mpf(i) * s for i in range(-40, int(40 + order / sigma) + 1, 2)]
    return float(mpmath.log(mpmath.quad(lambda x: p0(x) * ratio(x) ** a, grid)) / (a - 1))


def main():
    compositions = []
    for rounds, delta in COMPOSITIONS:
        pld = compose(PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, STEP), rounds)
        rdp = compose(RdpAccountant(ORDERS, dp.NeighboringRelation.ADD_OR_REMOVE_ONE), rounds)
        epsilon = pld.get_epsilon(delta)
        compositions.append({
            "rounds": rounds, "delta": delta, "pld": epsilon, "rdp": rdp.get_epsilon(delta),
            "half": epsilon / 2, "pld_delta_at_half": pld.get_delta(epsilon / 2),
        })
    steps = [{"sigma": s, "rate": q, "order": a, "rdp": renyi(s, q, a)} for s, q, a in STEPS]
    print(json.dumps({"compositions": compositions, "steps": steps}, indent=1))


main()
