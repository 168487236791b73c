import Crosspoint
import CrosspointFiles
import Foundation

extension Checkpoint {
  /// Writes a checkpoint whose tensors' floats come in pieces, in the header's order.
  static func write(
    _ header: Header, _ tensors: [UnsafeRawBufferPointer], to path: String
  ) throws(CrosspointError) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    guard let json = try? encoder.encode(header) else {
      throw CrosspointError(
        .nonFinite, operation: "checkpoint", argument: "progress",
        "a number of it is not finite at step \(header.progress.step)")
    }
    let padding = [UInt8](repeating: UInt8(ascii: " "), count: (8 - json.count % 8) % 8)
    let length = UInt64(json.count + padding.count)
    let start = magic + withUnsafeBytes(of: length.littleEndian) { Array($0) } + json + padding
    try start.withUnsafeBufferPointer { start throws(CrosspointError) in
      let body = [UnsafeRawBufferPointer(start)] + tensors
      try [checksum(body).littleEndian].withUnsafeBufferPointer { sum throws(CrosspointError) in
        try writeFile(path, body + [UnsafeRawBufferPointer(sum)], argument: "checkpoint")
      }
    }
  }

  /// FNV-1a over words of 32 bits.
  package static func checksum(_ pieces: [UnsafeRawBufferPointer]) -> UInt64 {
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
