import CrosspointCompression
import CrosspointCore
import CrosspointFabric

/// Where the exchange learns what both ends remember; without ``ExchangeOptions/memory`` it returns at once.
extension ExpertExchange {
  /// Rows of this rank from which axes are learned.
  private static let mostRows = 4096
  /// Bits that an anchor saves of each element, at least, if it is to be worth the sums that it takes.
  private static let worth = 0.5

  /// Learns from the rows for other ranks what will be remembered after this transfer, if it is time to. Collective.
  func learn(_ handle: DispatchHandle, _ attempt: inout Attempt) throws(CrosspointError) {
    let kind = transfer.kind
    guard adapts, transferFormat(kind).remembers || options.policy.governs(kind),
      let span = memory.take(kind, step: handle.roundingStep)
    else { return }
    var watch = Stopwatch()
    defer { transfer.measure.encode += watch.lap() }
    let rows =
      attempt.hasFailed
      ? [] : (0..<fabric.rankCount).filter { transfer.route($0) != .direct }.flatMap { transfer.sources[$0] }
    let ranks = MemoryRanks(fabric: fabric, known: memory[kind]?.fingerprint ?? 0, operation: kind.operation)
    // Each of R ranks sends and gets 2 (R − 1) / R times the sums.
    let bits = 64 * Double(fabric.rankCount - 1)
    do throws(CrosspointError) {
      var learned = try RowMemory.learned(
        from: rows, after: memory[kind], least: max(2, Int((bits / (Self.worth * Double(span))).rounded(.up))),
        mostRows: Self.mostRows, emphasis: kind == .dispatch ? RowMemory.emphasis : 0, codec: transfer.codec,
        over: ranks.sums)
      learned?.bytesPerStep = (ranks.bytesSent + span - 1) / span
      call.learned = learned
    } catch {
      if let failure = ranks.failure { throw failure }
      attempt.fail(error)
    }
  }

  /// Takes note of the labels by which both ends will know what comes back for the rows of a dispatch.
  func noteLabels(_ handle: DispatchHandle) throws(CrosspointError) {
    guard let memory = transfer.memory, transfer.format.remembers, let labels = handle.source.labelBase,
      !handle.source.isClustered
    else { return }
    try handle.source.rowLabels.resize(handle.source.plan.rows)
    for destination in 0..<destinations.count {
      for row in handle.source.plan.rows(of: destination) {
        handle.source.rowLabels.base[row] = ExchangeMemory.label(
          memory.known(labels[handle.source.plan.memberTokens[row]]), from: destination, of: destinations.count)
      }
    }
  }
}

/// How ranks add up what they learn, and what this one sends for it.
private final class MemoryRanks {
  private let fabric: any Fabric
  /// The fingerprint of what is remembered so far; 0: nothing.
  private let known: UInt64
  private let operation: StaticString
  private(set) var bytesSent = 0
  /// What the fabric threw.
  private(set) var failure: CrosspointError?

  init(fabric: any Fabric, known: UInt64, operation: StaticString) {
    (self.fabric, self.known, self.operation) = (fabric, known, operation)
  }

  var sums: RankSums {
    RankSums(
      together: { step throws(CrosspointError) in
        try self.noting { () throws(CrosspointError) in
          try self.fabric.together(operation: self.operation, step)
        }
      },
      counts: { counts throws(CrosspointError) in
        try self.noting { () throws(CrosspointError) in try self.add(counts) }
      },
      values: { values throws(CrosspointError) in
        try self.noting { () throws(CrosspointError) in
          try self.fabric.allreduce(values, operation: self.operation)
        }
        self.bytesSent += 8 * values.count * (self.fabric.rankCount - 1) / self.fabric.rankCount
      })
  }

  /// Takes note of what a step throws.
  private func noting<Result>(_ step: () throws(CrosspointError) -> Result) throws(CrosspointError) -> Result {
    do throws(CrosspointError) { return try step() } catch {
      failure = error
      throw error
    }
  }

  /// Rows of each label over all ranks, which must remember the same so far.
  private func add(_ counts: [Int32: Int]) throws(CrosspointError) -> [Int32: Int] {
    let heads = try gather([known, UInt64(counts.count)])
    if let rank = heads.firstIndex(where: { $0[0] != heads[0][0] }) {
      func text(_ fingerprint: UInt64) -> String { fingerprint == 0 ? "none" : String(fingerprint, radix: 16) }
      throw CrosspointError(
        .ranksDisagree, operation: "\(operation)", rank: rank, argument: "memory",
        "\(text(heads[rank][0])) on rank \(rank), \(text(heads[0][0])) on rank 0: every rank must have learned the same"
      ).agreed
    }
    let most = heads.reduce(0) { max($0, Int($1[1])) }
    let mine = counts.sorted { $0.key < $1.key }.map { UInt64(UInt32($0.key)) << 32 | UInt64(UInt32($0.value)) }
    var sum: [Int32: Int] = [:]
    for pairs in try gather(mine + Array(repeating: 0, count: most - mine.count)) {
      for pair in pairs where pair & 0xFFFF_FFFF > 0 { sum[Int32(pair >> 32), default: 0] += Int(pair & 0xFFFF_FFFF) }
    }
    return sum
  }

  /// Every rank's numbers, as many of each.
  private func gather(_ mine: [UInt64]) throws(CrosspointError) -> [[UInt64]] {
    guard !mine.isEmpty else { return [] }
    bytesSent += 8 * mine.count * (fabric.rankCount - 1)
    return try fabric.gather(mine, operation: operation)
  }
}
