#if Logging
  import CrosspointExchange
  import CrosspointFabric
  import CrosspointMPI
  import CrosspointPolicy
  import CrosspointRouting
  import CrosspointTokens
  import Glibc
  import InMemoryLogging
  import Logging

  /// The log of this process, from now on.
  private func log() -> InMemoryLogHandler {
    var handler = InMemoryLogHandler()
    handler.logLevel = .debug
    LoggingSystem.bootstrap { [handler] _ in handler }
    return handler
  }

  /// Whether decisions are logged once for all ranks, and growth of memory.
  func checkLogs() throws {
    let log = log()
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 64),
        options: ExchangeOptions(named: "budget-bytes=0.5"), layer: 3)
      for _ in 0..<3 {
        let tokens = try TokenBatch([Float](repeating: 1, count: 64 * 64), hidden: 64)
        let routing = try Routing(
          topkIndices: (0..<64).map { $0 % 4 }, topkWeights: [Float](repeating: 1, count: 64), topK: 1, experts: 4)
        let handle = try exchange.dispatch(tokens, routing)
        _ = try exchange.combine(handle.rows, handle)
      }
    }
    func count(_ level: Logger.Level, _ start: String) -> Int {
      log.entries.count { $0.level == level && "\($0.message)".hasPrefix(start) }
    }
    let starts = ["4 experts of 64 on 2 ranks: ", "dispatch: ", "combine: "]
    precondition(starts.allSatisfy { count(.info, "layer 3: \($0)") == 1 }, "\(log.entries)")
    precondition(count(.debug, "a new buffer of ") > 0, "\(log.entries)")
  }

  /// Whether a rank says that it shares no memory, and why. Under MPI.
  func checkLogOfUnsharedMemory() throws {
    let log = log()
    // The system ends a process that makes a larger file: no memory is shared by files.
    var limit = rlimit(rlim_cur: 1 << 30, rlim_max: 1 << 30)
    precondition(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0)
    let fabric = try MPIFabric.world()
    let warnings = log.entries.filter { $0.level == .warning && $0.metadata == ["rank": "\(fabric.rank)"] }
    precondition(
      warnings.map { "\($0.message)" } == [
        "no memory is shared with 1 ranks of this node, rows go in messages; rank \(1 - fabric.rank): "
          + "the size of files is limited (ulimit -f)"
      ], "\(log.entries)")
    try fabric.finalize()
  }
#endif
