import CrosspointCompression
import CrosspointCore

/// Formats by their numbers instead of a text, which is how tests go through all of a family.
extension WireFormat {
  package static func rotated(bits: Int) throws(CrosspointError) -> WireFormat {
    try WireFormat(named: "rotated:\(bits)")
  }

  package static func entropy(bits: Double) throws(CrosspointError) -> WireFormat {
    try WireFormat(named: "entropy:\(bits)")
  }

  package static func mixed(low: Int, high: Int, fraction: Double = 0.25) throws(CrosspointError) -> WireFormat {
    try WireFormat(named: "mixed:\(low),\(high),\(fraction)")
  }

  package static func zipCache(bits: Int) throws(CrosspointError) -> WireFormat {
    try WireFormat(named: "zipcache:\(bits)")
  }
}
