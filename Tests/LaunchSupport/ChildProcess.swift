import Foundation

/// A program in a process of its own, started by posix_spawn: Foundation's `Process` crashes now and then where many tests
/// start programs at a time.
final class ChildProcess {
  let id: Int32
  private var status: Int32?

  /// - Parameters:
  ///   - output: files that take standard output and errors; any amount without a reader, unlike pipes.
  ///   - folder: where it works.
  init(
    _ program: String, _ arguments: [String], environment: [String: String], output: String, errors: String,
    folder: String
  ) throws {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT, 0o600)
    // The threads that tests run in block signals.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var (none, all) = (sigset_t(), sigset_t())
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    // `env` goes to the folder and becomes the program.
    let words = (["env", "-C", folder, program] + arguments).map { strdup($0) } + [nil]
    let variables = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for text in words + variables { free(text) } }
    var id: pid_t = 0
    let error = posix_spawn(&id, "/usr/bin/env", &actions, &attributes, words, variables)
    guard error == 0 else { throw LaunchFailure("\(program): \(String(cString: strerror(error)))") }
    self.id = id
  }

  var isRunning: Bool {
    guard status == nil else { return false }
    var word: Int32 = 0
    guard waitpid(id, &word, WNOHANG) == id else { return true }
    status = word
    return false
  }

  /// The exit code, or the number of the signal that ended it; once it has ended.
  var code: Int32 { status.map { $0 & 0x7f == 0 ? $0 >> 8 & 0xff : $0 & 0x7f } ?? -1 }
}
