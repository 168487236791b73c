import Crosspoint
import CrosspointCore
import CrosspointFiles
import Foundation

/// Which experts every row chose, step by step: what `--record-routing` writes and `xpoint bench exchange --routing` repeats.
///
/// An array of int32 in NumPy's format, `[steps, ranks, layers, rows, topK]`: of each step the last routing of each layer.
/// −1 is a choice that was not sent; it also fills up where a rank has fewer rows than another.
final class RoutingRecord {
  private let fabric: any Fabric
  private let path: String
  /// Of one step of one rank; rows are those of the rank that may have most.
  private let shape: (layers: Int, rows: Int, topK: Int)
  private var mine: [Int32] = []
  private var all: [Int32] = []
  private var steps = 0
  /// On rank 0, space for every step; what is not used takes no memory.
  private let memory: UnsafeMutableRawBufferPointer?

  /// - Parameter steps: as many as may come.
  /// - Throws: `invalidArgument` for more than there can be, `outOfMemory`; on rank 0 alone.
  init(_ path: String, steps: Int, of options: TrainingOptions, fabric: any Fabric) throws(CrosspointError) {
    self.fabric = fabric
    self.path = path
    let layers = (0..<options.shape.blocks).count { options.shape.hasExperts(block: $0) }
    let sequences = (options.batch + fabric.rankCount - 1) / fabric.rankCount
    shape = (layers, sequences * options.shape.context, options.shape.topK)
    let bytes = try Extent.product(
      steps, fabric.rankCount, shape.layers, shape.rows, shape.topK, MemoryLayout<Int32>.size, operation: "options",
      argument: "record-routing")
    memory =
      fabric.rank == 0 ? try takeMemory(bytes: bytes, operation: "record", argument: "record-routing") : nil
  }

  deinit { free(memory?.baseAddress) }

  /// Adds a step: the routing of each layer. Collective.
  func append(_ routings: [Routing]) throws(CrosspointError) {
    let perLayer = shape.rows * shape.topK
    mine.refill(with: -1, count: shape.layers * perLayer)
    for (layer, routing) in routings.enumerated() {
      mine.replaceSubrange(
        layer * perLayer..<layer * perLayer + routing.topkIndices.count, with: routing.topkIndices)
    }
    all.resize(fabric.rankCount * mine.count)
    try all.withUnsafeMutableBufferPointer { all throws(CrosspointError) in
      try mine.withUnsafeBufferPointer { mine throws(CrosspointError) in
        try fabric.allgather(
          UnsafeRawBufferPointer(mine), into: UnsafeMutableRawBufferPointer(all), operation: "record")
      }
      guard let memory else { return }
      let bytes = UnsafeRawBufferPointer(all)
      UnsafeMutableRawBufferPointer(rebasing: memory[(steps * bytes.count)...]).copyMemory(from: bytes)
    }
    steps += 1
  }

  /// Writes what was recorded: rank 0 does. Collective.
  /// - Throws: `file`, on every rank.
  func write() throws(CrosspointError) {
    try fabric.onRoot(operation: "record") { () throws(CrosspointError) in
      guard let memory else { return }
      let whole = [steps, fabric.rankCount, shape.layers, shape.rows, shape.topK]
      let elements = UnsafeRawBufferPointer(rebasing: memory[..<whole.reduce(MemoryLayout<Int32>.size, *)])
      try npyHeader("<i4", shape: whole).withUnsafeBufferPointer { header throws(CrosspointError) in
        try writeFile(
          path, [UnsafeRawBufferPointer(header), elements], argument: "record-routing", patience: fabric.deadline / 2)
      }
    }
  }
}
