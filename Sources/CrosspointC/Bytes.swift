// swift-format-ignore-file: AlwaysUseLowerCamelCase
// Names are those of crosspoint.h.

public import CCrosspoint
import CrosspointCore
import CrosspointFabric

@c @implementation
public func crosspoint_fabric_exchange(
  _ fabric: OpaquePointer?, _ send: UnsafePointer<UnsafeRawPointer?>?, _ sendBytes: UnsafePointer<Int64>?,
  _ receive: UnsafePointer<UnsafeMutableRawPointer?>?, _ receiveBytes: UnsafePointer<Int64>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_fabric_exchange"
    let owner: RankOfC = try object(fabric, operation, "fabric")
    let tables: [(Bool, String)] = [
      (send == nil, "send"), (sendBytes == nil, "send_bytes"), (receive == nil, "receive"),
      (receiveBytes == nil, "receive_bytes"),
    ]
    for (isMissing, argument) in tables where isMissing { throw invalid(operation, argument, "it is NULL") }
    owner.send.removeAll(keepingCapacity: true)
    owner.receive.removeAll(keepingCapacity: true)
    for peer in 0..<owner.fabric.rankCount {
      let sent = try size(sendBytes![peer], at: send![peer], of: peer, operation, "send")
      owner.send.append(UnsafeRawBufferPointer(start: send![peer], count: sent))
      let received = try size(receiveBytes![peer], at: receive![peer], of: peer, operation, "receive")
      owner.receive.append(UnsafeMutableRawBufferPointer(start: receive![peer], count: received))
    }
    try owner.fabric.exchange(send: owner.send, receive: owner.receive, operation: "exchange")
  }
}

private func size(
  _ bytes: Int64, at place: UnsafeRawPointer?, of peer: Int, _ operation: String, _ argument: String
) throws(CrosspointError) -> Int {
  guard bytes >= 0, bytes == 0 || place != nil else {
    throw invalid(operation, argument, "\(bytes) bytes at \(place == nil ? "NULL" : "an address") for rank \(peer)")
  }
  return Int(bytes)
}
