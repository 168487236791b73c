#!/usr/bin/env python3
"""Derives the Lloyd-Max quantisers of the unit Gaussian for 1 to 8 bits.

Usage: benchmarks/derive_codebooks.py > Sources/CrosspointCompression/Codebook+Levels.swift

A quantiser is optimal when every level is the mean of its cell and every threshold lies half-way between two levels
(Lloyd 1957, Max 1960). Newton's method finds the positive half of the symmetric solution from the companding
approximation, level density proportional to the cube root of the Gaussian density.
"""
import sys

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm


def centroids(levels):
    """Mean of each cell and its probability, for the positive half with a threshold at zero."""
    edges = np.concatenate([[0], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    mass = ndtr(-edges[:-1]) - ndtr(-edges[1:])
    return (norm.pdf(edges[:-1]) - norm.pdf(edges[1:])) / mass, mass


def lloyd_max(bits):
    n = 2 ** (bits - 1)
    levels = np.sqrt(3) * norm.ppf(0.5 + (np.arange(n) + 0.5) / (2 * n))
    for _ in range(200):
        defect = levels - centroids(levels)[0]
        jacobian = np.empty((n, n))
        for k in range(n):
            step = np.zeros(n)
            step[k] = 1e-6
            jacobian[:, k] = step / 1e-6 - (centroids(levels + step)[0] - centroids(levels - step)[0]) / 2e-6
        change = np.linalg.solve(jacobian, defect)
        levels = np.sort(np.abs(levels - change))
        if np.abs(change).max() < 1e-10:
            break
    means, mass = centroids(levels)
    assert np.abs(levels - means).max() < 1e-9
    return levels, 1 - 2 * (mass * levels * levels).sum()


def main():
    print("// Written by benchmarks/derive_codebooks.py. Do not edit.\n")
    print("extension Codebook {")
    print("  /// The positive levels of the Lloyd-Max quantiser of the unit Gaussian, for 1 to 8 bits.")
    print("  static let positiveLevels: [[Float]] = [")
    for bits in range(1, 9):
        levels, distortion = lloyd_max(bits)
        print("%d bits: mean squared error %.6g" % (bits, distortion), file=sys.stderr)
        print("    [")
        texts = ["%.9g" % np.float32(level) for level in levels]
        for start in range(0, len(texts), 8):
            print("      " + ", ".join(texts[start:start + 8]) + ",")
        print("    ],")
    print("  ]\n}")


main()
