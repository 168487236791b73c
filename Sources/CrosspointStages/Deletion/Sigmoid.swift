import Glibc

/// σ(z), without overflow at either end.
func sigmoid(_ z: Float) -> Float {
  let e = exp(-abs(z))
  return z >= 0 ? 1 / (1 + e) : e / (1 + e)
}

/// The z at which σ(z) = p; −∞ at 0.
func logit(_ p: Double) -> Float { Float(log(p / (1 - p))) }
