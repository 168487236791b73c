import CrosspointCompression
import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The receiver's half: bodies become rows.
extension Transfer {
  /// Decides where each body arrives, makes room for metadata, and copies this rank's rows for itself.
  func place() throws(CrosspointError) {
    var watch = Stopwatch()
    defer { measure.decode += watch.lap() }
    try placeBodies()
    if metadataBytesPerRow > 0 {
      try metadataIn.layOut { announcement(of: $0).metadataBytes }
      for rank in 0..<fabric.rankCount { incoming[blocks(of: rank) + groupCapacity] = metadataIn[rank] }
    }
    do throws(CrosspointError) { try copyOwnRows() } catch { throw named(error) }
  }

  /// Where its rows belong, if a body travels as it is, or in one buffer for all others.
  private func placeBodies() throws(CrosspointError) {
    var staged = 0
    for rank in 0..<fabric.rankCount {
      let blocks = blocks(of: rank)
      for group in 0..<groupCapacity { incoming[blocks + group] = UnsafeMutableRawBufferPointer(start: nil, count: 0) }
      arrivesInPlace[rank] = false
      let size = announcement(of: rank).bodyBytes
      guard rank != fabric.rank, size > 0 else { continue }
      let targets = targets[rank]
      if travelsByGroup(rows: targets.rowCount, groups: targets.count, bodyBytes: size) {
        for (group, target) in targets.enumerated() {
          incoming[blocks + group] = UnsafeMutableRawBufferPointer(start: target.base, count: target.rows * rowBytes)
        }
        arrivesInPlace[rank] = true
      } else if format == .fp32, let run = targets.run(hidden: codec.hidden), run.count == size {
        incoming[blocks] = run
        arrivesInPlace[rank] = true
      } else {
        staged += size
      }
    }
    staging = try pool.lease(bytes: staged)
    var offset = 0
    for rank in 0..<fabric.rankCount where rank != fabric.rank && !arrivesInPlace[rank] {
      let size = announcement(of: rank).bodyBytes
      incoming[blocks(of: rank)] = UnsafeMutableRawBufferPointer(start: staging.base + offset, count: size)
      offset += size
    }
  }

  private func copyOwnRows() throws(CrosspointError) {
    let sources = sources[fabric.rank]
    measure.localBytes = sources.rowCount * rowBytes
    for (source, target) in zip(sources, targets[fabric.rank]) {
      for index in 0..<source.rows {
        let row = source.row(index, hidden: codec.hidden)
        try admitted.check(row, codec.hidden, bound: .greatestFiniteMagnitude, .fp32)
        memcpy(target.base + index * codec.hidden, row, rowBytes)
      }
    }
  }

  /// Moves the bodies, decodes each as it arrives, and does all of the work. Collective.
  ///
  /// What goes wrong on this rank ends its work; the fabric's errors are thrown.
  func move(meanwhile work: LocalWork, _ attempt: inout Attempt) throws(CrosspointError) {
    var watch = Stopwatch()
    let before = measure.decode + measure.meanwhile
    var hasWork = true
    var failure = attempt.failure
    try fabric.exchange(
      send: outgoing, receive: incoming, operation: kind.operation,
      arrived: { rank in
        var watch = Stopwatch()
        do throws(CrosspointError) { try decode(from: rank) } catch {
          // A frame that does not decode is its sender's; anything else is this rank's own.
          let isFrame = error.code == .corruptFrame || error.code == .truncatedFrame
          failure = failure ?? (isFrame ? error.on(rank: rank) : error)
        }
        measure.decode += watch.lap()
      },
      meanwhile: {
        doSlice(of: work, &hasWork, &failure)
        return hasWork
      })
    while hasWork { doSlice(of: work, &hasWork, &failure) }
    attempt.fail(failure)
    measure.wait += max(0, watch.lap() - (measure.decode + measure.meanwhile - before))
  }

  /// Does a slice of the work, unless something has gone wrong, which ends it.
  private func doSlice(of work: LocalWork, _ hasWork: inout Bool, _ failure: inout CrosspointError?) {
    hasWork = false
    guard failure == nil else { return }
    var watch = Stopwatch()
    do throws(CrosspointError) { hasWork = try work() } catch { failure = error }
    measure.meanwhile += watch.lap()
  }

  /// Decodes a rank's frame.
  private func decode(from rank: Int) throws(CrosspointError) {
    let record = announcement(of: rank)
    guard Announcement.hash(UnsafeRawBufferPointer(metadataIn[rank])) == record.metadataHash else {
      throw CrosspointError(
        .corruptFrame, operation: "\(kind.operation)", rank: rank, argument: "metadata",
        "\(metadataIn[rank].count) bytes arrived damaged")
    }
    guard rank != fabric.rank else { return }
    let targets = targets[rank]
    let body = UnsafeRawBufferPointer(incoming[blocks(of: rank)])
    guard arrivesInPlace[rank] || body.count > 0 || targets.rowCount > 0 else { return }
    let header = UnsafeRawBufferPointer(rebasing: record.header[..<RowCodec.headerBytes(groups: targets.count)])
    if arrivesInPlace[rank] {
      try codec.verify(header: header, in: targets)
    } else {
      try codec.decode(header: header, body: body, into: targets)
    }
  }
}

extension [RowTarget] {
  var rowCount: Int { reduce(0) { $0 + $1.rows } }

  /// The run of bytes that all rows form; `nil` if they lie in several places.
  fileprivate func run(hidden: Int) -> UnsafeMutableRawBufferPointer? {
    var runs = 0
    var last: UnsafeMutableRawBufferPointer?
    forEachRun(hidden: hidden) { run in
      runs += 1
      last = run
    }
    return runs == 1 ? last : nil
  }
}
