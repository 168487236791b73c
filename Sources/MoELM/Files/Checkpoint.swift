import Crosspoint
import CrosspointCore
import Foundation

/// A training run between two steps: everything that the next step depends on. The same for any rank count.
///
/// On disk, little-endian: "MoELM\0\0\4" · length of the header, UInt64 · header, JSON, padded with spaces to a multiple
/// of 8 · tensors in the header's order, each as values, first and second moments, Float32
/// · checksum of all before, UInt64. A file is written whole or not at all, and one that is cut or changed is refused.
struct Checkpoint {
  struct Header: Codable {
    struct Tensor: Codable {
      let name: String
      let count: Int
    }

    /// Options by name, in an order fit for reporting the first that differs.
    let configuration: [[String]]
    let progress: Progress
    /// See ``LanguageModel/stageState``.
    let stages: [[UInt64]]
    let tensors: [Tensor]
    /// What the layers' policies have learned; none without one.
    let policies: [PolicyState]
  }

  static let magic: [UInt8] = Array("MoELM".utf8) + [0, 0, 4]

  let header: Header
  private let bytes: [UInt8]
  private let payload: Int

  /// Where each tensor's floats begin within the payload, in floats.
  let starts: [String: Int]

  /// - Throws: `file` for anything that is no whole checkpoint.
  init(_ bytes: [UInt8], path: String) throws(CrosspointError) {
    func broken(_ why: String) -> CrosspointError {
      fileError(
        "checkpoint", path, "is no whole checkpoint of moe-lm (\(why)); delete it or name another", reason: false)
    }
    guard bytes.count >= 24, bytes.count.isMultiple(of: 4), Array(bytes[..<8]) == Self.magic else {
      throw broken("wrong beginning")
    }
    let (length, stored, computed) = bytes.withUnsafeBytes { all in
      (
        all.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
        all.loadUnaligned(fromByteOffset: all.count - 8, as: UInt64.self),
        Self.checksum([UnsafeRawBufferPointer(rebasing: all[..<(all.count - 8)])])
      )
    }
    guard stored == computed else { throw broken("its checksum is wrong") }
    guard let length = Int(exactly: length), length <= bytes.count - 24,
      let header = try? JSONDecoder().decode(Header.self, from: Data(bytes[16..<16 + length]))
    else { throw broken("its header cannot be read") }
    var starts: [String: Int] = [:]
    var floats = 0
    for tensor in header.tensors {
      guard tensor.count >= 0, tensor.count <= bytes.count else { throw broken("a tensor's size is absurd") }
      starts[tensor.name] = floats
      floats += 3 * tensor.count
    }
    guard 16 + length + 4 * floats + 8 == bytes.count else { throw broken("its length is wrong") }
    self.header = header
    self.bytes = bytes
    self.starts = starts
    payload = 16 + length
  }

  /// Fills every tensor of a set.
  /// - Throws: `checkpointMismatch` naming a tensor that is missing or has another size.
  func restore(_ set: ParameterSet) throws(CrosspointError) {
    for specification in set.specifications {
      let (name, count) = (specification.name, specification.count)
      guard let start = starts[name], header.tensors.contains(where: { $0.name == name && $0.count == count }) else {
        throw CrosspointError(
          .checkpointMismatch, operation: "resume", argument: name, "the checkpoint has no tensor of \(count) floats")
      }
      let destination = set.ranges[name]!.lowerBound
      bytes.withUnsafeBytes { bytes in
        for (part, target) in [set.values, set.firstMoments, set.secondMoments].enumerated() {
          let offset = payload + 4 * (start + part * count)
          memcpy(target + destination, bytes.baseAddress! + offset, 4 * count)
        }
      }
    }
  }

  /// Writes a checkpoint whose tensors' floats come in pieces, in the header's order.
  static func write(
    _ header: Header, _ tensors: [UnsafeRawBufferPointer], to path: String
  ) throws(CrosspointError) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    guard let json = try? encoder.encode(header) else {
      throw fileError("checkpoint", path, "would hold a number that is not finite", reason: false)
    }
    let padding = [UInt8](repeating: UInt8(ascii: " "), count: (8 - json.count % 8) % 8)
    let length = UInt64(json.count + padding.count)
    let start = magic + withUnsafeBytes(of: length.littleEndian) { Array($0) } + json + padding
    try start.withUnsafeBufferPointer { start throws(CrosspointError) in
      let body = [UnsafeRawBufferPointer(start)] + tensors
      try [checksum(body).littleEndian].withUnsafeBufferPointer { sum throws(CrosspointError) in
        try writeFileAtomically(path, body + [UnsafeRawBufferPointer(sum)], argument: "checkpoint")
      }
    }
  }

  /// FNV-1a over words of 32 bits.
  private static func checksum(_ pieces: [UnsafeRawBufferPointer]) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for piece in pieces {
      var offset = 0
      while offset < piece.count {
        let word = piece.loadUnaligned(fromByteOffset: offset, as: UInt32.self).littleEndian
        hash = (hash ^ UInt64(word)) &* 0x100_0000_01B3
        offset += 4
      }
    }
    return hash
  }
}
