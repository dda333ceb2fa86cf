"""What the agents have in common: commands and events as lines of JSON, and datagrams that say what they are.

A command is {"do": NAME, ...} on standard input. Everything an agent says is {"event": NAME, ...} on standard output.
"""

import asyncio
import json
import sys

# First bytes of what is not STUN (RFC 7983): RTP, and a record of DTLS.
RTP, DTLS = 0x80, 0x16
SIZE = 172


def say(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)


async def commands():
    """The commands, until nobody can give any more."""
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def obey(agent):
    """Has an agent do what it is told: the command `x` is its method `x`, which gets the rest of the command."""
    async for command in commands():
        name = command.pop("do")
        if name == "end":
            return
        await getattr(agent, name)(**command)


def datagram(first, number):
    """As RTP would look to whoever reads first bytes only; the rest follows from the number."""
    return bytes([first]) + number.to_bytes(4, "big") + bytes((number + i) % 256 for i in range(SIZE - 5))


class Tally:
    """Counts what arrives."""

    def __init__(self):
        self.numbers = {}
        self.damaged = self.twice = 0

    def add(self, data):
        first, number = data[0], int.from_bytes(data[1:5], "big")
        if data != datagram(first, number):
            self.damaged += 1
        elif number in self.numbers.setdefault(first, set()):
            self.twice += 1
        else:
            self.numbers[first].add(number)

    def counts(self):
        received = {"rtp": len(self.numbers.get(RTP, ())), "dtls": len(self.numbers.get(DTLS, ()))}
        return {**received, "damaged": self.damaged, "twice": self.twice}


class Numbers:
    """The datagrams of an agent, RTP and DTLS in turns, each with a number that no other one has."""

    def __init__(self):
        self.next = 0

    def __call__(self):
        self.next += 1
        return datagram([RTP, DTLS][self.next % 2], self.next)
