import ArgumentParser

extension StageOptions {
  /// Which tokens are alike enough to go to the experts as one; written `off`, `COSINE` or `rate:SHARE`.
  package enum Merge: Sendable, Equatable, CustomStringConvertible, ExpressibleByArgument {
    case off
    /// Those whose cosine is at least this.
    case threshold(Double)
    /// The most alike, so many that this share of the rows is merged away.
    case rate(Double)

    package init?(argument description: String) {
      if description == "off" {
        self = .off
      } else if description.hasPrefix("rate:"), let rate = Double(description.dropFirst(5)) {
        self = .rate(rate)
      } else if let threshold = Double(description) {
        self = .threshold(threshold)
      } else {
        return nil
      }
    }

    package var description: String {
      switch self {
      case .off: "off"
      case .threshold(let threshold): "\(threshold)"
      case .rate(let rate): "rate:\(rate)"
      }
    }
  }

  /// Below which part of its first expert's weight a further expert is dropped; written `off`, `auto` or the part.
  package enum Prune: Sendable, Equatable, CustomStringConvertible, ExpressibleByArgument {
    case off
    case threshold(Double)
    /// Moved until a given share is dropped.
    case auto

    package init?(argument description: String) {
      switch description {
      case "off": self = .off
      case "auto": self = .auto
      default:
        guard let threshold = Double(description) else { return nil }
        self = .threshold(threshold)
      }
    }

    package var description: String {
      switch self {
      case .off: "off"
      case .auto: "auto"
      case .threshold(let threshold): "\(threshold)"
      }
    }
  }
}
