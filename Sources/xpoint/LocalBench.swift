import ArgumentParser
import CCrosspointKernels
import Crosspoint
import CrosspointCore
import CrosspointOptions
import Foundation

/// What the benchmarks of one core have in common: rows to work on, kernels to use, timing against memcpy.
struct LocalBenchArguments: ParsableArguments {
  @Option(help: ArgumentHelp("float32 rows [rows, hidden]; normal random numbers if left out.", valueName: "X.npy"))
  var input: String?
  @Option(help: "Rows, without --input.")
  var rows = 4096
  @Option(help: "Floats per row, without --input.")
  var hidden = 1024
  @Option(help: "Timed runs of each.")
  var iterations = 20
  @Option(
    help: ArgumentHelp("Kernels to use; the best for this processor if left out.", valueName: "scalar|avx2|avx512|neon")
  )
  var kernels: String?
  @Option(help: "Seed of every random choice.")
  var seed: UInt64 = 0
  @OptionGroup var output: RecordArguments

  func validate() throws {
    try Ranges.require(
      ("--rows", rows, Ranges.rows), ("--hidden", hidden, Extent.hidden), ("--iterations", iterations, Ranges.runs))
    // The rows, copies of them, and what coding or clustering needs besides.
    if input == nil { try Ranges.requireMemory("--rows and --hidden", rows, hidden, times: 6) }
  }

  /// Forces the kernels. Nothing may have used any before.
  func chooseKernels() throws {
    guard let kernels else { return }
    setenv("CROSSPOINT_KERNELS", kernels, 1)
    guard kernelName == kernels else {
      throw ValidationError("--kernels \(kernels) is not to be had here; \(kernelName) is")
    }
  }

  /// The rows of the file, or random ones.
  func batch() throws -> TokenBatch {
    if let input { return try Npy.readSomeRows(input, argument: "--input") }
    let batch = try TokenBatch(rows: rows, hidden: hidden)
    var generator = SplitMix64(seed: seed)
    for index in batch.elements.indices {
      let sum = generator.nextUnit() + generator.nextUnit() + generator.nextUnit() + generator.nextUnit()
      batch.elements[index] = (sum - 2) * 1.732_050_8
    }
    return batch
  }

  /// Times a job and a copy of the same rows in turn, after one run of each.
  func time(
    copying rows: borrowing TokenBatch, to copy: borrowing TokenBatch, _ job: () throws -> Void
  ) throws -> (job: Samples, copy: Samples, ratio: Samples) {
    let seconds = try timeInTurn(2) {
      if $0 == 0 { try job() } else { memcpy(copy.base, rows.base, rows.elements.count * 4) }
    }
    // The speed as a fraction of the copy's.
    return (Samples(seconds[0]), Samples(seconds[1]), Samples(ratiosOf: seconds[1], over: seconds[0]))
  }

  /// Times jobs in turn, after one run of each; returns the seconds of every run of each job.
  ///
  /// Seconds are those that this thread computes: what others do on the same core meanwhile does not count.
  func timeInTurn(_ jobs: Int, _ run: (_ job: Int) throws -> Void) throws -> [[Double]] {
    var seconds = [[Double]](repeating: [], count: jobs)
    for iteration in -1..<iterations {
      for index in 0..<jobs {
        let start = threadSeconds()
        try run(index)
        let time = threadSeconds() - start
        if iteration >= 0 { seconds[index].append(time) }
      }
    }
    return seconds
  }
}

var kernelName: String { String(cString: xp_kernels_best().pointee.name) }
