"""The rate-distortion bound of a Gaussian source with the covariance of the rows: reverse water-filling."""
import numpy as np


def water_filling(x, route, rate, seed=0):
    """What arrives at `rate` bits per element from the best code there is for a Gaussian of this covariance.

    Rows are taken relative to the mean of their expert, which is given away for nothing, as is the covariance. Each
    principal component of variance v above the water level w becomes (1 - w / v) of itself plus noise of variance
    w (1 - w / v); the others vanish (Cover and Thomas, Elements of Information Theory, section 10.3).
    """
    centred, means = x.astype(np.float64), np.zeros_like(x, dtype=np.float64)
    for expert in np.unique(route):
        means[route == expert] = centred[route == expert].mean(0)
    centred -= means
    variance, basis = np.linalg.eigh(centred.T @ centred / len(centred))
    variance = np.maximum(variance, 1e-12)
    low, high = 1e-12, variance.max()
    for _ in range(100):
        level = np.sqrt(low * high)
        if 0.5 * np.log2(np.maximum(variance / level, 1)).mean() > rate:
            low = level
        else:
            high = level
    kept = np.maximum(1 - level / variance, 0)
    noise = np.random.default_rng(seed).normal(size=centred.shape) * np.sqrt(level * kept)
    return ((centred @ basis * kept + noise) @ basis.T + means).astype(np.float32)
