import ArgumentParser

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Times one part of Crosspoint against its plain counterpart, in the same run.",
    discussion: """
      Examples:
        mpirun -n 2 xpoint bench exchange --json exchange.json
        mpirun -n 2 xpoint bench alltoall
        xpoint bench codec --hidden 1024
        xpoint bench hash --hidden 1024
      """,
    subcommands: [BenchExchange.self, BenchAlltoall.self, BenchHash.self, BenchCodec.self])
}
