import Foundation

/// What the documents show of code, and the compiled source that it comes from: Tests/Snippets, and what belongs to the
/// package's own tests.
enum Snippet {
  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// README.md and docs/*.md, by path.
  static let pages = ["README.md"] + files(in: "docs")
  /// Records of what was tried; their code is that of their day.
  static let notebook = files(in: "docs/notebook")

  private static func files(in folder: String) -> [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "\(root.path)/\(folder)")) ?? []
    return names.filter { $0.hasSuffix(".md") }.sorted().map { "\(folder)/\($0)" }
  }

  static func text(_ page: String) throws -> String {
    try String(contentsOf: root.appendingPathComponent(page), encoding: .utf8)
  }

  /// The parts between `// snippet: NAME` and `// end` of all files of the compiled source; those of one
  /// name are joined.
  static func compiled() throws -> [String: String] {
    let folder = root.appendingPathComponent("Tests")
    var parts: [String: [String]] = [:]
    for path in try FileManager.default.subpathsOfDirectory(atPath: folder.path) where path.hasSuffix(".swift") {
      var name: String?
      var lines: [Substring] = []
      for line in try text("Tests/\(path)").split(separator: "\n", omittingEmptySubsequences: false) {
        let content = line.trimmingCharacters(in: .whitespaces)
        if content.hasPrefix("// snippet: ") {
          name = String(content.dropFirst("// snippet: ".count))
        } else if content == "// end", let ended = name {
          parts[ended, default: []].append(outdented(lines))
          (name, lines) = (nil, [])
        } else if name != nil {
          lines.append(line)
        }
      }
    }
    return parts.mapValues { $0.joined(separator: "\n") }
  }

  /// Blocks of code of a page: fenced ones with their language, indented ones with none.
  static func blocks(in page: String) -> [(language: String, code: String)] {
    var blocks: [(language: String, code: String)] = []
    var fence: String?
    var lines: [Substring] = []
    func finish(_ language: String) {
      if !lines.isEmpty { blocks.append((language, lines.joined(separator: "\n"))) }
      lines = []
    }
    for line in page.split(separator: "\n", omittingEmptySubsequences: false) {
      if line.hasPrefix("```") {
        finish(fence ?? "")
        fence = fence == nil ? String(line.dropFirst(3)) : nil
      } else if fence != nil {
        lines.append(line)
      } else if line.hasPrefix("    ") {
        lines.append(line.dropFirst(4))
      } else {
        finish("")
      }
    }
    finish("")
    return blocks
  }

  /// A page without its fenced code.
  static func prose(of page: String) -> String {
    let parts = page.components(separatedBy: "```")
    return stride(from: 0, to: parts.count, by: 2).map { parts[$0] }.joined()
  }

  private static func outdented(_ lines: [Substring]) -> String {
    let depth = lines.filter { !$0.isEmpty }.map { $0.prefix { $0 == " " }.count }.min() ?? 0
    return lines.map { String($0.dropFirst(depth)) }.joined(separator: "\n")
  }
}
