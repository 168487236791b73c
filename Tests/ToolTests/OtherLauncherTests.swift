import Testing

/// Another MPI's launcher starts processes that are all rank 0 of 1, and would all write the same files.
struct OtherLauncherTests {
  @Test(arguments: ["PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS"])
  func aProcessOfAnotherLauncherRefusesToTrainAlone(variable: String) throws {
    try TinyRun.use { run in
      let outcome = try Tool.moeLM.run(run.train(), environment: [variable: "2"])
      #expect(outcome.exitCode != 0 && outcome.errorLines.count == 1, "\(outcome)")
      #expect(outcome.errors.hasPrefix("moe-lm: rank 0: world: invalidArgument: launcher: "), "\(outcome)")
      #expect(outcome.errors.contains("started 2 processes (\(variable))"))

      let alone = try Tool.moeLM.run(run.train(), environment: [variable: "1"])
      #expect(alone.exitCode == 0, "\(alone)")
    }
  }
}
