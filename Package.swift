// swift-tools-version: 6.1
import PackageDescription

// The rooms of the house, lowest first. Arrows point down only; docs/architecture.md says what each may know.
// No unsafeFlags anywhere: other packages can depend on this one.

let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")

let package = Package(
  name: "crosspoint",
  products: [
    .library(name: "Crosspoint", targets: ["Crosspoint"]),
    .library(name: "MPI", targets: ["MPI"]),
    .executable(name: "xpoint", targets: ["xpoint"]),
    .executable(name: "moe-lm", targets: ["moe-lm"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
  ],
  targets: [
    // System libraries: module maps and static-inline shims, nothing else.
    .systemLibrary(name: "CMPI", pkgConfig: "ompi-c", providers: [.apt(["libopenmpi-dev", "openmpi-bin"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),

    // C kernels, one body per operation compiled for several instruction sets.
    .target(name: "CCrosspointKernels"),

    // The library.
    .target(name: "CrosspointCore"),
    .target(name: "MPI", dependencies: ["CMPI"]),
    .target(name: "CrosspointFabric", dependencies: ["CrosspointCore"]),
    .target(name: "CrosspointMPI", dependencies: ["CrosspointFabric", "MPI"]),
    .target(name: "CrosspointTokens", dependencies: ["CrosspointCore", "CCrosspointKernels"]),
    .target(name: "CrosspointRouting", dependencies: ["CrosspointTokens"]),
    .target(name: "CrosspointCompression", dependencies: ["CrosspointTokens", "CZstd"]),
    .target(
      name: "CrosspointExchange", dependencies: ["CrosspointFabric", "CrosspointRouting", "CrosspointCompression"]),
    .target(name: "Crosspoint", dependencies: ["CrosspointExchange", "CrosspointMPI"]),

    // The tools.
    .target(name: "CrosspointOptions", dependencies: ["CrosspointExchange", arguments]),
    .executableTarget(
      name: "xpoint", dependencies: ["Crosspoint", "CrosspointOptions", "CMPI", "CZstd", arguments, logging]),
    .target(name: "MoELM", dependencies: ["Crosspoint", "COpenBLAS"]),
    .executableTarget(
      name: "moe-lm", dependencies: ["MoELM", "CrosspointOptions", arguments, logging], path: "Sources/moe-lm"),

    // Tests: no MPI runs in the test process; RankProgram holds what needs real ranks.
    .target(name: "CrosspointTestSupport", dependencies: ["CrosspointExchange"], path: "Tests/CrosspointTestSupport"),
    .executableTarget(
      name: "RankProgram", dependencies: ["Crosspoint", "CrosspointTestSupport", "CAllocationCounter"],
      path: "Tests/RankProgram"),
    .target(name: "CAllocationCounter", path: "Tests/CAllocationCounter"),
    .testTarget(name: "CrosspointFabricTests", dependencies: ["CrosspointFabric", "CrosspointTestSupport"]),
    .testTarget(name: "CrosspointTokensTests", dependencies: ["CrosspointTokens", "CrosspointTestSupport"]),
    .testTarget(name: "CrosspointRoutingTests", dependencies: ["CrosspointRouting", "CrosspointTestSupport"]),
    .testTarget(name: "CrosspointCompressionTests", dependencies: ["CrosspointCompression", "CrosspointTestSupport"]),
    .testTarget(name: "CrosspointExchangeTests", dependencies: ["CrosspointExchange", "CrosspointTestSupport"]),
    .testTarget(name: "XPointTests", dependencies: ["xpoint"]),
    .testTarget(name: "MoELMTests", dependencies: ["MoELM", "CrosspointTestSupport"]),
    .testTarget(name: "MPITests", dependencies: ["CrosspointTestSupport"]),
  ],
  swiftLanguageModes: [.v6]
)
