import Foundation
import Testing

@Suite struct DocumentTests {
  /// To a file, and to a heading of it where one is named.
  @Test(arguments: Snippet.pages + Snippet.notebook) func linksOfAPageLeadSomewhere(page: String) throws {
    let folder = URL(fileURLWithPath: page, relativeTo: Snippet.root).deletingLastPathComponent()
    let prose = Snippet.prose(of: try Snippet.text(page))
    for match in prose.matches(of: #/\]\((?<file>[^)#:]*)(?:#(?<heading>[^)]*))?\)/#) {
      let link = String(match.output.file)
      let target = link.isEmpty ? Snippet.root.appendingPathComponent(page) : folder.appendingPathComponent(link)
      #expect(FileManager.default.fileExists(atPath: target.path), "\(page): \(link)")
      guard let heading = match.output.heading, let text = try? String(contentsOf: target, encoding: .utf8) else {
        continue
      }
      let headings = Snippet.prose(of: text).split(separator: "\n").filter { $0.hasPrefix("#") }.map(Self.anchor)
      let isThere = headings.contains(String(heading))
      #expect(isThere, "\(page): \(link)#\(heading)")
    }
  }

  /// Tables aside.
  @Test(arguments: Snippet.pages + Snippet.notebook) func linesEndWithinAHundredColumns(page: String) throws {
    for line in try Snippet.text(page).split(separator: "\n") where !line.hasPrefix("|") {
      #expect(line.count <= 100, "\(page): \(line)")
    }
  }

  /// Text as text and no more points than can be told apart: a page stays quick to load.
  @Test func picturesAreSmall() throws {
    let folder = Snippet.root.appendingPathComponent("docs")
    for picture in try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: [.fileSizeKey])
    where picture.pathExtension == "svg" {
      let bytes = try #require(picture.resourceValues(forKeys: [.fileSizeKey]).fileSize)
      #expect(bytes < 150_000, "\(picture.lastPathComponent)")
    }
  }

  /// As GitHub makes it of a heading.
  private static func anchor(_ heading: Substring) -> String {
    let words = heading.drop { $0 == "#" || $0 == " " }.lowercased().filter {
      $0.isLetter || $0.isNumber || $0 == " " || $0 == "-"
    }
    return words.replacingOccurrences(of: " ", with: "-")
  }
}
