"""Two peers of libdatachannel (with libjuice) that tell each other their relayed candidates only.

Arguments: address, port, user, password. libjuice reaches TURN servers over UDP only. Prints what came back, as JSON.
"""

import json
import os
import queue
import sys

import pylibdatachannel as rtc

MESSAGES = 50
PATIENCE = 30


def main(address, port, user, password):
    server = rtc.IceServer(address, int(port), user, password, rtc.IceServerRelayType.TURN_UDP)
    caller, callee = (rtc.PeerConnection(rtc.Configuration([server])) for _ in range(2))
    descriptions, told = queue.Queue(), queue.Queue()
    for side, other in [(caller, callee), (callee, caller)]:
        side.on_local_description(lambda description, other=other: descriptions.put((other, description)))
        side.on_local_candidate(lambda candidate, other=other: told.put((other, candidate)))
    back, opened, kept = queue.Queue(), queue.Queue(), []

    def on_data_channel(channel):
        kept.append(channel)
        channel.on_message(lambda message: channel.send(message))

    callee.on_data_channel(on_data_channel)
    channel = caller.create_data_channel("messages")
    channel.on_open(lambda: opened.put(True))
    channel.on_message(back.put)

    for _ in range(2):
        other, description = descriptions.get(timeout=PATIENCE)
        assert "a=candidate" not in description.description, description.description
        other.set_remote_description(description)
    relayed = set()
    while len(relayed) < 2:
        other, candidate = told.get(timeout=PATIENCE)
        if " typ relay" in candidate.candidate:
            other.add_remote_candidate(candidate)
            relayed.add(id(other))
    opened.get(timeout=PATIENCE)
    sent = [f"{number}".ljust(number * 20, ".") for number in range(1, MESSAGES + 1)]
    for message in sent:
        channel.send(message)
    assert [back.get(timeout=PATIENCE) for _ in sent] == sent
    ended = queue.Queue()
    for side in [caller, callee]:
        side.on_state_change(lambda state: state == rtc.State.CLOSED and ended.put(True))
        side.close()
    for _ in range(2):
        ended.get(timeout=PATIENCE)
    print(json.dumps({"messages": len(sent)}), flush=True)
    # The threads of the library outlive what Python destroys in an order of its own.
    os._exit(0)


main(*sys.argv[1:])
