internal import CMPI
import Glibc

/// The process as a whole: starting and ending MPI, and what it says about itself.
public enum MPIEnvironment {
  /// Which threads may call MPI.
  public enum ThreadLevel: Int, Sendable, Comparable {
    /// The program has one thread.
    case single
    /// Only the thread that initialised MPI.
    case funneled
    /// Any thread, one at a time.
    case serialized
    /// Any thread at any time.
    case multiple

    var raw: Int32 {
      switch self {
      case .single: cmpi_thread_single()
      case .funneled: cmpi_thread_funneled()
      case .serialized: cmpi_thread_serialized()
      case .multiple: cmpi_thread_multiple()
      }
    }

    init(raw: Int32) {
      self = [.multiple, .serialized, .funneled].first { raw >= $0.raw } ?? .single
    }

    public static func < (a: ThreadLevel, b: ThreadLevel) -> Bool { a.rawValue < b.rawValue }
  }

  /// Starts MPI. Once per process; every rank of the job must call it.
  ///
  /// A program started without mpirun becomes rank 0 of a world of one.
  /// - Returns: the level that MPI provides, which may be lower than the one asked for.
  /// - Throws: ``MPIError/Class/other`` if MPI runs already or has ended; ``MPIError/Class/memory`` if a limit on the address
  ///   space leaves it too little.
  @discardableResult
  public static func initialize(threadLevel: ThreadLevel = .serialized) throws(MPIError) -> ThreadLevel {
    guard !isInitialized else {
      throw MPIError(.other, call: "MPI_Init_thread", "MPI is initialised already, once per process is the rule")
    }
    guard hasRoom(for: startBytes) else {
      throw MPIError(
        .memory, call: "MPI_Init_thread", rank: launchedRank,
        "MPI needs \(startBytes >> 20) MiB of address space to start: raise its limit (ulimit -v)")
    }
    var provided: Int32 = 0
    try check("MPI_Init_thread", cmpi_init_thread(threadLevel.raw, &provided))
    return ThreadLevel(raw: provided)
  }

  /// Ends MPI. Collective over all ranks of the job; communicators still alive become unusable. A second call does nothing.
  public static func finalize() throws(MPIError) {
    guard isRunning else { return }
    try check("MPI_Finalize", cmpi_finalize())
  }

  /// Which rank of a job a launcher (mpirun, srun) started this process as, by the variables that it sets; `nil`: none did.
  /// Callable at any time.
  public static var launchedRank: Int? {
    let names: [String] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"]
    return names.lazy.compactMap { getenv($0) }.first.flatMap { Int(String(cString: $0)) }
  }

  /// Whether MPI was started, by whomever; stays true after ``finalize()``.
  public static var isInitialized: Bool { cmpi_initialized() != 0 }
  /// Whether MPI has ended.
  public static var isFinalized: Bool { cmpi_finalized() != 0 }
  /// Whether MPI calls are allowed now.
  public static var isRunning: Bool { isInitialized && !isFinalized }

  /// The level that MPI provides; MPI must be running.
  public static var threadLevel: ThreadLevel {
    get throws(MPIError) {
      var provided: Int32 = 0
      try check("MPI_Query_thread", cmpi_query_thread(&provided))
      return ThreadLevel(raw: provided)
    }
  }

  /// Seconds since some moment in the past, on this rank's clock; MPI must be running.
  public static var wallTime: Double { cmpi_wtime() }
  /// Seconds between two ticks of ``wallTime``.
  public static var wallTick: Double { cmpi_wtick() }

  /// The name of this node; MPI must be running.
  public static var processorName: String {
    words(capacity: cmpi_max_processor_name()) { cmpi_processor_name($0, $1) } ?? "unknown"
  }

  /// The MPI library and its version, in its own words, on one line. Callable at any time.
  public static var libraryVersion: String {
    let name = words(capacity: cmpi_max_library_version()) { cmpi_library_version($0, $1) } ?? "unknown"
    return name.split(whereSeparator: \.isNewline).joined(separator: " ")
  }

  /// The MPI whose binary interface this was compiled for, and its version. Callable at any time.
  public static var interface: String { String(cString: cmpi_interface()) }

  /// The version of the MPI standard that the library follows. Callable at any time.
  public static var standardVersion: (major: Int, minor: Int) {
    var major: Int32 = 0
    var minor: Int32 = 0
    guard cmpi_standard_version(&major, &minor) == cmpi_success() else { return (0, 0) }
    return (Int(major), Int(minor))
  }
}
