import CrosspointCompression

/// What a policy may choose from, by what its samples measure. A new format of fixed size is one more entry.
enum PolicyMenu {
  /// Formats of fixed size that are tried on a sample. fp32 needs no trial.
  static let formats: [WireFormat] = [1, 2, 3, 4, 6, 8].map { WireFormat("rotated:\($0)")! } + [.bf16]
  /// Bits per element at which entropy coding, which has any rate, is tried: the least and the most that may be chosen, and
  /// some between, see ``interpolate(_:_:)``.
  static let knots = [0.1, 0.25, 0.5, 1, 2, 4, 8]
  /// Everything that is tried: the formats of fixed size, then the knots.
  static let trials = formats + knots.map { WireFormat(entropyRate: $0) }
  /// The rates that may be chosen: to a hundredth of a bit.
  static let entropyRates = knots.first!...knots.last!
  /// Clusters per token that are tried on a sample.
  static let rates: [Float] = [1 / 4, 1 / 8, 1 / 16, 1 / 32]

  /// A quantity that was measured at each knot, at any rate that may be chosen: straight lines between the knots.
  static func interpolate(_ rate: Double, _ value: (Int) -> Double) -> Double {
    let right = knots.indices.dropFirst().dropLast().first { rate < knots[$0] } ?? knots.count - 1
    let (low, high) = (value(right - 1), value(right))
    return low + (high - low) * (rate - knots[right - 1]) / (knots[right] - knots[right - 1])
  }

  /// How rows are coded, as a policy thinks of it.
  enum Code: Equatable {
    case fp32
    /// One of ``formats``.
    case fixed(Int)
    /// Bits per element.
    case entropy(Double)

    init(_ wire: WireFormat) {
      if wire == .fp32 {
        self = .fp32
      } else if let index = formats.firstIndex(of: wire) {
        self = .fixed(index)
      } else {
        self = .entropy(wire.rate)
      }
    }

    var wire: WireFormat {
      switch self {
      case .fp32: .fp32
      case .fixed(let index): formats[index]
      case .entropy(let bits): WireFormat(entropyRate: bits)
      }
    }
  }
}
