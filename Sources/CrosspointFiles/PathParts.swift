/// A path as its folder and the last name in it.
///
/// Foundation's `deletingLastPathComponent` traps on a path of one character (Swift 6.3 on Linux).
struct PathParts {
  /// "." where none is named.
  let folder: String
  /// Empty for a path of slashes alone.
  let name: String

  init(_ path: String) {
    var rest = Substring(path)
    while rest.count > 1, rest.last == "/" { rest.removeLast() }
    guard let slash = rest.lastIndex(of: "/") else {
      (folder, name) = (".", String(rest))
      return
    }
    name = String(rest[rest.index(after: slash)...])
    folder = slash == rest.startIndex ? "/" : String(rest[..<slash])
  }

  static func join(_ folder: String, _ name: String) -> String {
    folder.hasSuffix("/") ? folder + name : "\(folder)/\(name)"
  }
}
