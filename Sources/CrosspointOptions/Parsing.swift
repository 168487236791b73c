import ArgumentParser
import CrosspointCompression
import CrosspointExchange

// The textual forms are the library's own (description and init?(_:)); here they only learn to be arguments.
extension WireFormat: ExpressibleByArgument {}
extension Rounding: ExpressibleByArgument {}
extension ExchangeOptions.Copies: ExpressibleByArgument {}
extension ResidualCompensation: ExpressibleByArgument {}
extension ExchangeOptions.Compression: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}
