import ArgumentParser
import Crosspoint
@preconcurrency import Glibc
import MPI

extension ParsableCommand {
  /// Runs a tool: exit code 0 only on success, and an error is one line on stderr that says what to do.
  ///
  /// Under a launcher all ranks first compare what they are asked for. A mistake on the command line of one rank, or any
  /// other error, is printed by one rank, names the rank where it arose, and ends all of them; help is printed once.
  package static func runTool() -> Never {
    let tool = Tool(command: self)
    do {
      let request = Request(of: self)
      let world = MPIEnvironment.launchedRank == nil ? nil : try MPIFabric.world(deadline: request.deadline)
      tool.run(request, world)
    } catch {
      tool.say(error)
      leave(EXIT_FAILURE)
    }
  }
}

/// One run of a tool on one rank.
private struct Tool {
  let command: any ParsableCommand.Type

  func run(_ request: Request, _ world: MPIFabric?) -> Never {
    if let world { agree(request, on: world) }
    switch request {
    case .text(let text):
      end(world, text)
    case .mistake(let line, let code):
      say(line)
      leave(code.rawValue)
    case .command(var command):
      do {
        if let command = command as? any RankCommand { try run(command, world) }
        try command.run()
        end(world)
      } catch {
        // Help is what a command of the parser's own throws when it runs.
        if self.command.exitCode(for: error).isSuccess { end(world, self.command.fullMessage(for: error)) }
        end(world, error)
      }
    }
  }

  /// All ranks must be asked for the same, and be able to do it.
  private func agree(_ request: Request, on world: MPIFabric) {
    do {
      try world.together(operation: "arguments") { () throws(CrosspointError) in
        if case .mistake(let line, _) = request {
          throw CrosspointError(.invalidArgument, operation: "arguments", argument: "command line", line)
        }
        if world.rankCount > 1, case .command(let command as any RankCommand) = request, command.cluster != nil {
          throw CrosspointError(
            .invalidArgument, operation: "arguments", argument: type(of: command).name,
            "simulated ranks need no mpirun, which started \(world.rankCount) processes: leave one of the two out")
        }
      }
      try world.requireEqual([("command", "\(command.name) \(request.name)")], operation: "arguments")
    } catch {
      end(world, error, ExitCode.validationFailure.rawValue)
    }
  }

  private func run(_ command: some RankCommand, _ world: MPIFabric?) throws -> Never {
    if let cluster = command.cluster {
      let job = try command.job()
      try cluster.run { fabric in
        do { try job(fabric) } catch { throw named(error, fabric) }
      }
      end(world)
    }
    let fabric = try world ?? .world(deadline: command.deadline)
    do {
      let job = try fabric.together(operation: "arguments") { () throws(CrosspointError) in try command.job() }
      try job(fabric)
      end(fabric)
    } catch {
      end(fabric, error)
    }
  }

  /// Ends well, with a text that is asked for.
  private func end(_ fabric: MPIFabric?, _ text: String) -> Never {
    if fabric?.rank ?? 0 == 0 { print(text) }
    end(fabric)
  }

  /// Ends well, if what rank 0 has printed is written.
  private func end(_ fabric: MPIFabric?) -> Never {
    do {
      if let fabric {
        try fabric.onRoot(operation: "file", flushOutput)
        try fabric.finalize()
      } else {
        try flushOutput()
      }
    } catch {
      end(fabric, error)
    }
    leave(EXIT_SUCCESS)
  }

  /// Ends after an error: one rank says what it is before any rank leaves.
  private func end(_ fabric: MPIFabric?, _ error: any Error, _ code: Int32? = nil) -> Never {
    let code = code ?? command.exitCode(for: error).rawValue
    guard let fabric else {
      say(error)
      leave(code)
    }
    guard (error as? CrosspointError)?.isAgreed == true else {
      // Others may wait for this rank.
      fabric.abort(exitCode: code) { say(named(error, fabric)) }
    }
    if fabric.rank == 0 { say(error) }
    do { try fabric.finalize() } catch { fabric.abort(exitCode: code) }
    leave(code)
  }

  private func named(_ error: any Error, _ fabric: any Fabric) -> any Error {
    guard let error = error as? CrosspointError, error.rank == nil else { return error }
    return error.on(rank: fabric.rank)
  }

  func say(_ error: any Error) {
    say((error as? CrosspointError).map { "\($0)" } ?? command.line(for: error))
  }

  /// One line, written at once.
  private func say(_ line: String) {
    let text = Array("\(command.name): \(line)\n".utf8)
    _ = write(STDERR_FILENO, text, text.count)
  }
}

/// Finds out whether all that was printed could be written, which `print` does not say.
private func flushOutput() throws(CrosspointError) {
  let (flushed, cause) = (fflush(stdout), errno)
  guard flushed != 0 || ferror(stdout) != 0 else { return }
  let why = flushed != 0 ? String(cString: strerror(cause)) : "see whether its disk is full"
  throw CrosspointError(.file, operation: "file", argument: "standard output", "it cannot be written: \(why)")
}

/// The C library's `exit`, which ParsableCommand's own would hide.
private func leave(_ code: Int32) -> Never { exit(code) }
