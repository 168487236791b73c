import Crosspoint
import CrosspointTestSupport
import Foundation
import Testing

@testable import MoELM

/// Files whose checksum is right and whose contents are not: each is refused by name, and nothing traps.
///
/// `CheckpointFuzz` tries changes by the million; what it found is kept here as cases.
@Suite struct CheckpointContentsTests {
  /// A checkpoint after three steps on one rank.
  private static func written(_ options: TrainingOptions) throws -> [UInt8] {
    let folder = try TemporaryFolder()
    let corpus = try tinyCorpus(options)
    _ = try SimulatedCluster(ranks: 1).run { fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      for _ in 0..<3 { _ = try trainer.step() }
      try trainer.saveCheckpoint(folder.file("c"))
    }
    return [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder.file("c"))))
  }

  /// With another header and payload, and the checksum that belongs to them.
  private static func changed(
    _ bytes: [UInt8], _ header: (inout String) -> Void, payload change: (inout [UInt8]) -> Void = { _ in }
  ) -> [UInt8] {
    let length = bytes.withUnsafeBytes { Int($0.load(fromByteOffset: 8, as: UInt64.self)) }
    var text = String(decoding: bytes[16..<16 + length], as: UTF8.self)
    header(&text)
    text += String(repeating: " ", count: (8 - text.utf8.count % 8) % 8)
    var payload = Array(bytes[(16 + length)..<(bytes.count - 8)])
    change(&payload)
    let size = withUnsafeBytes(of: UInt64(text.utf8.count).littleEndian) { Array($0) }
    let body = Checkpoint.magic + size + Array(text.utf8) + payload
    let sum = body.withUnsafeBytes { Checkpoint.checksum([$0]) }
    return body + withUnsafeBytes(of: sum.littleEndian) { Array($0) }
  }

  /// The error of going on from a file, by resuming or by measuring it.
  private func failure(_ bytes: [UInt8], _ options: TrainingOptions, measured: Bool = false) throws -> CrosspointError?
  {
    let corpus = try tinyCorpus(options)
    do {
      _ = try SimulatedCluster(ranks: 2).run { fabric in
        let checkpoint = try Checkpoint(bytes, path: "c")
        if measured {
          _ = try Evaluation.run(fabric: fabric, options: options, checkpoint, path: "c") { _ in corpus }
        } else {
          let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
          try trainer.resume(checkpoint, path: "c")
          _ = try trainer.step()
        }
      }
      return nil
    } catch {
      return error as? CrosspointError
    }
  }

  private func replace(_ old: String, _ new: String) -> (inout String) -> Void {
    { text in
      #expect(text.contains(old), "\(old) is not in \(text)")
      text = text.replacingOccurrences(of: old, with: new)
    }
  }

  private static var full: TrainingOptions {
    var options = tinyOptions()
    options.exchange.policy = .budget(bytes: 0.5)
    options.shape.stages.deletionRate = 0.3
    options.shape.stages.prune = .auto
    return options
  }

  @Test func aFileThatWasNotChangedIsTaken() throws {
    let bytes = Self.changed(try Self.written(Self.full), { _ in })
    #expect(try failure(bytes, Self.full) == nil)
    #expect(try failure(bytes, Self.full, measured: true) == nil)
  }

  @Test func aFileOfAnotherVersionIsRefusedByItsNumber() throws {
    var bytes = try Self.written(tinyOptions())
    bytes[7] = 4
    let error = try failure(bytes, tinyOptions())
    #expect(error?.code == .file && error?.message.contains("version 4 where this program reads 5") == true)
  }

  @Test func headersThatCannotBeAreRefused() throws {
    let bytes = try Self.written(Self.full)
    // The second entry of a name made memcpy read beyond the file.
    let changes: [(change: (inout String) -> Void, said: String)] = [
      (replace("\"name\":\"norm.bias\"", "\"name\":\"norm.gain\""), "norm.gain is there twice"),
      (replace("{\"count\":12,\"name\":\"norm.gain\"}", "{\"count\":-12,\"name\":\"norm.gain\"}"), "norm.gain has -12"),
      (
        replace("{\"count\":12,\"name\":\"norm.gain\"}", "{\"count\":\(Int.max),\"name\":\"norm.gain\"}"),
        "norm.gain has \(Int.max)"
      ),
      (replace("{\"count\":12,\"name\":\"norm.gain\"},", ""), "its length is wrong"),
      (replace("\"step\":3", "\"step\":-1"), "its step is -1"),
      (replace("\"step\":3", "\"step\":\(Int.max)"), "its step is \(Int.max)"),
      (replace("[\"width\",\"12\"]", "[\"width\"]"), "no pairs"),
      (replace("[\"width\",\"12\"]", "[\"context\",\"8\"]"), "no pairs"),
      (replace("\"stages\":[[", "\"stages\":[{"), "its header cannot be read"),
    ]
    for (change, said) in changes {
      let error = try failure(Self.changed(bytes, change), Self.full)
      #expect(error?.code == .file && error?.argument == "checkpoint", "\(said)")
      #expect(error?.message.contains(said) == true, "\(said): \(error?.message ?? "taken")")
    }
  }

  @Test func statesThatNoRunCanBeInAreRefused() throws {
    let bytes = try Self.written(Self.full)
    let changes: [(change: (inout String) -> Void, argument: String)] = [
      (replace("\"step\":3", "\"step\":7"), "step"),
      (replace("\\\"clock\\\":12", "\\\"clock\\\":\(Int.max)"), "policy"),
      (replace("\\\"clock\\\":12", "\\\"clock\\\":-1"), "policy"),
      (replace("\\\"requiredSamples\\\":3", "\\\"requiredSamples\\\":\(Int.max)"), "policy"),
      (replace("\\\"agreeing\\\":0", "\\\"agreeing\\\":\(Int.min)"), "policy"),
      (replace("\\\"clock\\\":12", ""), "policy"),
      (replace("\"gradientSteps\":3", "\"gradientSteps\":\(UInt64.max)"), "gradientSteps"),
      (replace("\"policy\":", "\"other\":"), "policy"),
      (replace("\"name\":\"deletion\",", "\"name\":\"other\","), "progress"),
    ]
    for (change, argument) in changes {
      let error = try failure(Self.changed(bytes, change), Self.full)
      #expect(error?.code == .checkpointMismatch && error?.argument == argument, "\(argument): \(error as Any)")
    }
    // States of stages: none, those of another number of layers, and no numbers.
    for stages in ["[]", "[[]]", "[[],[],[]]", "[[1],[1],[1]]", "[[\(Double.nan.bitPattern),0,0],[1,2,3],[4]]"] {
      let error = try failure(
        Self.changed(bytes) { text in
          let start = text.range(of: "\"stages\":[[")!
          let end = text.range(of: "]]", range: start.upperBound..<text.endIndex)!
          text.replaceSubrange(start.lowerBound..<end.upperBound, with: "\"stages\":\(stages)")
        }, Self.full)
      #expect(error?.code == .checkpointMismatch, "\(stages): \(error as Any)")
    }
    let none = Self.changed(bytes) { text in
      let start = text.range(of: "\"exchanges\":[")!
      let end = text.range(of: "],\"progress\"", range: start.upperBound..<text.endIndex)!
      text.replaceSubrange(start.lowerBound..<end.lowerBound, with: "\"exchanges\":[")
    }
    #expect(try failure(none, Self.full)?.argument == "exchanges")
  }

  @Test func numbersThatNoTrainingLeavesAreRefused() throws {
    let bytes = try Self.written(tinyOptions())
    // The first tensor is the embedding: 256 · 12 values, as many first moments, as many second moments.
    let count = 256 * 12
    for (place, value, said) in [
      (5, Float.nan, "a value of nan"), (5, .infinity, "a value of inf"), (count + 1, -.infinity, "a first moment"),
      (2 * count, -1e-9, "a second moment of -1e-09"), (3 * count - 1, .nan, "a second moment of nan"),
    ] {
      let changed = Self.changed(
        bytes, { _ in },
        payload: { payload in
          withUnsafeBytes(of: value) { payload.replaceSubrange(4 * place..<4 * place + 4, with: $0) }
        })
      let error = try failure(changed, tinyOptions())
      #expect(error?.code == .file)
      #expect(error?.message.contains("embedding has \(said)") == true, "\(error as Any)")
    }
  }

  /// A model of the sizes that a file claims would take memory before its tensors are looked for.
  @Test func sizesThatAreNotThoseOfTheTensorsAreRefusedBeforeMemoryIsTaken() throws {
    let bytes = try Self.written(tinyOptions())
    for (name, old, new) in [
      ("width", 12, 1 << 20), ("expert-width", 10, 1 << 20), ("blocks", 2, 1 << 20), ("experts", 3, 1 << 20),
    ] {
      let changed = Self.changed(bytes, replace("[\"\(name)\",\"\(old)\"]", "[\"\(name)\",\"\(new)\"]"))
      #expect(try failure(changed, tinyOptions(), measured: true)?.code == .checkpointMismatch, "\(name)")
      #expect(try failure(changed, tinyOptions())?.argument == name)
    }
  }
}
