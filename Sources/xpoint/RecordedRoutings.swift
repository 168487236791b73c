import Crosspoint
import CrosspointCore
import CrosspointFiles

/// The routings of a training run, as `moe-lm train --record-routing` writes them: int32 `[steps, ranks, layers, rows, topK]`.
struct RecordedRoutings {
  let ranks: Int
  let rows: Int
  let topK: Int
  /// Routings of each rank: a step's layers one after the other, then the next step's.
  private let count: Int
  private let layers: Int
  private let choices: [Int32]

  /// - Throws: `file` for what is no such array, or names an expert that is not there.
  init(_ path: String, experts: Int) throws(CrosspointError) {
    let argument = "--routing"
    let (shape, choices) = try Npy.readIntegers(
      path, argument: argument, dimensions: ["steps", "ranks", "layers", "rows", "topK"])
    (ranks, layers, rows, topK) = (shape[1], shape[2], shape[3], shape[4])
    guard !choices.isEmpty else { throw fileError(argument, path, "has the shape \(shape), which holds no routing") }
    count = shape[0] * layers
    guard topK <= experts else {
      throw fileError(argument, path, "has \(topK) choices of \(experts) experts (--experts)")
    }
    if let place = choices.firstIndex(where: { $0 < -1 || Int($0) >= experts }) {
      throw fileError(
        argument, path,
        "names expert \(choices[place]) for row \(place / topK % rows); -1 (not sent) to \(experts - 1) allowed, see --experts"
      )
    }
    self.choices = choices
  }

  /// - Throws: `invalidArgument` on another number of ranks.
  func check(ranks: Int) throws(CrosspointError) {
    guard ranks == self.ranks else {
      throw CrosspointError(
        .invalidArgument, operation: "options", argument: "routing",
        "recorded on \(self.ranks) ranks, here are \(ranks): take as many")
    }
  }

  /// Routings of one rank, at most so many, at even distances from the first on; all choices weigh the same.
  func spread(most: Int, rank: Int, experts: Int) throws(CrosspointError) -> [Routing] {
    let (taken, size) = (min(most, count), rows * topK)
    var routings: [Routing] = []
    for number in 0..<taken {
      let (step, layer) = (number * count / taken).quotientAndRemainder(dividingBy: layers)
      let start = ((step * ranks + rank) * layers + layer) * size
      routings.append(
        try Routing(
          topkIndices: Array(choices[start..<start + size]),
          topkWeights: Array(repeating: 1 / Float(topK), count: size),
          topK: topK, experts: experts))
    }
    return routings
  }
}
