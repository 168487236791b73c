import CrosspointCore
import Glibc
import MPI

/// The tag of a notice that a rank reports why the job ends. Exchanges use lower ones.
let noticeTag = 32767
/// How long a rank looks for notices that have come already: MPI hands over a few messages at a time.
private let look = Duration.milliseconds(20)
/// How long a rank that would report waits for the notice of a lower one that began at the same time.
private let grace = Duration.milliseconds(250)
/// How long a rank that leaves the report to another waits for its end.
private let patience = Duration.seconds(10)

extension MPIFabric {
  /// Ends every rank of the job at once, those that hang or are stopped included; mpirun returns `exitCode`.
  public func abort(exitCode: Int32 = 1) -> Never {
    communicator.abort(exitCode: exitCode)
  }

  /// The same, and of all ranks that call it about one failure exactly one reports it.
  ///
  /// Several ranks notice a silent rank when their deadlines pass, and one that was stopped finds, when the end of the job
  /// wakes it, that its own deadline has long passed and would blame others. So a rank gives all others notice before it
  /// reports. One that finds a notice stays silent; of several that gave theirs at the same time the lowest reports.
  ///
  /// - Parameter report: says what went wrong, and has said it when it returns.
  public func abort(exitCode: Int32 = 1, reporting report: () -> Void) -> Never {
    if takesReport() {
      report()
    } else {
      let end = ContinuousClock.now + patience
      while ContinuousClock.now < end { usleep(10_000) }
    }
    abort(exitCode: exitCode)
  }

  /// Whether this rank reports; gives notice to all others if so.
  private func takesReport() -> Bool {
    // Never given back: its messages outlive this call.
    let notices = Unmanaged.passRetained(RequestGroup(on: communicator, capacity: rankCount)).takeUnretainedValue()
    do {
      let looked = ContinuousClock.now + (rankCount > 1 ? look : .zero)
      while ContinuousClock.now < looked {
        if try notices.arrival(tag: noticeTag) != nil { return false }
      }
      let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
      for peer in 0..<rankCount where peer != rank { try notices.send(nothing, to: peer, tag: noticeTag) }
      let end = ContinuousClock.now + (rankCount > 1 ? grace : .zero)
      while ContinuousClock.now < end {
        while let notice = try notices.arrival(tag: noticeTag) {
          if notice.source < rank { return false }
        }
        usleep(1000)
      }
    } catch {
      // MPI itself is broken: better two reports than none.
    }
    return true
  }
}
