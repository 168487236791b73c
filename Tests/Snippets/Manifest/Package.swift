// snippet: manifest
// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "Trainer",
  dependencies: [.package(name: "crosspoint", path: "../crosspoint")],
  targets: [
    .executableTarget(
      name: "Trainer", dependencies: [.product(name: "Crosspoint", package: "crosspoint")])
  ]
)
// end
