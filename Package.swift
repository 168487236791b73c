// swift-tools-version: 6.2
import PackageDescription

// Lowest first. Imports point down only; docs/architecture.md says what each target may know.
// No unsafeFlags anywhere: other packages can depend on this one.

// The MPI to build against, by pkg-config's name: Open MPI, or with CROSSPOINT_MPI=mpich MPICH. Each needs a build folder of its
// own (--scratch-path).
let mpi = Context.environment["CROSSPOINT_MPI"] ?? "ompi-c"
let mpiPackages = mpi == "mpich" ? ["libmpich-dev", "mpich"] : ["libopenmpi-dev", "openmpi-bin"]

let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
  name: "crosspoint",
  products: [
    .library(name: "Crosspoint", targets: ["Crosspoint"]),
    // Without MPI: an exchange over simulated ranks, or over a fabric of your own.
    .library(
      name: "CrosspointExchange",
      targets: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointStages",
        "CrosspointCompression", "CrosspointExchange", "CrosspointPolicy",
      ]),
    .library(name: "MPI", targets: ["MPI"]),
    .library(name: "CrosspointMetrics", targets: ["CrosspointMetrics"]),
    .executable(name: "xpoint", targets: ["xpoint"]),
    .executable(name: "moe-lm", targets: ["moe-lm"]),
  ],
  traits: [
    .trait(
      name: "Metrics",
      description: "CrosspointMetrics: counters of swift-metrics; without it that package is not fetched."),
    .trait(name: "Logging", description: "Logs by swift-log; without it that package is not fetched."),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.10.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.4.0"),
  ],
  targets: [
    // System libraries: module maps and static-inline shims, nothing else.
    .systemLibrary(name: "CMPI", pkgConfig: mpi, providers: [.apt(mpiPackages)]),
    .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    .systemLibrary(name: "CSharedMemory"),

    // C kernels, one body per operation compiled for several instruction sets.
    .target(name: "CCrosspointKernels"),

    // The library.
    .target(
      name: "CrosspointCore",
      dependencies: [.product(name: "Logging", package: "swift-log", condition: .when(traits: ["Logging"]))]),
    .target(name: "MPI", dependencies: ["CMPI"]),
    .target(name: "CrosspointFabric", dependencies: ["CrosspointCore"]),
    .target(name: "CrosspointMPI", dependencies: ["CrosspointCore", "CrosspointFabric", "MPI", "CSharedMemory"]),
    .target(name: "CrosspointTokens", dependencies: ["CrosspointCore", "CCrosspointKernels"]),
    .target(name: "CrosspointRouting", dependencies: ["CrosspointCore", "CrosspointTokens"]),
    .target(name: "CrosspointStages", dependencies: ["CrosspointCore", "CrosspointTokens", "CrosspointRouting"]),
    .target(
      name: "CrosspointCompression",
      dependencies: ["CrosspointCore", "CrosspointTokens", "CCrosspointKernels"]),
    .target(
      name: "CrosspointExchange",
      dependencies: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointCompression",
      ]),
    .target(
      name: "CrosspointPolicy",
      dependencies: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointCompression", "CrosspointExchange",
        "CrosspointFiles",
      ]),
    .target(
      name: "Crosspoint",
      dependencies: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointStages",
        "CrosspointCompression", "CrosspointExchange", "CrosspointPolicy", "CrosspointMPI",
      ]),

    .target(
      name: "CrosspointMetrics",
      dependencies: [
        "CrosspointExchange",
        .product(name: "Metrics", package: "swift-metrics", condition: .when(traits: ["Metrics"])),
      ]),

    // The tools.
    .target(name: "CrosspointFiles", dependencies: ["CrosspointCore"]),
    .target(
      name: "CrosspointOptions",
      dependencies: ["Crosspoint", "MPI", arguments]),
    .target(name: "CrosspointBaseline", dependencies: ["Crosspoint", "MPI"]),
    .executableTarget(
      name: "xpoint",
      dependencies: [
        "Crosspoint", "CrosspointBaseline", "CrosspointCore", "CrosspointTokens", "CrosspointOptions",
        "CrosspointFiles", "MPI", "CCrosspointKernels", arguments,
      ]),
    .target(
      name: "MoELM",
      dependencies: ["Crosspoint", "CrosspointBaseline", "CrosspointCore", "CrosspointFiles", "COpenBLAS", arguments]),
    .executableTarget(name: "moe-lm", dependencies: ["Crosspoint", "CrosspointOptions", "MoELM", arguments]),

    // Tests: no MPI runs in the test process; RankProgram holds what needs real ranks.
    .target(
      name: "CrosspointTestSupport",
      dependencies: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointCompression",
        "CrosspointExchange",
      ],
      path: "Tests/CrosspointTestSupport"),
    .target(name: "CAllocationCounter", path: "Tests/CAllocationCounter"),
    .executableTarget(
      name: "RankProgram",
      dependencies: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointStages",
        "CrosspointCompression", "CrosspointExchange", "CrosspointPolicy", "CrosspointMPI", "MPI", "MoELM",
        "CrosspointTestSupport", "CAllocationCounter",
      ],
      path: "Tests/RankProgram"),
    .testTarget(
      name: "CrosspointFabricTests", dependencies: ["CrosspointCore", "CrosspointFabric", "CrosspointTestSupport"]),
    .testTarget(
      name: "CrosspointTokensTests",
      dependencies: ["CrosspointCore", "CrosspointTokens", "CCrosspointKernels", "CrosspointTestSupport"]),
    .testTarget(
      name: "CrosspointRoutingTests",
      dependencies: ["CrosspointCore", "CrosspointTokens", "CrosspointRouting", "CrosspointTestSupport"]),
    .testTarget(
      name: "CrosspointStagesTests",
      dependencies: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointStages",
        "CrosspointExchange", "CrosspointTestSupport", "Snippets",
      ]),
    .testTarget(
      name: "CrosspointCompressionTests",
      dependencies: [
        "CrosspointCore", "CrosspointTokens", "CrosspointCompression", "CCrosspointKernels", "CrosspointTestSupport",
      ]),
    .testTarget(
      name: "CrosspointExchangeTests",
      dependencies: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointCompression",
        "CrosspointExchange", "CrosspointPolicy", "CrosspointTestSupport",
      ]),
    .testTarget(
      name: "CrosspointPolicyTests",
      dependencies: [
        "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointCompression",
        "CrosspointExchange", "CrosspointPolicy", "CrosspointFiles", "CrosspointTestSupport",
      ]),
    .testTarget(
      name: "CrosspointBaselineTests", dependencies: ["Crosspoint", "CrosspointBaseline", "CrosspointTestSupport"]),
    .testTarget(
      name: "XPointTests",
      dependencies: [
        "xpoint", "CrosspointCore", "CrosspointTokens", "CrosspointRouting", "CrosspointExchange", "CrosspointOptions",
        "CrosspointTestSupport", "MPI",
      ]),
    .testTarget(
      name: "CrosspointFilesTests", dependencies: ["CrosspointCore", "CrosspointFiles", "CrosspointTestSupport"]),
    .testTarget(name: "MoELMTests", dependencies: ["MoELM", "Crosspoint", "CrosspointTestSupport"]),
    // What launches programs and does not link them: RankProgram's malloc must not become that of the test process.
    .target(name: "LaunchSupport", path: "Tests/LaunchSupport"),
    .executableTarget(
      name: "CheckpointFuzz",
      dependencies: ["CrosspointCore", "CrosspointFabric", "CrosspointExchange", "CrosspointPolicy", "MoELM"],
      path: "Tests/CheckpointFuzz"),
    .executableTarget(
      name: "TraitsCheck",
      dependencies: [
        "CrosspointFabric", "CrosspointTokens", "CrosspointRouting", "CrosspointExchange", "CrosspointPolicy",
        "CrosspointMPI", "MPI", "CrosspointMetrics",
        .product(name: "MetricsTestKit", package: "swift-metrics", condition: .when(traits: ["Metrics"])),
        .product(name: "InMemoryLogging", package: "swift-log", condition: .when(traits: ["Logging"])),
        .product(name: "Logging", package: "swift-log", condition: .when(traits: ["Logging"])),
      ],
      path: "Tests/TraitsCheck"),
    .testTarget(name: "MPITests", dependencies: ["LaunchSupport"]),
    .testTarget(name: "ToolTests", dependencies: ["LaunchSupport"]),
    // What the documents show, compiled and run: ToolTests compares and launches it. It sees what a user sees.
    .executableTarget(
      name: "Snippets",
      dependencies: [
        "Crosspoint", "CrosspointExchange", "CrosspointFabric", "CrosspointRouting", "CrosspointTokens", "MPI",
      ],
      path: "Tests/Snippets", exclude: ["Manifest"], packageAccess: false),
  ],
  swiftLanguageModes: [.v6]
)

// The library for C, and so for Python: its functions are checked against crosspoint.h, which takes Swift 6.3.
#if compiler(>=6.3)
  package.products += [
    .library(name: "crosspoint", type: .dynamic, targets: ["CrosspointC"]),
    // What launch/install links, with the Swift runtime in it.
    .library(name: "crosspoint-archive", type: .static, targets: ["CrosspointC"]),
  ]
  package.targets += [
    .systemLibrary(name: "CCrosspoint"),
    .target(
      name: "CrosspointC",
      dependencies: [
        "CCrosspoint", "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting",
        "CrosspointExchange", "CrosspointPolicy", "CrosspointMPI", "MPI",
      ]),
    .executableTarget(
      name: "c-over-swift",
      dependencies: [
        "CCrosspoint", "CrosspointC", "CrosspointCore", "CrosspointFabric", "CrosspointTokens", "CrosspointRouting",
        "CrosspointExchange",
      ],
      path: "benchmarks/c_over_swift"),
  ]
#endif
