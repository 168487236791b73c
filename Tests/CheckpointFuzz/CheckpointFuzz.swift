import CrosspointCore
import CrosspointFabric
import Foundation
import MoELM
import Synchronization

/// Changes checkpoints, makes their checksums right, and goes on from them: each must be refused by name on every rank, or
/// trained on. Anything else ends this program with a code that is not 0.
///
/// Usage: CheckpointFuzz [TRIALS [FIRST]], by default 1000 from 0. A trial is the same in every run; one alone says what
/// came of it.
///
///     swift build -c release --sanitize address --scratch-path .build-asan --product CheckpointFuzz
///     ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:malloc_context_size=1:max_malloc_fill_size=0 \
///       .build-asan/release/CheckpointFuzz 1000000
@main
enum CheckpointFuzz {
  /// The trial under way, for the line that is written when one traps.
  private static let current = Atomic<Int>(0)
  private static let refused = Atomic<Int>(0)
  private static let accepted = Atomic<Int>(0)

  static func main() throws {
    let numbers = CommandLine.arguments.dropFirst().map { Int($0) ?? -1 }
    guard numbers.count <= 2, numbers.allSatisfy({ $0 >= 0 }) else {
      say("CheckpointFuzz: give the number of trials, and the first")
      exit(2)
    }
    let first = numbers.count > 1 ? numbers[1] : 0
    let trials = first..<first + (numbers.first ?? 1000)
    for number in [SIGILL, SIGTRAP, SIGABRT, SIGSEGV, SIGBUS, SIGFPE] {
      signal(number) { number in
        CheckpointFuzz.say("trapped in trial \(CheckpointFuzz.current.load(ordering: .relaxed)), signal \(number)")
        _exit(128 + number)
      }
    }
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("checkpoint-fuzz-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(at: folder) }
    let text = (0..<1500).map { UInt8(truncatingIfNeeded: 97 + $0 * $0 / 7 % 23) }
    _ = try SimulatedCluster(ranks: 2, deadline: .seconds(60)).run { fabric in
      let subjects = try Subject.all(fabric: fabric, text: text, folder: folder.path)
      for trial in trials { try run(trial, subjects, fabric, isAlone: trials.count == 1) }
    }
    say(
      "\(trials.count) changed checkpoints: \(refused.load(ordering: .relaxed)) refused by name, "
        + "\(accepted.load(ordering: .relaxed)) trained or measured on")
  }

  private static func run(_ trial: Int, _ subjects: [Subject], _ fabric: any Fabric, isAlone: Bool) throws {
    var generator = SplitMix64(seed: UInt64(trial) &* 0x9E37_79B9_7F4A_7C15)
    let subject = subjects[Int(generator.next() % UInt64(subjects.count))]
    let bytes = subject.original.changed(&generator).bytes
    let isRoot = fabric.rank == 0
    if isRoot { current.store(trial, ordering: .relaxed) }
    do throws(CrosspointError) {
      try subject.goOn(from: bytes, evaluating: generator.next() % 5 == 0)
      if isRoot { accepted.add(1, ordering: .relaxed) }
    } catch {
      // An error that one rank alone has leaves the others waiting.
      guard error.isAgreed, !error.argument.isEmpty else {
        say("trial \(trial), rank \(fabric.rank): not agreed: \(error)")
        throw error
      }
      if isRoot {
        refused.add(1, ordering: .relaxed)
        if isAlone { say("\(error)") }
      }
    }
    if isRoot, (trial + 1).isMultiple(of: 50_000) {
      say("\(trial + 1) tried, \(refused.load(ordering: .relaxed)) refused")
    }
  }

  private static func say(_ text: String) { FileHandle.standardOutput.write(Data((text + "\n").utf8)) }
}
