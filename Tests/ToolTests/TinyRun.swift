import Foundation

/// A folder with a short text to learn and a model that trains on it in milliseconds.
struct TinyRun {
  let folder: URL

  /// Makes the folder, and removes it when `body` has ended.
  static func use<Result>(_ body: (TinyRun) throws -> Result) throws -> Result {
    let run = try TinyRun()
    defer { try? FileManager.default.removeItem(at: run.folder) }
    return try body(run)
  }

  private init() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("tool-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    let words = ["light", "darkness", "and", "the", "waters", "was", "upon"]
    let text = (0..<2000).map { words[$0 * $0 / 3 % words.count] }.joined(separator: " ")
    try Data(text.utf8).write(to: URL(fileURLWithPath: path("text.txt")))
  }

  func path(_ name: String) -> String { folder.appendingPathComponent(name).path }

  /// Everything in the folder beside the text.
  var files: [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).filter { $0 != "text.txt" }.sorted()
  }

  /// Options of the model, and a short deadline.
  var options: [String] {
    let pairs = [
      ("context", 16), ("width", 16), ("blocks", 2), ("heads", 2), ("experts", 4), ("expert-width", 16), ("batch", 8),
      ("warmup", 2), ("eval-windows", 8), ("deadline", 5),
    ]
    return pairs.flatMap { ["--\($0.0)", "\($0.1)"] } + ["--data", path("text.txt")]
  }

  func train(steps: Int = 2) -> [String] { ["train"] + options + ["--steps", "\(steps)"] }
}
