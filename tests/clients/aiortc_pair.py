"""Two peer connections of aiortc with relayed candidates only: messages over a data channel, and frames of video.

Arguments: the URL of the TURN server, user, password. Prints what arrived, as a line of JSON.
"""

import asyncio
import json
import sys

from aiortc import RTCConfiguration, RTCIceServer, RTCIceTransportPolicy, RTCPeerConnection
from aiortc.mediastreams import VideoStreamTrack

MESSAGES = 50
FRAMES = 5


async def main(url, user, password):
    server = RTCIceServer(urls=[url], username=user, credential=password)
    configuration = RTCConfiguration(iceServers=[server], iceTransportPolicy=RTCIceTransportPolicy.RELAY)
    caller, callee = RTCPeerConnection(configuration), RTCPeerConnection(configuration)

    back = asyncio.Queue()
    frames = asyncio.get_running_loop().create_future()

    @callee.on("datachannel")
    def on_datachannel(channel):
        channel.on("message", channel.send)

    @callee.on("track")
    async def on_track(track):
        for _ in range(FRAMES):
            frame = await track.recv()
        frames.set_result([frame.width, frame.height])

    channel = caller.createDataChannel("messages")
    opened = asyncio.Event()
    channel.on("open", opened.set)
    channel.on("message", back.put_nowait)
    caller.addTrack(VideoStreamTrack())

    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(caller.localDescription)
    await callee.setLocalDescription(await callee.createAnswer())
    for side in [caller, callee]:
        candidates = [line for line in side.localDescription.sdp.splitlines() if line.startswith("a=candidate")]
        assert candidates and all(" typ relay " in line for line in candidates), candidates
    await caller.setRemoteDescription(callee.localDescription)

    await opened.wait()
    sent = [f"{number}".ljust(number * 20, ".") for number in range(1, MESSAGES + 1)]
    for message in sent:
        channel.send(message)
    assert [await back.get() for _ in sent] == sent
    size = await frames
    await caller.close()
    await callee.close()
    print(json.dumps({"messages": len(sent), "frames": FRAMES, "size": size}))


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 45))
