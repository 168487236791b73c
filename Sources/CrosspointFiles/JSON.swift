import CrosspointCore

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// A value as JSON with sorted keys and a line feed behind it.
/// - Throws: `nonFinite` if a number in it is not finite.
package func encodedJSON(_ value: some Encodable, argument: String) throws(CrosspointError) -> [UInt8] {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
  guard let data = try? encoder.encode(value) else {
    throw CrosspointError(.nonFinite, operation: "file", argument: argument, "a number to be written is not finite")
  }
  return [UInt8](data) + [UInt8(ascii: "\n")]
}

package func writeJSON(
  _ value: some Encodable, to path: String, argument: String, patience: Duration = .seconds(60)
) throws(CrosspointError) {
  try writeFile(path, try encodedJSON(value, argument: argument), argument: argument, patience: patience)
}
