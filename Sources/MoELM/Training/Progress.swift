import Crosspoint

/// What the exchanges of all ranks and layers moved in training; evaluations are not counted.
public struct Traffic: Codable, Sendable, Equatable {
  /// Bytes that left a rank.
  public var wireBytes = 0.0
  /// What the rows that were routed would have taken as fp32.
  public var routedBytes = 0.0
  /// Rows on the wire: what stood for those routed.
  public var rowsSent = 0.0
  /// Pairs of a row and an expert that travelled after all stages.
  public var rowsRouted = 0.0
  /// Pairs of a token and an expert that would have travelled without any stage.
  public var rowsOffered = 0.0
  public var residualSquared = 0.0
  public var tokenSquared = 0.0

  public init() {}

  /// - Parameter offered: pairs that would have travelled without any stage.
  init(_ statistics: LayerStatistics, offered: Int) {
    rowsOffered = Double(offered)
    wireBytes = Double(statistics.wireBytes)
    routedBytes = Double(statistics.uncompressedBytes)
    rowsSent = Double(statistics.rowsSent)
    rowsRouted = Double(statistics.rowsRouted)
    residualSquared = statistics.residualSquared
    tokenSquared = statistics.tokenSquared
  }

  /// What the same tokens would have taken as fp32 without any stage. Where stages dropped everything nobody routed it:
  /// then what the announcements took is all there is to compare with.
  public var uncompressedBytes: Double {
    rowsRouted == 0 ? (rowsOffered == 0 ? routedBytes : wireBytes) : routedBytes * rowsOffered / rowsRouted
  }
  /// Rows sent per pair of token and expert; 1 where there was none.
  public var rowsSentFraction: Double { rowsOffered == 0 ? 1 : rowsSent / rowsOffered }
  /// Bytes sent per byte of fp32 without stages; 1 where nothing would leave its rank.
  public var wireFraction: Double { uncompressedBytes == 0 ? 1 : wireBytes / uncompressedBytes }
  /// Share of the tokens' energy that stayed home.
  public var residualEnergy: Double { tokenSquared == 0 ? 0 : residualSquared / tokenSquared }

  private static let fields: [WritableKeyPath<Traffic, Double> & Sendable] = [
    \.wireBytes, \.routedBytes, \.rowsSent, \.rowsRouted, \.rowsOffered, \.residualSquared, \.tokenSquared,
  ]

  static func + (a: Traffic, b: Traffic) -> Traffic { Traffic(zip(a.values, b.values).map(+)) }
  static func - (a: Traffic, b: Traffic) -> Traffic { Traffic(zip(a.values, b.values).map(-)) }

  /// As numbers, for a sum over ranks.
  var values: [Double] { Self.fields.map { self[keyPath: $0] } }

  init(_ values: some Collection<Double>) {
    for (field, value) in zip(Self.fields, values) { self[keyPath: field] = value }
  }
}

/// What exchanges and stages of all ranks and layers did in training; evaluations are not counted.
public struct Movement: Codable, Sendable, Equatable {
  public var traffic = Traffic()
  /// Of every stage, over all layers; empty before anything was counted.
  public var stages: [StageCount] = []
  /// Seconds in stages, summed over ranks, waiting not included.
  public var stageSeconds = 0.0
  /// How alike the granularities of each layer choose.
  public var overlaps: [Overlap] = []

  /// The movement of another step; one of the two may be empty.
  static func + (a: Movement, b: Movement) -> Movement {
    a.isEmpty ? b : b.isEmpty ? a : a.with(zip(a.values, b.values).map(+)[...])
  }

  static func - (a: Movement, b: Movement) -> Movement {
    b.isEmpty ? a : a.with(zip(a.values, b.values).map(-)[...])
  }

  /// Adds the movement of another layer.
  mutating func add(layer: Movement) {
    traffic = traffic + layer.traffic
    stages = stages.isEmpty ? layer.stages : zip(stages, layer.stages).map(+)
    stageSeconds += layer.stageSeconds
    overlaps += layer.overlaps
  }

  /// As numbers, for a sum over ranks.
  var values: [Double] {
    traffic.values + [stageSeconds] + stages.flatMap(\.values) + overlaps.flatMap(\.values)
  }

  /// The same stages and layers with other numbers, in the order of ``values``.
  func with(_ values: ArraySlice<Double>) -> Movement {
    var (moved, rest) = (self, values)
    func take(_ count: Int) -> [Double] {
      defer { rest = rest.dropFirst(count) }
      return Array(rest.prefix(count))
    }
    moved.traffic = Traffic(take(traffic.values.count))
    moved.stageSeconds = take(1)[0]
    moved.stages = stages.map { $0.with(take($0.values.count)) }
    moved.overlaps = overlaps.map { $0.with(take($0.values.count)) }
    return moved
  }

  /// Whether nothing was ever counted.
  var isEmpty: Bool { self == Movement() }
}

/// How far a run has come; part of a checkpoint.
public struct Progress: Codable, Sendable, Equatable {
  /// Steps done.
  public var step = 0
  /// Since the first step.
  public var moved = Movement()
  /// As it was when the last quarter of the steps began.
  public var beforeLastQuarter = Movement()
  /// Seconds spent in training steps.
  public var seconds = 0.0
}
