import CrosspointCore
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import Snippets

@Suite("A stage of the user's own")
struct UserStageTests {
  @Test func keepsLoudRowsAndLeavesQuietOnesBitForBit() throws {
    let values: [Float] = [-0.0, 0.5, 2, 0, 0.25, -0.0, 0, -3]
    let tokens = try TokenBatch(values, hidden: 2)
    let pipeline = try TokenPipeline([QuietRows(floor: 1)], causal: true)
    let rows = try pipeline.reduce(
      tokens, RowLayout(tokensPerSequence: [1, 3]), StageContext(step: 0, isTraining: true))
    #expect(rows.tokens.array == [2, 0, 0, -3])
    #expect(rows.layout.rowsPerSequence == [0, 2])
    #expect(pipeline.statistics[0].rowsIn == 4 && pipeline.statistics[0].rowsOut == 2)

    var y = try pipeline.expand(TokenBatch([10, 20, 30, 40], hidden: 2))
    try y.add(tokens)
    #expect(firstBitDifference(y.array, [-0.0, 0.5, 12, 20, 0.25, -0.0, 30, 37]) == nil)

    let dy = try TokenBatch([1, 2, 3, 4, 5, 6, 7, 8], hidden: 2)
    let dOutputs = try pipeline.expandBackward(dy)
    #expect(dOutputs.array == [3, 4, 7, 8])
    #expect(try pipeline.reduceBackward(dOutputs, tokens: tokens).array == [0, 0, 3, 4, 0, 0, 7, 8])
  }
}
