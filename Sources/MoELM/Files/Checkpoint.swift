import Crosspoint
import CrosspointFiles
import Foundation

/// A training run between two steps: everything that the next step depends on. The same for any rank count.
///
/// On disk, little-endian: "MoELM\0\0\5" · length of the header, UInt64 · header, JSON, padded with spaces to a multiple
/// of 8 · tensors in the header's order, each as values, first and second moments, Float32 ·
/// checksum of all before, UInt64. A file is written whole or not at all, and one that is cut or changed is refused.
///
/// The format's own limits, kept by the initialiser, so that a file with a right checksum but wrong contents is refused, too:
/// a header of at most ``headerLimit`` bytes; options and tensors of distinct names; exactly as many bytes as they
/// take; counts that are not negative and at most ``countLimit``; every float finite, and no second moment negative.
package struct Checkpoint {
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
    /// Of each MoE layer's exchange, see ``ExpertExchange/state``.
    let exchanges: [ExchangeState]
  }

  static let magic: [UInt8] = Array("MoELM".utf8) + [0, 0, 5]
  /// Bytes of the header at most.
  static let headerLimit = 1 << 26
  /// The largest count, of steps or of anything else: every whole number up to it is a `Double`.
  static let countLimit = 1 << 53

  let header: Header
  /// The options that it was written with.
  let options: [String: String]
  private let bytes: [UInt8]
  /// Where each tensor's bytes lie.
  private let places: [String: Range<Int>]

  /// - Throws: `file` for anything that is no whole checkpoint, naming what is wrong with it.
  package init(_ bytes: [UInt8], path: String) throws(CrosspointError) {
    func broken(_ why: String) -> CrosspointError {
      fileError("checkpoint", path, "is no whole checkpoint of moe-lm (\(why)); delete it or name another")
    }
    guard bytes.count >= 24, bytes.count.isMultiple(of: 4), bytes.starts(with: Self.magic.dropLast()) else {
      throw broken("wrong beginning")
    }
    guard bytes[7] == Self.magic[7] else {
      throw broken("version \(bytes[7]) where this program reads \(Self.magic[7])")
    }
    let (length, stored, computed) = bytes.withUnsafeBytes { all in
      (
        UInt64(littleEndian: all.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
        UInt64(littleEndian: all.loadUnaligned(fromByteOffset: all.count - 8, as: UInt64.self)),
        Self.checksum([UnsafeRawBufferPointer(rebasing: all[..<(all.count - 8)])])
      )
    }
    guard stored == computed else { throw broken("its checksum is wrong") }
    guard length <= UInt64(min(Self.headerLimit, bytes.count - 24)), length.isMultiple(of: 4) else {
      throw broken("its header has a length of \(length)")
    }
    let start = 16 + Int(length)
    guard let header = try? JSONDecoder().decode(Header.self, from: Data(bytes[16..<start])) else {
      throw broken("its header cannot be read")
    }
    var options: [String: String] = [:]
    for pair in header.configuration {
      guard pair.count == 2, options.updateValue(pair[1], forKey: pair[0]) == nil else {
        throw broken("its options are no pairs of a name and a value, each name once")
      }
    }
    if let wrong = header.progress.defect { throw broken(wrong) }
    self.header = header
    self.options = options
    self.bytes = bytes
    do throws(Defect) {
      places = try Self.places(header, from: start, to: bytes.count - 8)
      try requireNumbers()
    } catch {
      throw broken(error.description)
    }
  }

  /// What is wrong with the contents.
  private struct Defect: Error {
    let description: String
  }

  /// Where tensors lie, which must fill the bytes.
  private static func places(
    _ header: Header, from first: Int, to end: Int
  ) throws(Defect) -> [String: Range<Int>] {
    var places: [String: Range<Int>] = [:]
    var start = first
    for tensor in header.tensors {
      guard tensor.count >= 0, tensor.count <= (end - start) / 12 else {
        throw Defect(description: "\(tensor.name) has \(tensor.count) floats, more or fewer than there are")
      }
      let range = start..<start + 12 * tensor.count
      guard places.updateValue(range, forKey: tensor.name) == nil else {
        throw Defect(description: "\(tensor.name) is there twice")
      }
      start = range.upperBound
    }
    guard start == end else { throw Defect(description: "its length is wrong") }
    return places
  }

  private func requireNumbers() throws(Defect) {
    func require(_ name: String, _ floats: Range<Int>, _ what: String, _ holds: (Float) -> Bool) throws(Defect) {
      let bad = bytes.withUnsafeBytes { bytes in
        stride(from: floats.lowerBound, to: floats.upperBound, by: 4).lazy
          .map { bytes.loadUnaligned(fromByteOffset: $0, as: Float.self) }.first { !holds($0) }
      }
      if let bad { throw Defect(description: "\(name) has \(what) of \(bad)") }
    }
    for tensor in header.tensors {
      let (start, size) = (places[tensor.name]!.lowerBound, 4 * tensor.count)
      try require(tensor.name, start..<start + size, "a value") { $0.isFinite }
      try require(tensor.name, start + size..<start + 2 * size, "a first moment") { $0.isFinite }
      try require(tensor.name, start + 2 * size..<start + 3 * size, "a second moment") { $0.isFinite && $0 >= 0 }
    }
  }

  /// - Throws: `checkpointMismatch` naming a tensor that is missing or has another size.
  func require(_ specifications: [ParameterSpecification]) throws(CrosspointError) {
    for specification in specifications where places[specification.name]?.count != 12 * specification.count {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: specification.name,
        "the checkpoint has no tensor of \(specification.count) floats")
    }
  }

  /// Fills every tensor of a set.
  /// - Throws: as ``require(_:)``.
  func restore(_ set: ParameterSet) throws(CrosspointError) {
    try require(set.specifications)
    for specification in set.specifications {
      let source = places[specification.name]!.lowerBound
      let target = set.ranges[specification.name]!.lowerBound
      for (part, floats) in [set.values, set.firstMoments, set.secondMoments].enumerated() {
        copy(source + 4 * part * specification.count, to: floats + target, count: specification.count)
      }
    }
  }

  private func copy(_ start: Int, to floats: UnsafeMutablePointer<Float>, count: Int) {
    bytes.withUnsafeBytes { bytes in
      UnsafeMutableRawBufferPointer(start: floats, count: 4 * count)
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[start..<start + 4 * count]))
    }
  }
}
