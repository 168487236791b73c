internal import CSharedMemory
import Glibc

/// A file in memory that a rank makes and others of its node open; it vanishes with the last process that has it.
///
/// It is far larger than any memory and takes none by itself: memory is provided range by range, and no range twice, so an
/// offset means one thing for ever.
final class MemoryFile: Sendable {
  /// What another process opens a file by.
  struct Name {
    var process: UInt64
    var descriptor: UInt64
    /// Drawn at random, and part of the file's name: the number of a process means another one in another container.
    var cookie: UInt64

    /// The file as /proc shows it.
    var path: String { "/proc/\(process)/fd/\(descriptor)" }
    static func title(_ cookie: UInt64) -> String { "crosspoint-\(String(cookie, radix: 16))" }
  }

  let name: Name
  private let descriptor: Int32

  /// A new file.
  init() throws(MemoryObstacle) {
    var limit = rlimit()
    // The system ends a process that makes a larger file.
    guard getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0, limit.rlim_cur == rlim_t.max else {
      throw .limitedFiles
    }
    let cookie = UInt64.random(in: .min ... .max)
    descriptor = xp_memory_create(Name.title(cookie), 1 << 50)
    guard descriptor >= 0 else { throw .error(errno) }
    name = Name(process: UInt64(getpid()), descriptor: UInt64(descriptor), cookie: cookie)
  }

  /// The file of another process of this machine.
  init(opening name: Name) throws(MemoryObstacle) {
    // Only looked at: what another process has open by this number may be a device.
    var target = [CChar](repeating: 0, count: 256)
    let length = readlink(name.path, &target, target.count)
    guard length >= 0 else { throw .error(errno) }
    guard
      String(decoding: target.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        == "/memfd:\(Name.title(name.cookie)) (deleted)"
    else { throw .otherProcess }
    descriptor = open(name.path, O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else { throw .error(errno) }
    self.name = name
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// Gives a range memory and maps it; `nil` where the machine has none left. Offsets are multiples of a page.
  func provide(_ range: Range<Int>) -> UnsafeMutableRawPointer? {
    xp_memory_provide(descriptor, range.lowerBound, range.count)
  }

  /// Maps a range that has its memory; `nil` where this process has no addresses left.
  func map(_ range: Range<Int>) -> UnsafeMutableRawPointer? {
    xp_memory_map(descriptor, range.lowerBound, range.count)
  }

  /// Takes the memory of a range away, from all who have mapped it.
  func discard(_ range: Range<Int>) {
    xp_memory_discard(descriptor, range.lowerBound, range.count)
  }
}
