#!/usr/bin/env python3
"""Derives the Lloyd-Max quantisers of the unit Gaussian for 1 to 8 bits.

  benchmarks/derive_codebooks.py > Sources/CrosspointCompression/Formats/Codebook+Levels.swift

A quantiser is optimal when every level is the mean of its cell and every threshold lies half-way between two levels
(Lloyd 1957, Max 1960). Newton's method finds the positive half of the symmetric solution from the companding
approximation, level density proportional to the cube root of the Gaussian density.

Encoders find the code of a magnitude without a search: it is the whole part of a polynomial, the compander, that passes
through (threshold i, i) to within 1/64, capped a little above the last threshold.
"""
import argparse
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


def degree(bits):
    """As in codec_bits.h."""
    return (1, 1, 3, 3, 4, 4, 5, 6)[bits - 1]


def compander(bits, levels):
    """The cap, then the coefficients of x, x^2, ...: the least largest deviation by Lawson's reweighted least squares."""
    thresholds = (levels[1:] + levels[:-1]) / 2
    if bits == 1:
        return np.zeros(2, np.float32)
    index = np.arange(1, len(levels))
    scale = thresholds[-1]
    powers = (thresholds[:, None] / scale) ** np.arange(1, degree(bits) + 1)
    weight = np.ones(len(index))
    for _ in range(2000):
        root = np.sqrt(weight / weight.sum())
        fit = np.linalg.lstsq(powers * root[:, None], index * root, rcond=None)[0]
        if len(fit) >= len(index):
            break
        weight = root ** 2 * np.abs(powers @ fit - index)
    deviation = np.abs(powers @ fit - index).max()
    assert deviation < 1 / 64
    coefficients = (fit / scale ** np.arange(1, degree(bits) + 1)).astype(np.float32)
    # The cap lies a sixteenth of the last step above the last threshold.
    cap = np.float32(scale + (scale - (thresholds[-2] if bits > 2 else 0)) / 16)

    def value(x):
        result = np.zeros_like(x)
        for coefficient in coefficients[::-1]:
            result = result * x + coefficient
        return result * x

    x = np.linspace(0, cap, 100000, dtype=np.float32)
    y = value(x)
    assert (np.diff(y.astype(np.float64)) > -1e-4).all() and y.min() >= 0
    assert int(y.max()) == int(y[-1]) == len(levels) - 1
    print("%d bits: compander of degree %d, deviation %.4f of a cell" % (bits, degree(bits), deviation), file=sys.stderr)
    return np.concatenate([[cap], coefficients])


def table(name, summary, rows):
    print("  /// %s" % summary)
    print("  static let %s: [[Float]] = [" % name)
    for row in rows:
        print("    [")
        texts = ["%.9g" % np.float32(value) for value in row]
        for start in range(0, len(texts), 8):
            print("      " + ", ".join(texts[start:start + 8]) + ("," if len(texts) > 1 else ""))
        print("    ],")
    print("  ]")


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("// Written by benchmarks/derive_codebooks.py. Do not edit.\n")
    print("extension Codebook {")
    books = []
    for bits in range(1, 9):
        levels, distortion = lloyd_max(bits)
        print("%d bits: mean squared error %.6g" % (bits, distortion), file=sys.stderr)
        books.append(levels)
    table("positiveLevels", "The positive levels of the Lloyd-Max quantiser of the unit Gaussian, for 1 to 8 bits.", books)
    print()
    table("companders", "Cap and coefficients of the polynomial whose whole part is the code of a magnitude.",
          [compander(index + 1, levels) for index, levels in enumerate(books)])
    print("}")


main()
