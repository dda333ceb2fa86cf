#!/usr/bin/env python3
"""A SIP proxy whose calls send their media through Hairpin.

An example, to be read: README.md beside it says how to run it, and what it is not.
"""

import argparse
import hashlib
import ipaddress
import logging
import socket
import time

import calls
from message import Message, parameter, tag, user
from relay import Refused, Relay

# What a branch of ours begins with (RFC 3261 section 8.1.1.7).
BRANCH = "z9hG4bK-hairpin-"
LONGEST = 65535
SOCKET = "/run/hairpin/admin.sock"
EXPIRES = 120


class Proxy:
    def __init__(self, listen, relay, static, ice):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(listen)
        self.own = "%s:%d" % self.socket.getsockname()
        # Where users are: those who are always there, and those who have registered.
        self.static, self.registered = static, {}
        # Who wants offers of ICE. Whoever registers with ICE says so (RFC 5768).
        self.ice = ice
        self.calls = calls.Calls(relay)

    def run(self):
        while True:
            data, source = self.socket.recvfrom(LONGEST)
            # A keepalive is a line end or two.
            if not data.strip():
                continue
            try:
                message = Message.parse(data)
                self.request(message, source) if message.is_request else self.response(message, source)
            except (ValueError, LookupError, OverflowError) as error:
                logging.info("%s sent what is not understood: %s", source, error)
            except OSError as error:
                logging.warning("%s", error)

    def send(self, message, where):
        self.socket.sendto(bytes(message), where)

    def request(self, message, source):
        """Who asks is found again by what the topmost Via is given here (RFC 3581)."""
        via = message.get("via")
        if parameter(via, "rport") == "":
            via = via.replace(";rport", f";rport={source[1]}", 1)
        message.replace("via", f"{via};received={source[0]}")
        if message.method == "REGISTER":
            return self.send(self.register(message, source), source)
        forwards = int(message.get("max-forwards") or 70)
        if message.method == "OPTIONS" and user(message.uri) is None:
            return self.send(message.answer(200, "OK"), source)
        if forwards == 0:
            return self.refuse(message, source, 483, "Too Many Hops")

        call = self.calls.of(message, source)
        where = call.other(source) if call and tag(message.get("to")) else self.find(user(message.uri))
        if where is None:
            return self.refuse(message, source, 404, "Not Found")
        if call is None and message.method == "INVITE":
            call = self.calls.begin(message, source, where, "ice" if user(message.uri) in self.ice else "plain")
        try:
            if call:
                call.request(message, source)
        except Refused as why:
            logging.warning("%s", why)
            refused = (488, "Not Acceptable Here") if why.status == 422 else (503, "Service Unavailable")
            return self.refuse(message, source, *refused)

        if message.get("max-forwards"):
            message.replace("max-forwards", f"{forwards - 1}")
        if self.own in (message.get("route") or ""):
            message.replace("route", None)
        if message.method == "INVITE":
            self.send(message.answer(100, "Trying"), source)
            message.push("record-route", f"<sip:{self.own};lr>")
        # The same for each retransmission, for the CANCEL of an INVITE, and for the ACK of its refusal.
        branch = hashlib.sha256(f"{message.get('via')}{message.get('call-id')}".encode()).hexdigest()[:24]
        message.push("via", f"SIP/2.0/UDP {self.own};branch={BRANCH}{branch};rport")
        self.send(message, where)

    def refuse(self, message, source, status, reason):
        if message.method != "ACK":
            self.send(message.answer(status, reason), source)

    def response(self, message, source):
        if BRANCH not in message.get("via"):
            return
        message.replace("via", None)
        via = message.get("via")
        # Nobody is left whom it could be for.
        if via is None:
            return
        call = self.calls.of(message, source)
        try:
            if call:
                call.response(message, source)
        except Refused as why:
            logging.warning("%s", why)
            message.start, message.body = "SIP/2.0 500 Server Internal Error", b""
        host, _, port = via.split()[1].split(";")[0].rpartition(":")
        self.send(message, (parameter(via, "received") or host, int(parameter(via, "rport") or port or 5060)))

    def register(self, message, source):
        """Whoever says so is believed to be that user, at the address that the request came from."""
        name, contact = user(message.get("to")), message.get("contact") or ""
        expires = int(parameter(contact, "expires") or message.get("expires") or EXPIRES)
        expires = min(expires, EXPIRES)
        if expires == 0:
            self.registered.pop(name, None)
        elif contact:
            self.registered[name] = (source, time.monotonic() + expires)
            if "+sip.ice" in contact:
                self.ice.add(name)
        is_told = contact.startswith("<") and expires
        said = [("contact", f"{contact.split('>')[0]}>;expires={expires}")] if is_told else []
        return message.answer(200, "OK", said)

    def find(self, name):
        where, end = self.registered.get(name, (None, 0))
        return where if time.monotonic() < end else self.static.get(name)


def address(text):
    host, _, port = text.rpartition(":")
    return str(ipaddress.ip_address(host)), int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--listen", type=address, required=True, metavar="IP:PORT", help="where clients reach it over UDP")
    option("--admin", default=SOCKET, metavar="PATH|HOST:PORT", help=f"Hairpin's admin interface; else {SOCKET}")
    option("--token", help="for the admin interface over TCP")
    option("--user", action="append", default=[], metavar="NAME=IP:PORT", help="a user who does not register")
    option("--ice", action="append", default=[], metavar="NAME", help="a user with ICE who does not say so")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    static = {name: address(where) for name, _, where in (one.partition("=") for one in options.user)}
    Proxy(options.listen, Relay(options.admin, options.token), static, set(options.ice)).run()


if __name__ == "__main__":
    main()
