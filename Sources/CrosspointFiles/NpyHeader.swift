/// What stands before the elements of an array in NumPy's file format: version 1.0, C order.
///
/// - Parameter type: as NumPy writes it, for example `<f4`.
package func npyHeader(_ type: String, shape: [Int]) -> [UInt8] {
  let sizes = shape.map { "\($0)," }.joined(separator: " ")
  let text = Array("{'descr': '\(type)', 'fortran_order': False, 'shape': (\(sizes)), }".utf8)
  // Spaces and a line feed bring the elements to a multiple of 64 bytes.
  let length = (10 + text.count + 1 + 63) / 64 * 64 - 10
  let padding = [UInt8](repeating: UInt8(ascii: " "), count: length - text.count - 1) + [UInt8(ascii: "\n")]
  return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(length & 255), UInt8(length >> 8)] + text + padding
}
