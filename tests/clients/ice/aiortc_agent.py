"""A peer connection of aiortc that is told what to do: audio, and a data channel.

Commands: offer, answer (to an SDP), accept (an answer), send (messages over the data channel), report.
"""

import asyncio

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole
from aiortc.mediastreams import AudioStreamTrack
from wire import obey, say

LENGTHS = 20


class Agent:
    def __init__(self):
        self.one = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.sink, self.channel = MediaBlackhole(), None
        self.messages = []
        self.one.on("datachannel", self.use)
        self.one.on("track", self.sink.addTrack)
        self.one.on("connectionstatechange", lambda: say("state", state=self.one.connectionState))

    def use(self, channel):
        self.channel = channel
        channel.on("message", self.messages.append)
        if channel.readyState == "open":
            say("open")
        channel.on("open", lambda: say("open"))

    async def describe(self, description):
        await self.one.setLocalDescription(description)
        say("description", sdp=self.one.localDescription.sdp)

    async def offer(self):
        self.one.addTrack(AudioStreamTrack())
        self.use(self.one.createDataChannel("messages"))
        await self.describe(await self.one.createOffer())

    async def answer(self, sdp):
        await self.one.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        self.one.addTrack(AudioStreamTrack())
        await self.describe(await self.one.createAnswer())
        await self.sink.start()

    async def accept(self, sdp):
        await self.one.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        await self.sink.start()

    async def send(self, count):
        for number in range(count):
            self.channel.send(f"{number}".ljust(number * LENGTHS, "."))
        say("sent", count=count)

    async def report(self):
        stats = (await self.one.getStats()).values()
        audio = sum(one.packetsReceived for one in stats if one.type == "inbound-rtp")
        whole = [text for number, text in enumerate(self.messages) if text == f"{number}".ljust(number * LENGTHS, ".")]
        pair = self.one.sctp.transport.transport._connection._nominated[1]
        selected = {"1": {"local": "%s:%d" % pair.local_addr[:2], "remote": "%s:%d" % pair.remote_addr[:2]}}
        say("report", messages=len(whole), audio=audio, state=self.one.connectionState, selected=selected)


async def main():
    agent = Agent()
    await obey(agent)
    await agent.one.close()


asyncio.run(main())
