import Crosspoint

/// docs/troubleshooting.md
func troubleshooting() throws {
  let results = SimulatedCluster(ranks: 3).results { fabric in
    try startTogether(fabric, path: fabric.rank == 0 ? "text" : "", steps: 100)
  }
  for result in results { try expect(result.get() == 4, "every rank has rank 0's text") }
  let refused = SimulatedCluster(ranks: 3).results { fabric in
    try startTogether(fabric, path: "", steps: 100)
  }
  for result in refused {
    guard case .failure(let error as CrosspointError) = result else {
      throw SnippetFailure(description: "an unreadable file is no error")
    }
    try expect(error.isAgreed && error.rank == 0 && error.code == .file, "all ranks throw rank 0's error: \(error)")
  }
}

private func startTogether(_ fabric: any Fabric, path: String, steps: Int) throws -> Int {
  // snippet: agreed
  let text = try fabric.shareFromRoot(operation: "data") { () throws(CrosspointError) in
    try read(path)  // rank 0 reads, every rank gets the bytes
  }
  let model = try fabric.together(operation: "model") { () throws(CrosspointError) in
    try Model(text)  // every rank builds; no body may communicate
  }
  try fabric.requireEqual([("steps", "\(steps)")], operation: "options")
  try fabric.onRoot(operation: "report") { () throws(CrosspointError) in
    try write(model.summary)  // rank 0 writes
  }
  // end
  return model.bytes
}

private func read(_ path: String) throws(CrosspointError) -> [UInt8] {
  guard !path.isEmpty else {
    throw CrosspointError(.file, operation: "data", argument: "path", "it is empty")
  }
  return Array(path.utf8)
}

private func write(_ text: String) throws(CrosspointError) {}

private struct Model {
  let bytes: Int
  var summary: String { "\(bytes) bytes" }
  init(_ text: [UInt8]) throws(CrosspointError) { bytes = text.count }
}
