#if Logging
  internal import Logging
#endif

/// What a program may want to know and no call tells it. Goes to swift-log, label `crosspoint`, with the package trait `Logging`;
/// without it there is nothing of it, and no message is made.
package enum Log {
  /// `warning`: something costs time that need not. `info`: what was decided. `debug`: what memory is taken.
  package enum Level { case debug, info, warning }

  /// - Parameter rank: whose news it is; `nil` where that is not known.
  package static func write(_ level: Level, rank: Int? = nil, _ text: @autoclosure () -> String) {
    #if Logging
      let level: Logger.Level =
        switch level {
        case .debug: .debug
        case .info: .info
        case .warning: .warning
        }
      let metadata: Logger.Metadata? = rank.map { ["rank": "\($0)"] }
      Logger(label: "crosspoint").log(level: level, "\(text())", metadata: metadata)
    #endif
  }
}
