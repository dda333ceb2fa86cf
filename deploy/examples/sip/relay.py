"""The calls of Hairpin's admin interface that a proxy needs, over its Unix socket or over TCP with a token."""

import http.client
import json
import socket

PATIENCE = 2


class Refused(Exception):
    """What the relay would not do; `status` says why (422: the SDP is none, 503: there is no room)."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Relay:
    def __init__(self, place, token=None):
        """`place` is the path of a socket, or HOST:PORT."""
        self.place, self.token = place, token

    def ask(self, method, path, body=None, key=None):
        """What has a key is asked again when no answer comes: the relay does it once."""
        for left in (1, 0) if key else (0,):
            try:
                status, answer = self.exchange(method, path, body, key)
                break
            except (OSError, http.client.HTTPException) as error:
                if not left:
                    raise Refused(503, f"the relay does not answer: {error}") from error
        if status >= 300:
            raise Refused(status, f"{method} {path}: {answer.decode(errors='replace')}")
        return json.loads(answer)

    def exchange(self, method, path, body, key):
        over_tcp = http.client.HTTPConnection
        connection = OverUnix(self.place) if "/" in self.place else over_tcp(self.place, timeout=PATIENCE)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if key:
            headers["Idempotency-Key"] = key
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def first_offer(self, sdp, kind, label, key):
        """A new session: its name, and the offer for the other side."""
        # What a phone without ICE says of its address is wrong behind a NAT: it is taken to be where it sends from.
        body = {"sdp": sdp, "to": kind, "latch": True, "label": label}
        answer = self.ask("POST", "/v1/ice/offer", body, key)
        return answer["session"]["id"], answer["sdp"]

    def offer(self, session, leg, sdp, key):
        """A later offer of one of the sides."""
        return self.ask("POST", f"/v1/ice/sessions/{session}/offer", {"from": leg, "sdp": sdp}, key)["sdp"]

    def answer(self, session, leg, sdp, key):
        return self.ask("POST", f"/v1/ice/sessions/{session}/answer", {"from": leg, "sdp": sdp}, key)["sdp"]

    def close(self, session):
        return self.ask("DELETE", f"/v1/ice/sessions/{session}")
