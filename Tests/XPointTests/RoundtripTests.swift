import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import xpoint

/// Rows of 24 near one of 16, which their labels say.
private struct Files {
  let folder: TemporaryFolder
  private let hidden = 24

  init() throws { folder = try TemporaryFolder() }

  func write(_ count: Int, seed: UInt64, as name: String) throws {
    var world = SplitMix64(seed: 1)
    let anchors = (0..<16 * hidden).map { _ in 4 * world.nextUnit() }
    var generator = SplitMix64(seed: seed)
    let labels = (0..<count).map { _ in Int32(generator.next() % 16) }
    let values = (0..<count * hidden).map {
      anchors[Int(labels[$0 / hidden]) * hidden + $0 % hidden] + generator.nextUnit()
    }
    try Npy.write(TokenBatch(values, hidden: hidden), to: folder.file(name + ".npy"), argument: "--output")
    try writeLabels(labels, as: name)
  }

  func writeLabels(_ labels: [Int32], as name: String) throws {
    let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (\(labels.count),), }\n"
    _ = try folder.put(npy(header, labels.withUnsafeBytes { Array($0) }), name + "-labels.npy")
  }

  struct Outcome: Decodable {
    var bytesSent: Int
    var bytesBF16: Int
    var stateBytes: Int
    var choice: String
  }

  /// Runs `xpoint roundtrip` and gives its figures and the relative error.
  func run(_ options: [String]) throws -> (Outcome, error: Double) {
    let (x, y, json) = (folder.file("now.npy"), folder.file("Y.npy"), folder.file("out.json"))
    let arguments =
      ["--input", x, "--output", y, "--json", json]
      + options.map {
        $0.hasSuffix(".npy") ? folder.file($0) : $0
      }
    try Roundtrip.parse(arguments).run()
    let (sent, received) = (try Npy.readRows(x, argument: "X").array, try Npy.readRows(y, argument: "Y").array)
    let (lost, whole) = zip(sent, received).reduce(into: (0.0, 0.0)) {
      $0.0 += Double(($1.0 - $1.1) * ($1.0 - $1.1))
      $0.1 += Double($1.0 * $1.0)
    }
    let outcome = try JSONDecoder().decode(Outcome.self, from: Data(contentsOf: URL(fileURLWithPath: json)))
    return (outcome, (lost / whole).squareRoot())
  }
}

private let remembered = ["--labels", "now-labels.npy", "--warm", "before.npy", "--warm-labels", "before-labels.npy"]

@Test(arguments: [["--wire", "entropy:1.5"], ["--budget-bytes", "0.15"]])
func earlierRowsLessenTheErrorOfARoundtrip(options: [String]) throws {
  let files = try Files()
  try files.write(4000, seed: 2, as: "before")
  try files.write(3000, seed: 3, as: "now")
  let (plain, error) = try files.run(options)
  let (axes, axesError) = try files.run(options + ["--warm", "before.npy"])
  let (both, bothError) = try files.run(options + remembered)
  #expect(plain.stateBytes == 0 && axes.stateBytes > 0 && both.stateBytes > axes.stateBytes)
  #expect(bothError < 0.7 * error && axesError < 1.05 * error, "\(error), \(axesError), \(bothError)")
  for figures in [plain, axes, both] {
    #expect(Double(figures.bytesSent) < 0.16 * Double(figures.bytesBF16), "\(figures)")
  }
}

@Test func filesThatDoNotFitAreNamed() throws {
  let files = try Files()
  try files.write(20, seed: 2, as: "before")
  try files.write(30, seed: 3, as: "now")
  try Npy.write(TokenBatch(rows: 20, hidden: 5), to: files.folder.file("narrow.npy"), argument: "--output")
  try files.writeLabels([Int32](repeating: -2, count: 30), as: "wrong")
  func refused(_ options: [String], _ message: String) {
    let error = #expect(throws: CrosspointError.self) { try files.run(options) }
    #expect(error?.code == .file && error?.description.contains(message) == true, "\(String(describing: error))")
  }
  refused(["--warm", "narrow.npy"], "has rows of 5, --input of 24")
  refused(["--labels", "before-labels.npy"] + remembered[2...], "has 20 values for 30 rows")
  refused(["--labels", "wrong-labels.npy"] + remembered[2...], "row 0 has label -2; -1 (none) to 16777216 allowed")
  refused(remembered[..<5] + ["now-labels.npy"], "has 30 values for 20 rows")
  for options in [Array(remembered[..<2]), Array(remembered[..<4]), Array(remembered[2...]), Array(remembered[4...])] {
    #expect(throws: (any Error).self) { try files.run(options) }
  }
}
