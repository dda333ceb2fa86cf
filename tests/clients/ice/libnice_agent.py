"""A full agent of libnice that is told what to do, as the one of aioice is.

Arguments: how it nominates (regular or aggressive), whether it asks for consent (consent or keepalive), how many
components.
"""

import ctypes
import sys
import threading

import gi
import json

gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice  # noqa: E402
from wire import Numbers, Tally, say  # noqa: E402

# How data arrives, and how bytes that are no text are sent, is not in the description of libnice's interface that
# PyGObject reads.
LIBRARY = ctypes.CDLL("libnice.so.10")
RECEIVE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
)
OPTIONS = {
    "regular": Nice.AgentOption.REGULAR_NOMINATION,
    "aggressive": Nice.AgentOption.NONE,
    "consent": Nice.AgentOption.CONSENT_FRESHNESS,
    "keepalive": Nice.AgentOption.NONE,
}


def text(candidate):
    host, port = candidate.addr.dup_string(), candidate.addr.get_port()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Agent:
    def __init__(self, context, nomination, liveness, components):
        self.components = range(1, components + 1)
        self.tally, self.number = Tally(), Numbers()
        self.agent = Nice.Agent.new_full(
            context, Nice.Compatibility.RFC5245, OPTIONS[nomination] | OPTIONS[liveness]
        )
        for name, value in [("controlling-mode", True), ("ice-tcp", False), ("upnp", False)]:
            self.agent.set_property(name, value)
        self.states, self.selected = {}, {}
        self.agent.connect("candidate-gathering-done", lambda *_: self.gathered())
        self.agent.connect("component-state-changed", self.on_state)
        self.agent.connect("new-selected-pair-full", self.on_selected)
        self.stream = self.agent.add_stream(components)
        self.receive = RECEIVE(self.on_data)
        self.pointer = ctypes.c_void_p(hash(self.agent))
        for component in self.components:
            assert LIBRARY.nice_agent_attach_recv(self.pointer, self.stream, component, None, self.receive, None)
        assert self.agent.gather_candidates(self.stream)

    def gathered(self):
        _, ufrag, pwd = self.agent.get_local_credentials(self.stream)
        candidates = [one for c in self.components for one in self.agent.get_local_candidates(self.stream, c)]
        lines = [self.agent.generate_local_candidate_sdp(one).removeprefix("a=") for one in candidates]
        say("gathered", ufrag=ufrag, pwd=pwd, candidates=lines)

    def restart(self):
        assert self.agent.restart_stream(self.stream)
        self.states = {}
        self.gathered()

    def connect(self, ufrag, pwd, candidates, lite=True, end=True):
        """It has no way to be told of a lite side, and needs none: it stays in its role, and never waits for checks."""
        assert self.agent.set_remote_credentials(self.stream, ufrag, pwd)
        for component in self.components:
            # What is behind the address in a candidate, PyGObject looks for at the wrong place.
            lines = [line for line in candidates if int(line.split()[1]) == component]
            parsed = [self.agent.parse_remote_candidate_sdp(self.stream, f"a={line}") for line in lines]
            assert self.agent.set_remote_candidates(self.stream, component, parsed) == len(lines)
        if end:
            self.agent.peer_candidate_gathering_done(self.stream)

    def on_selected(self, _agent, _stream, component, local, remote):
        self.selected[component] = {"local": text(local), "remote": text(remote)}

    def on_state(self, _agent, _stream, component, state):
        self.states[component] = state
        if state == Nice.ComponentState.FAILED:
            say("failed", why=f"component {component}")
        if all(self.states.get(c) == Nice.ComponentState.READY for c in self.components):
            self.say_selected("connected")

    def say_selected(self, event, **values):
        say(event, selected=self.selected, **values)

    def on_data(self, _agent, _stream, _component, length, data, _):
        self.tally.add(ctypes.string_at(data, length))

    def send(self, count, interval=0.005, component=1):
        left = iter(range(count))

        def one():
            if next(left, None) is None:
                say("sent", count=count)
                return False
            data = self.number()
            sent = LIBRARY.nice_agent_send(self.pointer, self.stream, component, len(data), data)
            assert sent == len(data), sent
            return True

        GLib.timeout_add(max(1, round(interval * 1000)), one)

    def report(self):
        ready = all(self.states.get(c) == Nice.ComponentState.READY for c in self.components)
        self.say_selected("report", **self.tally.counts(), open=ready)


def main(nomination="regular", liveness="consent", components=1):
    loop = GLib.MainLoop()
    agent = Agent(loop.get_context(), nomination, liveness, int(components))

    def obey(command):
        name = command.pop("do")
        loop.quit() if name == "end" else getattr(agent, name)(**command)
        return False

    def listen():
        for line in sys.stdin:
            GLib.idle_add(obey, json.loads(line))
        GLib.idle_add(obey, {"do": "end"})

    threading.Thread(target=listen, daemon=True).start()
    loop.run()


main(*sys.argv[1:])
