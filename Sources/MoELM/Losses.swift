/// The losses of a forward pass over this rank's tokens.
struct Losses {
  /// Σ −ln p(byte wanted), in nats.
  var surprise = 0.0
  /// Sum over layers of the load-balance losses: this rank's part of the mean over the rows of all ranks.
  var loadBalance = 0.0
  /// Sum over layers of the stages' own losses: this rank's part of the mean over the tokens of all ranks.
  var stages = 0.0

  static func += (sum: inout Losses, other: Losses) {
    sum.surprise += other.surprise
    sum.loadBalance += other.loadBalance
    sum.stages += other.stages
  }

  static func * (losses: Losses, weight: Float) -> Losses {
    Losses(
      surprise: losses.surprise * Double(weight), loadBalance: losses.loadBalance * Double(weight),
      stages: losses.stages * Double(weight))
  }
}
