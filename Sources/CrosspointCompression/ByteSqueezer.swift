import CZstd
import CrosspointCore

/// zstd at level 1, with contexts that are made once and kept.
final class ByteSqueezer {
  private let compressor: OpaquePointer
  private let decompressor: OpaquePointer

  init() throws(CrosspointError) {
    guard let compressor = ZSTD_createCCtx() else { throw Self.outOfMemory }
    guard let decompressor = ZSTD_createDCtx() else {
      ZSTD_freeCCtx(compressor)
      throw Self.outOfMemory
    }
    ZSTD_CCtx_setParameter(compressor, ZSTD_c_compressionLevel, 1)
    self.compressor = compressor
    self.decompressor = decompressor
  }

  deinit {
    ZSTD_freeCCtx(compressor)
    ZSTD_freeDCtx(decompressor)
  }

  /// Compresses `count` bytes into at most `capacity`; `nil` if they do not fit.
  func compress(
    _ bytes: UnsafeRawPointer, _ count: Int, into out: UnsafeMutableRawPointer, capacity: Int
  ) -> Int? {
    let size = ZSTD_compress2(compressor, out, capacity, bytes, count)
    return ZSTD_isError(size) == 0 ? size : nil
  }

  /// Decompresses into exactly `count` bytes; `false` for anything else.
  func decompress(
    _ bytes: UnsafeRawPointer, _ size: Int, into out: UnsafeMutableRawPointer, _ count: Int
  ) -> Bool {
    let found = ZSTD_decompressDCtx(decompressor, out, count, bytes, size)
    return ZSTD_isError(found) == 0 && found == count
  }

  private static let outOfMemory = CrosspointError(
    .outOfMemory, operation: "RowCodec", argument: "zstd", "no memory for a zstd context")
}
