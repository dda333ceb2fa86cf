"""aioice through a TURN server: to a peer that knows nothing of it, and between two agents with relayed candidates only.

Arguments: address, port, user, password, transport (udp, tcp or tls). Prints what came back, as a line of JSON.
"""

import asyncio
import json
import socket
import sys

import aioice
from aioice import turn

SIZES = [1, 2, 3, 4, 5, 100, 101, 1000, 1200]
ROUNDS = 5


class Inbox(asyncio.DatagramProtocol):
    def __init__(self):
        self.queue = asyncio.Queue()

    def datagram_received(self, data, source):
        self.queue.put_nowait((bytes(data), tuple(source[:2])))

    def error_received(self, error):
        self.queue.put_nowait((error, None))


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
        self.sources = set()

    def datagram_received(self, data, source):
        self.sources.add(tuple(source[:2]))
        self.transport.sendto(data, source)


async def to_a_peer(server, user, password, transport):
    """Every datagram must come back as it was, from the peer, which must have seen the relayed address."""
    loop = asyncio.get_running_loop()
    relay, inbox = await turn.create_turn_endpoint(
        Inbox,
        server_addr=server,
        username=user,
        password=password,
        ssl=True if transport == "tls" else None,
        transport="udp" if transport == "udp" else "tcp",
    )
    # Whatever the family of the way to the server: aioice does not ask for one, which means IPv4.
    relayed = relay.get_extra_info("sockname")
    peer, echo = await loop.create_datagram_endpoint(Echo, local_addr=(relayed[0], 0))
    peer_address = peer.get_extra_info("sockname")[:2]
    back = 0
    for number in range(ROUNDS):
        for size in SIZES:
            data = bytes((number + size + i) % 256 for i in range(size))
            relay.sendto(data, peer_address)
            arrived = await inbox.queue.get()
            assert arrived == (data, peer_address), (size, number, arrived)
            back += 1
    assert echo.sources == {tuple(relayed)}, (echo.sources, relayed)
    relay.close()
    peer.close()
    return back


async def between_agents(server, user, password, transport):
    """Every datagram must arrive, in both directions."""
    agents = [
        aioice.Connection(
            ice_controlling=controlling,
            turn_server=server,
            turn_username=user,
            turn_password=password,
            turn_ssl=transport == "tls",
            turn_transport="udp" if transport == "udp" else "tcp",
            transport_policy=aioice.TransportPolicy.RELAY,
        )
        for controlling in [True, False]
    ]
    for agent in agents:
        await agent.gather_candidates()
    for one, other in [agents, agents[::-1]]:
        assert [candidate.type for candidate in one.local_candidates] == ["relay"], one.local_candidates
        for candidate in one.local_candidates:
            await other.add_remote_candidate(candidate)
        await other.add_remote_candidate(None)
        other.remote_username = one.local_username
        other.remote_password = one.local_password
    await asyncio.gather(*(agent.connect() for agent in agents))
    arrived = 0
    for number in range(ROUNDS):
        for size in SIZES:
            for one, other in [agents, agents[::-1]]:
                data = bytes((number * size + i) % 256 for i in range(size))
                await one.send(data)
                assert await other.recv() == data, (size, number)
                arrived += 1
    for agent in agents:
        await agent.close()
    return arrived


async def main(address, port, user, password, transport):
    server = (address, int(port))
    back = await to_a_peer(server, user, password, transport)
    arrived = await between_agents(server, user, password, transport)
    print(json.dumps({"back": back, "arrived": arrived}))


socket.setdefaulttimeout(10)
asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 40))
