import ArgumentParser
import CrosspointCompression
import CrosspointCore
import CrosspointExchange

// The textual forms are the library's own (description and init?(_:)); here they only learn to be arguments.
extension Rounding: ExpressibleByArgument {}
extension ExchangeOptions.WithinNode: ExpressibleByArgument {}
extension ExchangeOptions.Agreement: ExpressibleByArgument {}
extension ResidualCompensation: ExpressibleByArgument {}

/// Reads an argument by an initialiser that says what is wrong with a text.
package func reading<Value>(
  _ read: @escaping @Sendable (String) throws(CrosspointError) -> Value
) -> @Sendable (String) throws -> Value {
  { text in
    do throws(CrosspointError) { return try read(text) } catch { throw ValidationError(error.message) }
  }
}
