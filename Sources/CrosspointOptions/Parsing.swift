import ArgumentParser
import CrosspointCompression
import CrosspointExchange

// The textual forms are the library's own (description and init?(_:)); here they only learn to be arguments.
extension WireFormat: @retroactive ExpressibleByArgument {}
extension Packing: @retroactive ExpressibleByArgument {}
extension ResidualCompensation: @retroactive ExpressibleByArgument {}
extension ExchangeOptions.Compression: @retroactive ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}
