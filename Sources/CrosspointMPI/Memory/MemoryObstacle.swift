import Glibc

/// Why two ranks of a node share no memory: a number that they can tell each other.
struct MemoryObstacle: Error, Equatable, CustomStringConvertible {
  /// An error of the system if positive.
  let code: Int32

  static let none = MemoryObstacle(code: 0)
  static let unwanted = MemoryObstacle(code: -1)
  static let limitedFiles = MemoryObstacle(code: -2)
  static let otherProcess = MemoryObstacle(code: -3)
  static func error(_ code: Int32) -> MemoryObstacle { MemoryObstacle(code: code) }

  var description: String {
    switch self {
    case .none: "none"
    case .unwanted: "the program asked for messages"
    case .limitedFiles: "the size of files is limited (ulimit -f)"
    case .otherProcess: "one does not see the other's process (another container?)"
    default: String(cString: strerror(code))
    }
  }
}
