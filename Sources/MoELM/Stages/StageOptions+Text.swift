import Crosspoint

extension StageOptions {
  /// Which tokens are alike enough to go to the experts as one; written `off`, `COSINE` or `rate:SHARE`.
  package enum Merge: Sendable, Hashable, LosslessStringConvertible {
    case off
    /// Those whose cosine is at least this.
    case threshold(Double)
    /// The most alike, so many that this share of the rows is merged away.
    case rate(Double)

    package init?(_ description: String) {
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
  package enum Prune: Sendable, Hashable, LosslessStringConvertible {
    case off
    case threshold(Double)
    /// Moved until a given share is dropped.
    case auto

    package init?(_ description: String) {
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

  /// Every option with its value: what checkpoints compare and summaries print. What evaluation alone uses is not among
  /// them, nor is the seed, which is the run's.
  var pairs: [(key: String, value: String)] {
    [
      ("deletion-rate", "\(deletionRate)"), ("deletion", deletion.rawValue), ("deletion-form", deletionForm.rawValue),
      ("deletion-scope", deletionScope.rawValue),
      ("deletion-warmup", "\(deletionWarmUp)"), ("deletion-hard-probability", "\(deletionHardProbability)"),
      ("deletion-learning-rate", "\(deletionLearningRate)"), ("deletion-proportional", "\(deletionProportional)"),
      ("deletion-integral", "\(deletionIntegral)"), ("deletion-least-weight", "\(deletionLeastWeight)"),
      ("deletion-block", "\(deletionBlock)"),
      ("granularities", granularities.map(String.init).joined(separator: ",")),
      ("granularity-schedule", granularitySchedule.rawValue), ("granularity-shift", "\(granularityShift)"),
      ("separate-routers", "\(separateRouters)"), ("merge", "\(merge)"), ("merge-window", "\(mergeWindow)"),
      ("prune", "\(prune)"), ("prune-share", "\(pruneShare)"), ("prune-protect", "\(pruneProtect)"),
      ("second-expert", secondExpert.rawValue), ("router-groups", "\(routerGroups)"),
      ("router-group-limit", "\(routerGroupLimit)"),
      ("groups-per-token", groupsPerToken.map { "\($0)" } ?? "any"),
    ]
  }

  /// Takes over what ``pairs`` says.
  /// - Parameter read: the value of a key, parsed, or an error.
  mutating func adopt(_ read: (String) throws(CrosspointError) -> String) throws(CrosspointError) {
    func parse<T>(_ key: String, _ parse: (String) -> T?) throws(CrosspointError) -> T {
      let text = try read(key)
      guard let value = parse(text) else {
        throw CrosspointError(.file, operation: "checkpoint", argument: key, "\(text) is no value for it")
      }
      return value
    }
    deletionRate = try parse("deletion-rate", Double.init)
    deletion = try parse("deletion", Deletion.init)
    deletionForm = try parse("deletion-form", DeletionForm.init)
    deletionScope = try parse("deletion-scope", DeletionScope.init)
    deletionWarmUp = try parse("deletion-warmup", Int.init)
    deletionHardProbability = try parse("deletion-hard-probability", Double.init)
    deletionLearningRate = try parse("deletion-learning-rate", Float.init)
    deletionProportional = try parse("deletion-proportional", Double.init)
    deletionIntegral = try parse("deletion-integral", Double.init)
    deletionLeastWeight = try parse("deletion-least-weight", Double.init)
    deletionBlock = try parse("deletion-block", Int.init)
    granularities = try parse("granularities", Self.granularities)
    granularitySchedule = try parse("granularity-schedule", GranularitySchedule.init)
    granularityShift = try parse("granularity-shift", Bool.init)
    separateRouters = try parse("separate-routers", Bool.init)
    merge = try parse("merge", Merge.init)
    mergeWindow = try parse("merge-window", Int.init)
    prune = try parse("prune", Prune.init)
    pruneShare = try parse("prune-share", Double.init)
    pruneProtect = try parse("prune-protect", Double.init)
    secondExpert = try parse("second-expert", SecondExpert.init)
    routerGroups = try parse("router-groups", Int.init)
    routerGroupLimit = try parse("router-group-limit", Int.init)
    groupsPerToken = try parse("groups-per-token") { $0 == "any" ? .some(nil) : Double($0).map(Optional.some) }
  }

  /// `1,2,4` as numbers; `nil` for anything else.
  package static func granularities(_ text: String) -> [Int]? {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    return parts.contains(nil) ? nil : parts.compactMap(\.self)
  }
}
