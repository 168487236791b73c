import ArgumentParser
import Crosspoint
import CrosspointFiles
import CrosspointOptions

struct BenchCodec: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "codec",
    abstract: "Times encoding and decoding of every wire format on one core, beside a plain memory copy.",
    discussion: """
      Speeds are GB/s of fp32 input; x copy is the speed as a fraction of a memory copy of the same rows, timed in turn. \
      Bytes are those of one frame with one group, header included; error is |y - x| / |x| over all rows.

      Examples:
        xpoint bench codec
        xpoint bench codec --input X.npy --json codec.json
        for k in scalar avx2 avx512; do xpoint bench codec --kernels $k; done
      """)

  @Option(
    help: ArgumentHelp("Formats to try; all if left out.", valueName: "format"),
    transform: reading(WireFormat.init(named:)))
  var wire: [WireFormat] = []
  @OptionGroup var common: LocalBenchArguments

  func run() throws {
    try common.chooseKernels()
    let rows = try common.batch()
    let copy = try TokenBatch(rows: rows.rows, hidden: rows.hidden)
    let decoded = try TokenBatch(rows: rows.rows, hidden: rows.hidden)
    let codec = try RowCodec(hidden: rows.hidden, seed: common.seed, pool: BufferPool())
    let source = [RowSource(base: rows.base, rows: rows.rows)]
    let target = [RowTarget(base: decoded.base, rows: rows.rows)]
    let inputBytes = Double(4 * rows.elements.count)
    var table = Table(columns: [
      "format", "bytes", "bytes/bf16", "error", "encode(GB/s)", "x copy", "decode(GB/s)", "x copy", "copy(GB/s)",
    ])
    var records: [BenchRecord] = []
    for format in wire.isEmpty ? WireFormat.all : wire {
      let bytes = codec.maximumFrameBytes(format, rows: rows.rows, groups: 1)
      let frame = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
      defer { frame.deallocate() }
      var size = 0
      let encode = try common.time(copying: rows, to: copy) {
        size = try codec.encode(source, as: format, into: frame)
      }
      let decode = try common.time(copying: rows, to: copy) {
        try codec.decode(UnsafeRawBufferPointer(rebasing: frame[..<size]), into: target)
      }
      table.append([
        "\(format)", "\(size)", (Double(size) / (inputBytes / 2)).fixed(4), error(of: decoded, rows).fixed(6),
        (inputBytes / encode.job.median).gigabytes, encode.ratio.median.fixed(2),
        (inputBytes / decode.job.median).gigabytes, decode.ratio.median.fixed(2),
        (inputBytes / encode.copy.median).gigabytes,
      ])
      for (op, implementation, seconds, bytes) in [
        ("encode", "crosspoint/\(kernelName)", encode.job, size), ("encode", "memcpy", encode.copy, Int(inputBytes)),
        ("decode", "crosspoint/\(kernelName)", decode.job, size), ("decode", "memcpy", decode.copy, Int(inputBytes)),
      ] {
        records.append(
          BenchRecord(
            op: op, implementation: implementation, tokensPerRank: rows.rows, hidden: rows.hidden,
            pattern: "\(format)", bytes: bytes, seconds: seconds))
      }
    }
    print("# kernels: \(kernelName); \(rows.rows) rows of \(rows.hidden); \(common.iterations) timed runs")
    print(table.text)
    try common.output.write(records)
  }

  private func error(of y: borrowing TokenBatch, _ x: borrowing TokenBatch) -> Double {
    var (difference, norm) = (0.0, 0.0)
    for index in x.elements.indices {
      let (value, other) = (Double(x.elements[index]), Double(y.elements[index]))
      difference += (other - value) * (other - value)
      norm += value * value
    }
    return norm == 0 ? difference.squareRoot() : (difference / norm).squareRoot()
  }
}
