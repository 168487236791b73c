/// GELU in its sigmoid form: `x σ(2u)`, `u = √(2/π) (x + 0.044715 x³)`, which equals the tanh form
/// (Hendrycks and Gimpel, arXiv 1606.08415, section 2).
func gelu(_ x: Matrix, into out: Matrix) {
  map(x.base, into: out.base, count: x.count) { x in x * gate(x) }
}

/// `dx = dy · gelu'(x)`.
func geluBackward(_ x: Matrix, _ dy: Matrix, into dx: Matrix) {
  map(x.base, dy.base, into: dx.base, count: x.count) { x, dy in
    let s = gate(x)
    return dy * (s + x * s * (1 - s) * (x * x * (3 * cubic) + linear))
  }
}

private let linear: Float = 1.595_769_122  // 2 √(2/π)
private let cubic: Float = 0.071_354_816  // linear · 0.044715

@inline(__always)
private func gate(_ x: Lanes) -> Lanes { 1 / (1 + exponential(-x * (x * x * cubic + linear))) }
