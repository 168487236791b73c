import CrosspointCore
import CrosspointFabric

/// Random blocks whose every byte tells sender, receiver, round and place, so that nothing misplaced goes unseen.
struct RaggedBlocks {
  /// `sizes[source][destination]`, equal on all ranks since the seed is.
  let sizes: [[Int]]
  let rank: Int
  let round: Int
  /// Memory that ranks share, in which every other block lies that is sent.
  private let memory: (any SharedMemory)?
  private let outgoing: [UnsafeMutableRawBufferPointer]
  let incoming: [UnsafeMutableRawBufferPointer]

  /// About a quarter of the blocks are empty; the others have 1 to `largest` bytes, small ones as often as large ones.
  init(rank: Int, count: Int, largest: Int, round: Int, memory: (any SharedMemory)? = nil) {
    var random = SplitMix64(seed: UInt64(round))
    let magnitudes = Int.bitWidth - largest.leadingZeroBitCount
    let sizes = (0..<count).map { _ in
      (0..<count).map { _ in
        guard Int.random(in: 0..<4, using: &random) > 0 else { return 0 }
        let magnitude = Int.random(in: 1...magnitudes, using: &random)
        return min(largest, Int.random(in: 1...1 << magnitude, using: &random))
      }
    }
    self.init(rank: rank, sizes: sizes, round: round, memory: memory)
  }

  init(rank: Int, sizes: [[Int]], round: Int, memory: (any SharedMemory)? = nil) {
    self.memory = memory
    self.sizes = sizes
    self.rank = rank
    self.round = round
    outgoing = sizes[rank].indices.map { destination in
      let source = Self.source(of: destination, round, memory)
      let block = UnsafeMutableRawBufferPointer(
        start: source.allocate(bytes: max(1, sizes[rank][destination])), count: sizes[rank][destination])
      for index in block.indices {
        block[index] = Self.byte(from: rank, to: destination, round: round, index: index)
      }
      return block
    }
    incoming = sizes.map { row in
      let block = UnsafeMutableRawBufferPointer.allocate(byteCount: row[rank], alignment: 64)
      block.initializeMemory(as: UInt8.self, repeating: 0xFF)
      return block
    }
  }

  var send: [UnsafeRawBufferPointer] { outgoing.map { UnsafeRawBufferPointer($0) } }

  /// What is sent and received, every block cut into `count` pieces of which some are empty.
  func pieces(_ count: Int) -> (send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer]) {
    func cut(_ block: UnsafeMutableRawBufferPointer) -> [UnsafeMutableRawBufferPointer] {
      // Both ends know the size, so both cut in the same places.
      var random = SplitMix64(seed: UInt64(block.count))
      var cuts = (1..<count).map { _ in Bool.random(using: &random) ? block.count / 2 : 0 }
      if let last = cuts.indices.last { cuts[last] = Int.random(in: 0...block.count, using: &random) }
      let bounds = [0] + cuts.sorted() + [block.count]
      return (0..<count).map { .init(rebasing: block[bounds[$0]..<bounds[$0 + 1]]) }
    }
    return (outgoing.flatMap(cut).map { UnsafeRawBufferPointer($0) }, incoming.flatMap(cut))
  }

  /// The first wrong byte of what came from a rank, in words.
  func flaw(from source: Int) -> String? {
    for (index, found) in incoming[source].enumerated() {
      let expected = Self.byte(from: source, to: rank, round: round, index: index)
      if found != expected {
        return "round \(round): byte \(index) of \(sizes[source][rank]) from rank \(source): \(found), not \(expected)"
      }
    }
    return nil
  }

  func deallocate() {
    for (destination, block) in outgoing.enumerated() {
      Self.source(of: destination, round, memory).deallocate(block.baseAddress!, bytes: max(1, block.count))
    }
    for block in incoming { block.deallocate() }
  }

  private static func source(
    of destination: Int, _ round: Int, _ memory: (any SharedMemory)?
  ) -> any MemorySource {
    if let memory, (destination + round).isMultiple(of: 2) { return memory }
    return PrivateMemory.shared
  }

  /// Never 0xFF, so that a byte that did not arrive is always seen.
  private static func byte(from source: Int, to destination: Int, round: Int, index: Int) -> UInt8 {
    UInt8((source &* 31 &+ destination &* 17 &+ round &* 7 &+ index &* 13 &+ index >> 8) % 255)
  }
}
