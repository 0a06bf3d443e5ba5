"""Every neuron as a loop over plain Python numbers that carry one derivative: the oracle of the neuron tests.

Written from the equations in the docstrings, not from the code. A :class:`Dual` is a number and its derivative by the
one variable that was seeded with 1; a burst's derivative is the surrogate's.
"""

import math
from dataclasses import dataclass


@dataclass
class Dual:
    v: float
    d: float = 0.0

    def __add__(self, other):
        other = dual(other)
        return Dual(self.v + other.v, self.d + other.d)

    def __sub__(self, other):
        other = dual(other)
        return Dual(self.v - other.v, self.d - other.d)

    def __mul__(self, other):
        other = dual(other)
        return Dual(self.v * other.v, self.v * other.d + self.d * other.v)

    def __truediv__(self, other):
        other = dual(other)
        return Dual(self.v / other.v, (self.d * other.v - self.v * other.d) / other.v**2)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return dual(other) - self


def dual(x):
    return x if isinstance(x, Dual) else Dual(float(x))


def stop(x):
    return Dual(dual(x).v)


def sigmoid(x):
    y = 1 / (1 + math.exp(-x.v))
    return Dual(y, y * (1 - y) * x.d)


def absolute(x):
    return x if x.v > 0 else Dual(0.0) if x.v == 0 else Dual(0.0) - x


def softplus(x):
    return Dual(math.log1p(math.exp(x.v)), x.d / (1 + math.exp(-x.v)))


def exponential(x):
    return Dual(math.exp(x.v), math.exp(x.v) * x.d)


SCALES = {"abs": absolute, "softplus": softplus, "exp": exponential}


def slope(name, p, s_max, alpha, beta, tail):
    """The surrogate at position p."""
    d = min(abs(p - k) for k in range(1, s_max + 1))
    if name == "relsg_et":
        return 1.0 if d <= alpha else math.exp(-beta * (d - (alpha if tail == "continuous" else 0)))
    if name == "arctan":
        return alpha / 2 / (1 + (math.pi / 2 * alpha * d) ** 2)
    if name == "rectangular":
        return alpha if d <= 0.5 / alpha else 0.0
    if name == "triangular":
        return alpha * max(0.0, 1 - alpha * d)
    if name == "sigmoid":
        y = 1 / (1 + math.exp(-alpha * d))
        return alpha * y * (1 - y)
    if name == "fast_sigmoid":
        return 1 / (1 + alpha * d) ** 2
    if name == "super_spike":
        return alpha / (1 + d) ** 2
    assert name == "straight_through"
    return 1.0


def burst(u, s_max, rounding, surrogate):
    if rounding == "to_zero":
        s = math.copysign(min(math.floor(abs(u.v)), s_max), u.v)
        p = abs(u.v)
    else:
        p = u.v + (0.5 if rounding == "round" else 0.0)
        s = min(max(math.floor(p), 0), s_max)
    return Dual(s, slope(p=p, s_max=s_max, **surrogate) * u.d)


def after(reset, v, s, delta):
    """U after the burst s."""
    if reset == "detach":
        return v - stop(delta * s)
    if reset == "detach_s":
        return v - delta * stop(s)
    if reset == "full":
        return v - delta * s
    fired = Dual(min(s.v, 1.0), s.d if s.v <= 1 else 0.0)
    return v * (1 - (stop(fired) if reset == "hard" else fired))


def simulate(x, *, delta, decay, s_max, rounding, reset, graded, surrogate):
    """Outputs ``[T][N]`` of independent burst neurons (N1) to (N4) for currents ``x [T][N]``."""
    u = [Dual(0.0) for _ in x[0]]
    out = []
    for currents in x:
        row = []
        for n, i in enumerate(currents):
            v = decay * u[n] + i
            s = burst(v / delta, s_max, rounding, surrogate)
            u[n] = after(reset, v, s, delta)
            row.append(delta * s if graded else s)
        out.append(row)
    return out


def simulate_adaptive(x, *, delta, decay, s_max, reset, graded, surrogate, net):
    """(A1) and (A2) for one sample; ``net`` is (w1, b1, w2, b2) as lists of numbers."""
    w1, b1, w2, b2 = net
    u = [Dual(0.0) for _ in x[0]]
    out = []
    for currents in x:
        scaled = [dual(i) / delta for i in currents]
        mean, size = Dual(0.0), Dual(0.0)
        for i in scaled:
            mean, size = mean + i / len(scaled), size + absolute(i) / len(scaled)
        logit = dual(b2[0])
        for k in range(len(b1)):
            h = mean * w1[k][0] + size * w1[k][1] + b1[k]
            logit = logit + (h if h.v > 0 else Dual(0.0)) * w2[0][k]
        real = 1 + (s_max - 1) * sigmoid(logit)
        cap = Dual(round(real.v), real.d)
        row = []
        for n, i in enumerate(currents):
            v = decay * u[n] + i
            s = burst(v / delta, s_max, "floor", surrogate)
            s = cap if s.v > cap.v else s
            u[n] = after(reset, v, s, delta)
            row.append(delta * s if graded else s)
        out.append(row)
    return out


def simulate_two_compartments(x, *, delta, couplings, gamma, s_max, reset, graded, surrogate):
    """(M1) to (M4)."""
    a, b = (sigmoid(w) for w in couplings)
    dendrite, soma = [Dual(0.0) for _ in x[0]], [Dual(0.0) for _ in x[0]]
    out = []
    for currents in x:
        row = []
        for n, i in enumerate(currents):
            d = dendrite[n] - a * soma[n] + i
            v = soma[n] + b * d
            s = burst(v / delta, s_max, "floor", surrogate)
            soma[n], dendrite[n] = after(reset, v, s, delta), after(reset, d, gamma * s, delta)
            row.append(delta * s if graded else s)
        out.append(row)
    return out
