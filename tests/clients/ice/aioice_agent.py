"""A full agent of aioice that is told what to do.

Arguments: how many components. It says its description as soon as it has one ("gathered"), and again for each restart.
aioice knows no restart: a new connection with credentials of its own takes the place of the old one once it is there,
which is the same to the other side.
"""

import asyncio
import logging
import os
import sys

import aioice
from wire import Numbers, Tally, obey, say

PATIENCE = 20


def text(address):
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Agent:
    def __init__(self, components):
        self.components = components
        self.connection = self.old = None
        self.readers = set()
        self.tally, self.number = Tally(), Numbers()

    async def restart(self):
        """Gathers: at the beginning, and for each restart."""
        self.old = self.connection
        self.connection = aioice.Connection(ice_controlling=True, components=self.components)
        await self.connection.gather_candidates()
        say(
            "gathered",
            ufrag=self.connection.local_username,
            pwd=self.connection.local_password,
            candidates=[f"candidate:{one.to_sdp()}" for one in self.connection.local_candidates],
        )

    async def connect(self, ufrag, pwd, candidates, lite=True, end=True):
        one = self.connection
        one.remote_username, one.remote_password, one.remote_is_lite = ufrag, pwd, lite
        for line in candidates:
            await one.add_remote_candidate(aioice.Candidate.from_sdp(line.removeprefix("candidate:")))
        if end:
            await one.add_remote_candidate(None)
        try:
            await asyncio.wait_for(one.connect(), PATIENCE)
        except (ConnectionError, asyncio.TimeoutError) as error:
            say("failed", why=repr(error))
            return
        self.readers.add(asyncio.create_task(self.read(one)))
        old, self.old = self.old, None
        if old:
            await old.close()
        self.say_selected("connected")

    def say_selected(self, event, **values):
        pairs = self.connection._nominated.items()
        ways = {c: {"local": text(pair.local_addr), "remote": text(pair.remote_addr)} for c, pair in pairs}
        say(event, selected=ways, **values)

    async def read(self, connection):
        while True:
            try:
                data, _component = await connection.recvfrom()
            except ConnectionError:
                return
            self.tally.add(data)

    async def send(self, count, interval=0.005, component=1):
        for _ in range(count):
            await self.connection.sendto(self.number(), component)
            await asyncio.sleep(interval)
        say("sent", count=count)

    async def report(self):
        self.say_selected("report", **self.tally.counts(), open=not self.connection._closed)

    async def move(self, address):
        """Nominates the pair of another of its addresses, as agents do that follow their host through networks.

        aioice by itself never does: it stays with its first choice.
        """
        one = self.connection
        for component, pair in list(one._nominated.items()):
            protocol = next(
                protocol
                for protocol in one._protocols
                if protocol.local_candidate.host == address and protocol.local_candidate.component == component
            )
            remote = next(
                candidate
                for candidate in [pair.remote_candidate, *one.remote_candidates]
                if candidate.component == component and (":" in candidate.host) == (":" in address)
            )
            other = aioice.ice.CandidatePair(protocol, remote)
            request = one.build_request(other, nominate=True)
            await protocol.request(request, other.remote_addr, integrity_key=one.remote_password.encode())
            one._nominated[component] = other
        self.say_selected("moved")


async def main(components=1):
    agent = Agent(int(components))
    await agent.restart()
    await obey(agent)
    if agent.connection:
        await agent.connection.close()


if os.environ.get("AGENT_DEBUG"):
    logging.basicConfig(level=logging.DEBUG)
asyncio.run(main(*sys.argv[1:]))
