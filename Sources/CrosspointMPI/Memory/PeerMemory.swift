import Glibc
import Synchronization

/// The ``SharedHeap`` of another rank, mapped segment by segment as its addresses come.
final class PeerMemory: Sendable {
  /// The first bytes of its file: table and mailboxes.
  nonisolated(unsafe) let control: UnsafeMutableRawPointer
  private let controlBytes: Int
  private let file: MemoryFile
  private let table: SegmentTable
  private let mappings: Mutex<[Segment]>

  init(opening name: MemoryFile.Name, controlBytes: Int) throws(MemoryObstacle) {
    file = try MemoryFile(opening: name)
    guard let control = file.map(0..<controlBytes) else { throw .error(errno) }
    self.control = control
    self.controlBytes = controlBytes
    table = SegmentTable(at: control)
    mappings = Mutex([])
    mappings.withLock { $0.reserveCapacity(64) }
  }

  deinit {
    mappings.withLock { for mapping in $0 { munmap(mapping.base, mapping.range.count) } }
    munmap(control, controlBytes)
  }

  /// Where a range of that rank's file lies in this process; `nil` where the rank has no such memory.
  /// - Throws: where this process has no room for it.
  func find(_ range: Range<Int>) throws(MemoryObstacle) -> UnsafeMutableRawPointer? {
    try mappings.withLock { mappings throws(MemoryObstacle) in
      for mapping in mappings {
        if let found = mapping.find(range) { return found }
      }
      guard let segment = table.range(around: range) else { return nil }
      // What the rank has given back, it never uses again.
      mappings.removeAll { mapping in
        guard table.range(around: mapping.range) == nil else { return false }
        munmap(mapping.base, mapping.range.count)
        return true
      }
      guard let base = file.map(segment) else { throw .error(errno) }
      let mapping = Segment(range: segment, base: base)
      mappings.append(mapping)
      return mapping.find(range)
    }
  }
}
