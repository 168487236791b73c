import Crosspoint

/// What the exchanges of all ranks and layers moved in training; evaluations are not counted.
public struct Traffic: Codable, Sendable, Equatable {
  /// Bytes that left a rank.
  public var wireBytes = 0.0
  /// What every routed token would have taken as fp32.
  public var uncompressedBytes = 0.0
  public var rowsSent = 0.0
  public var rowsRouted = 0.0
  public var residualSquared = 0.0
  public var tokenSquared = 0.0

  public init() {}

  init(_ statistics: LayerStatistics) {
    wireBytes = Double(statistics.wireBytes)
    uncompressedBytes = Double(statistics.uncompressedBytes)
    rowsSent = Double(statistics.rowsSent)
    rowsRouted = Double(statistics.rowsRouted)
    residualSquared = statistics.residualSquared
    tokenSquared = statistics.tokenSquared
  }

  /// Rows sent per routed token; 1 where nothing was routed.
  public var rowsSentFraction: Double { rowsRouted == 0 ? 1 : rowsSent / rowsRouted }
  /// Bytes sent per byte of fp32; 1 where nothing would leave its rank.
  public var wireFraction: Double { uncompressedBytes == 0 ? 1 : wireBytes / uncompressedBytes }
  /// Share of the tokens' energy that stayed home.
  public var residualEnergy: Double { tokenSquared == 0 ? 0 : residualSquared / tokenSquared }

  private static let fields: [WritableKeyPath<Traffic, Double> & Sendable] = [
    \.wireBytes, \.uncompressedBytes, \.rowsSent, \.rowsRouted, \.residualSquared, \.tokenSquared,
  ]

  static func + (a: Traffic, b: Traffic) -> Traffic { Traffic(zip(a.values, b.values).map(+)) }
  static func - (a: Traffic, b: Traffic) -> Traffic { Traffic(zip(a.values, b.values).map(-)) }

  /// As numbers, for a sum over ranks.
  var values: [Double] { Self.fields.map { self[keyPath: $0] } }

  init(_ values: some Collection<Double>) {
    for (field, value) in zip(Self.fields, values) { self[keyPath: field] = value }
  }
}

/// How far a run has come; part of a checkpoint.
public struct Progress: Codable, Sendable, Equatable {
  /// Steps done.
  public var step = 0
  /// Since the first step.
  public var traffic = Traffic()
  /// As it was when the last quarter of the steps began.
  public var trafficBeforeLastQuarter = Traffic()
  /// Seconds spent in training steps.
  public var seconds = 0.0
}
