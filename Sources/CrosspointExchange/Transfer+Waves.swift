import CrosspointCompression
import CrosspointCore

/// Rows that are there while others are under way.
extension Transfer {
  /// Which ranks' rows have come. What is in one does not depend on time.
  enum Arrival: Equatable {
    /// Those that need not be waited for, this rank's own among them.
    case atOnce
    /// Those of a rank whose body travelled.
    case from(Int)
    /// Those that ranks of this node have written where they belong.
    case written
    case all
  }

  /// Takes note of rows that have come.
  func note(_ arrival: Arrival, at place: Int? = nil) {
    arrivals.insert(arrival, at: place ?? arrivals.count)
    hasWaves = true
  }

  /// What has come and is yet to be given to the experts.
  func takeArrival() -> Arrival? { arrivals.isEmpty ? nil : arrivals.removeFirst() }

  /// Whether a rank's rows are part of what has come.
  func brings(_ arrival: Arrival, _ rank: Int) -> Bool {
    let isWritten = rank != fabric.rank && route(rank) == .direct
    return switch arrival {
    case .atOnce: !isWritten && ready.contains(rank)
    case .from(let source): rank == source
    case .written: isWritten
    case .all: true
    }
  }

  /// Finds the metadata of all ranks before rows move; says whether it has all come.
  func findEarlyMetadata() throws(CrosspointError) -> Bool {
    for rank in 0..<fabric.rankCount {
      let record = announcement(of: rank)
      if route(rank) == .message {
        guard record.bytesBehind.metadata == record.metadataBytes else { return false }
        metadataIn[rank] = carried(by: rank).metadata
      } else {
        metadataIn[rank] = try tables.find(.metadata, of: rank, bytes: record.metadataBytes)
      }
    }
    return true
  }
}
