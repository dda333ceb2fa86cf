"""The calls of a proxy: who is in each, its session of the relay, and what became of each SDP.

Of two descriptions, the first is the offer: that of an INVITE, or, if it had none, that of the response, whose answer
is in the ACK then. A session of the relay calls the side of the first offer `a`.
"""

import hashlib
import logging
import time

from relay import Refused

# As long as anything of a call may still be sent again (RFC 3261: 64 T1).
LINGER = 32
SIDES = ("caller", "callee")


class Calls:
    def __init__(self, relay):
        self.relay, self.all = relay, {}

    def of(self, message, source):
        """The call that a message belongs to, if there is one."""
        now = time.monotonic()
        self.all = {name: call for name, call in self.all.items() if call.end is None or now < call.end}
        call = self.all.get(message.get("call-id"))
        return call if call and source in call.places else None

    def begin(self, message, source, where, kind):
        call = Call(self.relay, message.get("call-id"), source, where, kind)
        self.all[call.name] = call
        return call


class Call:
    def __init__(self, relay, name, caller, callee, kind):
        self.relay, self.name = relay, name
        self.places = (caller, callee)
        # How the callee wants its media. What the caller wants is what its offer says.
        self.kind = kind
        self.session = self.end = None
        self.legs = {}
        # What each description has become, so that one that is sent again becomes the same.
        self.became = {}
        # The transactions of INVITE that began with an offer.
        self.offered = set()
        self.connected = False

    def other(self, source):
        return self.places[1 - self.places.index(source)]

    def request(self, message, source):
        side = SIDES[self.places.index(source)]
        number = message.get("cseq").split()[0]
        if message.has_sdp:
            if message.method != "ACK":
                self.offered.add((side, number))
            self.exchange(message, side, is_offer=message.method != "ACK")
        if message.method == "BYE":
            self.close()

    def response(self, message, source):
        side = SIDES[self.places.index(source)]
        number, method = message.get("cseq").split()
        if message.has_sdp:
            asker = SIDES[1 - SIDES.index(side)]
            self.exchange(message, side, is_offer=(asker, number) not in self.offered)
        if method == "INVITE" and 200 <= message.status < 300:
            self.connected = True
        # The end of a call that never was: busy, declined, cancelled.
        if method == "INVITE" and message.status >= 300 and not self.connected:
            self.close()

    def exchange(self, message, side, is_offer):
        """Lets the relay rewrite the SDP of a message."""
        sdp = message.body.decode()
        # It is the key of the request, too: that of no other call may be the same.
        seen = hashlib.sha256(f"{self.name} {side} {message.get('cseq')} {sdp}".encode()).hexdigest()
        if seen not in self.became:
            if not is_offer:
                self.became[seen] = self.relay.answer(self.session, self.legs[side], sdp, seen)
            elif self.session:
                self.became[seen] = self.relay.offer(self.session, self.legs[side], sdp, seen)
            else:
                self.session, self.became[seen] = self.relay.first_offer(sdp, self.kind, self.name, seen)
                self.legs = {side: "a", SIDES[1 - SIDES.index(side)]: "b"}
                logging.info("call %s has the session %s", self.name, self.session)
        message.body = self.became[seen].encode()

    def close(self):
        self.end = time.monotonic() + LINGER
        session, self.session = self.session, None
        if session:
            try:
                self.relay.close(session)
                logging.info("call %s has ended, and its session %s", self.name, session)
            except Refused as why:
                logging.warning("%s", why)
