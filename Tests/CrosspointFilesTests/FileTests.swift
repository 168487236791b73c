import CrosspointCore
import CrosspointTestSupport
import Foundation
import Testing

@testable import CrosspointFiles

/// The error that `body` throws, which must be one line that names the path.
func failure(_ path: String, _ body: () throws -> Void) -> CrosspointError? {
  let error = #expect(throws: CrosspointError.self, "\(path)") { try body() }
  #expect(error?.code == .file)
  #expect(error?.message.hasPrefix(path) == true, "\(error?.message ?? "")")
  #expect(error?.message.contains("\n") == false)
  return error
}

@Suite struct FileReaderTests {
  @Test func aFileIsReadWholeAndInPieces() throws {
    let folder = try TemporaryFolder()
    let bytes = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 * 7) }
    try Data(bytes).write(to: URL(fileURLWithPath: folder.file("a")))
    #expect(try readFile(folder.file("a"), argument: "data") == bytes)
    let reader = try FileReader(folder.file("a"), argument: "data")
    #expect(reader.size == bytes.count)
    #expect(try reader.read(5) == Array(bytes[..<5]))
    #expect(try reader.read(7) == Array(bytes[5..<12]))
    #expect(failure(folder.file("a")) { _ = try reader.read(bytes.count) }?.message.contains("ends early") == true)
    #expect(FileManager.default.createFile(atPath: folder.file("empty"), contents: nil))
    #expect(try readFile(folder.file("empty"), argument: "data").isEmpty)
  }

  /// A FIFO without a writer would block for ever, /dev/zero never ends.
  @Test func whatIsNoRegularFileIsRefusedAtOnce() throws {
    let folder = try TemporaryFolder()
    #expect(mkfifo(folder.file("fifo"), 0o600) == 0)
    for (path, what) in [
      (folder.file("fifo"), "a FIFO"), ("/dev/zero", "a character device"), (folder.path, "a folder"),
      (folder.file("none"), "No such file"),
    ] {
      let error = failure(path) { _ = try readFile(path, argument: "data") }
      #expect(error?.message.contains(what) == true, "\(error?.message ?? "")")
      #expect(error?.argument == "data")
    }
  }

  @Test func aFileLargerThanMemoryIsRefused() throws {
    let folder = try TemporaryFolder()
    #expect(FileManager.default.createFile(atPath: folder.file("sparse"), contents: nil))
    try #require(truncate(folder.file("sparse"), 1 << 43) == 0)
    let error = #expect(throws: CrosspointError.self) { try readFile(folder.file("sparse"), argument: "data") }
    #expect(error?.code == .outOfMemory)
  }
}

@Suite struct WriteFileTests {
  @Test func aFileIsMadeAndReplacedWithNothingBesideIt() throws {
    let folder = try TemporaryFolder()
    for text in ["one", "", "a longer one"] {
      try writeFile(folder.file("a"), Array(text.utf8), argument: "json")
      #expect(try folder.text("a") == text)
      #expect(folder.names == ["a"])
    }
    #expect(chmod(folder.file("a"), 0o640) == 0)
    try writeFile(folder.file("a"), [1], argument: "json")
    #expect(FileStatus(folder.file("a")).map { $0.mode & 0o777 } == 0o640)
  }

  @Test func linksAreFollowedAndStay() throws {
    let folder = try TemporaryFolder()
    try FileManager.default.createDirectory(atPath: folder.file("inner"), withIntermediateDirectories: false)
    for (name, target) in [("link", "inner/a"), ("second", "link"), ("dangling", folder.file("inner/new"))] {
      #expect(symlink(target, folder.file(name)) == 0)
    }
    try writeFile(folder.file("link"), Array("1".utf8), argument: "json")
    #expect(try folder.text("inner/a") == "1")
    try writeFile(folder.file("second"), Array("2".utf8), argument: "json")
    #expect(try folder.text("inner/a") == "2")
    try writeFile(folder.file("dangling"), Array("3".utf8), argument: "json")
    #expect(try folder.text("inner/new") == "3")
    for name in ["link", "second", "dangling"] {
      #expect(
        try FileManager.default.attributesOfItem(atPath: folder.file(name))[.type] as? FileAttributeType
          == .typeSymbolicLink)
    }
    #expect(symlink("loop", folder.file("loop")) == 0)
    #expect(failure(folder.file("loop")) { try writeFile(folder.file("loop"), [1], argument: "json") } != nil)
  }

  @Test func devicesAndFIFOsAreWrittenTo() throws {
    try writeFile("/dev/null", [1, 2, 3], argument: "json")
    #expect(FileStatus("/dev/null")?.kind == "a character device")

    let folder = try TemporaryFolder()
    #expect(mkfifo(folder.file("fifo"), 0o600) == 0)
    // Without a reader there is nobody to wait for.
    #expect(failure(folder.file("fifo")) { try writeFile(folder.file("fifo"), [1], argument: "json") } != nil)
    let reader = open(folder.file("fifo"), O_RDONLY | O_NONBLOCK)
    try writeFile(folder.file("fifo"), Array("through".utf8), argument: "json")
    var bytes = [UInt8](repeating: 0, count: 16)
    let count = read(reader, &bytes, 16)
    #expect(String(decoding: bytes.prefix(max(0, count)), as: UTF8.self) == "through")
    let writer = try LineWriter(folder.file("fifo"), argument: "metrics")
    close(reader)
    // An error, and no signal that ends the process.
    #expect(
      failure(folder.file("fifo")) { try writer.append(Array("late".utf8)) }?.message.contains("Broken pipe") == true)
    #expect(folder.names == ["fifo"])
  }

  @Test func aReaderThatTakesNothingIsAnErrorOnceThePatienceIsOver() throws {
    let folder = try TemporaryFolder()
    #expect(mkfifo(folder.file("fifo"), 0o600) == 0)
    let reader = open(folder.file("fifo"), O_RDONLY | O_NONBLOCK)
    defer { close(reader) }
    let writer = try LineWriter(folder.file("fifo"), argument: "metrics", patience: .milliseconds(50))
    let error = failure(folder.file("fifo")) { try writer.append([UInt8](repeating: 65, count: 1 << 20)) }
    #expect(error?.message.contains("has a reader that has taken nothing for") == true)
  }

  /// Opened anew, it would be written from its start again.
  @Test func anOpenDescriptorIsWrittenToWhereItStands() throws {
    let folder = try TemporaryFolder()
    let descriptor = open(folder.file("out"), O_WRONLY | O_CREAT, 0o600)
    defer { close(descriptor) }
    #expect(write(descriptor, "before ", 7) == 7)
    try writeFile("/dev/fd/\(descriptor)", Array("it ".utf8), argument: "json")
    #expect(write(descriptor, "behind", 6) == 6)
    #expect(try folder.text("out") == "before it behind")
    #expect(try FileDestination("/dev/stdout", argument: "json") == .descriptor(1))
  }

  @Test func aFullDiskIsNamedAndLeavesNothing() throws {
    #expect(
      failure("/dev/full") { try writeFile("/dev/full", [1], argument: "summary") }?.message
        .contains("No space left on device") == true)
    let writer = try LineWriter("/dev/full", argument: "metrics")
    #expect(failure("/dev/full") { try writer.append([1]) } != nil)
  }

  @Test func placesWhereNothingCanBeWrittenAreNamed() throws {
    let folder = try TemporaryFolder()
    #expect(FileManager.default.createFile(atPath: folder.file("a"), contents: nil))
    for path in ["/nowhere/at/all", folder.path, "", "/proc/self/new", folder.file("a/b"), "/proc/version"] {
      #expect(failure(path) { try writeFile(path, [1], argument: "json") } != nil)
    }
  }
}
