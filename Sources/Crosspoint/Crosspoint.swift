// `import Crosspoint` is all that a user writes.
@_exported import CrosspointCompression
@_exported import CrosspointCore
@_exported import CrosspointExchange
@_exported import CrosspointFabric
@_exported import CrosspointMPI
@_exported import CrosspointPolicy
@_exported import CrosspointRouting
@_exported import CrosspointStages
@_exported import CrosspointTokens
