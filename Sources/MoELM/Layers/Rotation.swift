import Foundation

/// Rotary positions: pair i of a head turns by `position · 10000^(−2i/width)`.
///
/// Su et al., arXiv 2104.09864, equation 15, with the two halves of a head as the pairs.
struct Rotation {
  private let half: Int
  private let cosines: [Float]
  private let sines: [Float]

  init(positions: Int, width: Int) {
    half = width / 2
    var (cosines, sines) = ([Float](), [Float]())
    for position in 0..<positions {
      for pair in 0..<width / 2 {
        let angle = Double(position) * pow(10_000, -2 * Double(pair) / Double(width))
        cosines.append(Float(cos(angle)))
        sines.append(Float(sin(angle)))
      }
    }
    self.cosines = cosines
    self.sines = sines
  }

  /// Turns one head's floats in place; `backwards` is the adjoint.
  func apply(_ head: UnsafeMutablePointer<Float>, position: Int, backwards: Bool) {
    let sign: Float = backwards ? -1 : 1
    for pair in 0..<half {
      let (cosine, sine) = (cosines[position * half + pair], sign * sines[position * half + pair])
      let (a, b) = (head[pair], head[pair + half])
      head[pair] = a * cosine - b * sine
      head[pair + half] = a * sine + b * cosine
    }
  }
}
