"""Two agents of libnice that may use relayed candidates only send each other datagrams.

Arguments: address, port, user, password, transport (udp or tcp). Prints what arrived, as a line of JSON. What libnice
calls TLS is plain TCP, unless it imitates the dialect of somebody else.
"""

import ctypes
import json
import sys

import gi

gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice  # noqa: E402

MESSAGES = 50
PATIENCE = 30
# How data arrives is not in the description of libnice's interface that PyGObject reads.
LIBRARY = ctypes.CDLL("libnice.so.10")
RECEIVE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
)
RELAYS = {"udp": Nice.RelayType.UDP, "tcp": Nice.RelayType.TCP}


class Agent:
    def __init__(self, loop, name, controlling, server, user, password, relay):
        self.name, self.loop = name, loop
        self.gathered = self.ready = False
        self.arrived = []
        self.agent = Nice.Agent.new(loop.get_context(), Nice.Compatibility.RFC5245)
        self.agent.set_property("controlling-mode", controlling)
        self.agent.set_property("force-relay", True)
        self.agent.set_property("ice-tcp", False)
        self.agent.set_property("upnp", False)
        local = Nice.Address.new()
        assert local.set_from_string(server[0])
        self.agent.add_local_address(local)
        self.agent.connect("candidate-gathering-done", self.on_gathered)
        self.agent.connect("component-state-changed", self.on_state)
        self.stream = self.agent.add_stream(1)
        assert self.agent.set_relay_info(self.stream, 1, *server, user, password, relay)
        self.receive = RECEIVE(self.on_data)
        pointer = ctypes.c_void_p(hash(self.agent))
        assert LIBRARY.nice_agent_attach_recv(pointer, self.stream, 1, None, self.receive, None)
        assert self.agent.gather_candidates(self.stream)

    def on_gathered(self, *_):
        self.gathered = True

    def on_state(self, _agent, _stream, _component, state):
        assert state != Nice.ComponentState.FAILED, f"{self.name} found no way"
        self.ready = state == Nice.ComponentState.READY

    def on_data(self, _agent, _stream, _component, length, data, _):
        self.arrived.append(ctypes.string_at(data, length).decode())

    def candidates(self):
        found = self.agent.get_local_candidates(self.stream, 1)
        assert found and all(one.type == Nice.CandidateType.RELAYED for one in found), [one.type for one in found]
        return found

    def learn(self, other):
        _, user, password = other.agent.get_local_credentials(other.stream)
        assert self.agent.set_remote_credentials(self.stream, user, password)
        assert self.agent.set_remote_candidates(self.stream, 1, other.candidates()) > 0

    def send(self, text):
        sent = self.agent.send(self.stream, 1, len(text), text)
        assert sent == len(text), sent


def main(address, port, user, password, transport):
    loop = GLib.MainLoop()
    give_up = []
    GLib.timeout_add_seconds(PATIENCE, lambda: give_up.append(True))

    def until(what, is_so):
        while not is_so():
            assert not give_up, f"this did not become true: {what}"
            loop.get_context().iteration(True)

    agents = [
        Agent(loop, name, controlling, (address, int(port)), user, password, RELAYS[transport])
        for name, controlling in [("one", True), ("other", False)]
    ]
    until("both have candidates", lambda: all(agent.gathered for agent in agents))
    for agent, other in [agents, agents[::-1]]:
        agent.learn(other)
    until("both have a way", lambda: all(agent.ready for agent in agents))
    for number in range(1, MESSAGES + 1):
        text = f"{number}".ljust(number * 20, ".")
        for agent, other in [agents, agents[::-1]]:
            agent.send(text)
            until(f"message {number}", lambda: len(other.arrived) == number)
            assert other.arrived[-1] == text, other.arrived[-1]
    arrived = sum(len(agent.arrived) for agent in agents)
    closed = []
    for agent in agents:
        agent.agent.close_async(lambda *_: closed.append(True))
    until("both allocations are given back", lambda: len(closed) == 2)
    print(json.dumps({"arrived": arrived}))


main(*sys.argv[1:])
