import LaunchSupport
import Testing

/// A short part of what the program CheckpointFuzz tries by the million under the address sanitizer.
@Suite struct CheckpointFuzzTests {
  @Test func changedCheckpointsAreRefusedByNameOrGoneOnFrom() throws {
    let program = try Programs.product("CheckpointFuzz", variable: "CROSSPOINT_CHECKPOINT_FUZZ")
    let outcome = try Launch.run(program, ["300"], limit: 120)
    #expect(outcome.exitCode == 0, "\(outcome)")
    #expect(outcome.output.hasPrefix("300 changed checkpoints: "), "\(outcome)")
  }
}
