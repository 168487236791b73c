import ArgumentParser
import CrosspointCore
import CrosspointTokens
import Foundation

/// The hash of benchmarks/rotate_per_function.c, out of a shared library: what `bench hash` measures itself against.
///
/// The library is compiled for the machine at hand by benchmarks/hash; a package may not ask for such flags.
final class RotatePerFunction {
  private typealias Function =
    @convention(c) (
      UnsafeMutablePointer<UInt32>, UnsafePointer<Float>, Int, Int, Int, Int, UnsafePointer<Float>,
      UnsafeMutablePointer<Float>, Int32
    ) -> Void

  private let function: Function
  private let hidden: Int
  private let functions: Int
  private let rounds: Int
  private let signs: [Float]
  private let scratch: TokenBatch

  /// - Throws: `ValidationError` where the library or its function is not to be had.
  init(library: String, hidden: Int, functions: Int, rounds: Int, seed: UInt64) throws {
    guard let handle = dlopen(library, RTLD_NOW), let symbol = dlsym(handle, "rotate_per_function") else {
      throw ValidationError("--baseline \(library): \(String(cString: dlerror())); build one with benchmarks/hash")
    }
    function = unsafeBitCast(symbol, to: Function.self)
    self.hidden = hidden
    self.functions = functions
    self.rounds = rounds
    var padded = 1
    while padded < hidden { padded *= 2 }
    var generator = SplitMix64(seed: seed)
    signs = (0..<functions * rounds * padded).map { _ in generator.next() >> 63 == 0 ? 1 : -1 }
    scratch = try TokenBatch(rows: 1, hidden: padded)
  }

  /// Writes the ids `[count × functions]` of `count` rows.
  func ids(
    of rows: UnsafePointer<Float>, count: Int, into ids: UnsafeMutablePointer<UInt32>, vectorised: Bool
  ) {
    function(ids, rows, count, hidden, functions, rounds, signs, scratch.base, vectorised ? 1 : 0)
  }
}
