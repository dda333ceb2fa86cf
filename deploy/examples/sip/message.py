"""SIP messages (RFC 3261), as far as a proxy needs to understand them."""

import re

COMPACT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
    "c": "content-type",
    "k": "supported",
}
# Headers that may be lists, and of which a proxy takes single values off.
LISTS = {"via", "route", "record-route"}


class Message:
    """A start line, headers in their order, and a body."""

    def __init__(self, start, headers=(), body=b""):
        self.start, self.headers, self.body = start, list(headers), body

    @classmethod
    def parse(cls, data):
        """Of a datagram; `ValueError` if it is none."""
        head, separator, body = data.partition(b"\r\n\r\n")
        lines = re.sub(r"\r\n[ \t]+", " ", head.decode()).split("\r\n")
        if not separator or "SIP/2.0" not in lines[0]:
            raise ValueError("no message of SIP")
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"no header: {line}")
            name = name.strip().lower()
            name = COMPACT.get(name, name)
            values = split_list(value) if name in LISTS else [value.strip()]
            headers += [(name, one) for one in values]
        message = cls(lines[0], headers, body)
        if message.get("content-length"):
            message.body = body[: int(message.get("content-length"))]
        for name in ["via", "from", "to", "call-id", "cseq"]:
            if message.get(name) is None:
                raise ValueError(f"no {name}")
        return message

    def __bytes__(self):
        kept = [(name, value) for name, value in self.headers if name != "content-length"]
        lines = [self.start, *(f"{name.title()}: {value}" for name, value in kept), f"Content-Length: {len(self.body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body

    def get(self, name):
        """The first header of a name."""
        return next((value for header, value in self.headers if header == name), None)

    def replace(self, name, value):
        """Sets the first header of a name, or takes it off when there is no value."""
        at = next(at for at, (header, _) in enumerate(self.headers) if header == name)
        self.headers[at : at + 1] = [(name, value)] if value is not None else []

    def push(self, name, value):
        """Puts a header on top."""
        self.headers.insert(0, (name, value))

    @property
    def is_request(self):
        return not self.start.startswith("SIP/2.0")

    @property
    def method(self):
        """Of a request, or of the request that is answered."""
        return self.start.split()[0] if self.is_request else self.get("cseq").split()[1]

    @property
    def uri(self):
        return self.start.split()[1]

    @property
    def status(self):
        return int(self.start.split()[1])

    @property
    def has_sdp(self):
        return bool(self.body) and (self.get("content-type") or "").lower().startswith("application/sdp")

    def answer(self, status, reason, headers=()):
        """The response to this request of somebody who is not the one that it was for."""
        copied = ("via", "from", "to", "call-id", "cseq")
        kept = [(name, value) for name, value in self.headers if name in copied]
        response = Message(f"SIP/2.0 {status} {reason}", kept + list(headers))
        if tag(response.get("to")) is None and status > 100:
            response.replace("to", response.get("to") + ";tag=proxy")
        return response


def split_list(value):
    """At the commas that are not inside of quotes or brackets."""
    return [part.strip() for part in re.findall(r'(?:"(?:\\.|[^"])*"|<[^>]*>|[^,"<])+', value)]


def parameter(value, name):
    """Of a header; "" for one without a value, `None` if it is not there."""
    found = re.search(rf";\s*{name}(?:\s*=\s*([^;,\s]+))?\s*(?=;|$)", value.rpartition(">")[2], re.IGNORECASE)
    return found and (found[1] or "")


def tag(value):
    return parameter(value, "tag")


def user(uri):
    """The user part of a URI, whatever stands around it."""
    found = re.search(r"sips?:([^@;>]+)@", uri)
    return found and found[1]
