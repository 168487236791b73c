import Testing

@testable import xpoint

@Test func percentilesAreNearestRank() {
  let samples = Samples([4, 1, 3, 2])
  #expect(samples.minimum == 1 && samples.maximum == 4)
  #expect(samples.median == 2)
  #expect(samples.percentile(99) == 4 && samples.percentile(0) == 1 && samples.percentile(75) == 3)
  #expect(Samples([7]).median == 7)
}

@Test func theSlowestRankDecidesEachTime() {
  let times = SlowestTimes([[1, 5, 1, 1][...], [2, 2, 2, 1][...]])
  #expect(times.seconds == [2, 5, 2, 1])
  #expect(times.rank == 0, "two each: the first of equals")
}

@Test func numbersKeepTheirPlaces() {
  #expect(0.0.fixed(3) == "0.000")
  #expect(1.0005.fixed(1) == "1.0")
  #expect(0.0456.fixed(2) == "0.05")
  #expect((-12.345).fixed(1) == "-12.3")
  #expect((-0.001).fixed(2) == "0.00")
  #expect(1234.5.fixed(0) == "1235")
}

@Test func columnsAreAlignedToTheRight() {
  var table = Table(columns: ["a", "long"])
  table.append(["123", "4"])
  #expect(table.text == "#   a  long\n  123     4")
}
