#!/usr/bin/env python3
"""Writes the dashboard, hairpin.json, from the panels below: deploy/grafana/generate.py > deploy/grafana/hairpin.json.

Grafana's JSON says everything about each panel each time; here each says only what is its own. Queries use the recording
rules of deploy/prometheus where there is one.
"""

import json
import sys

RATE = "[$__rate_interval]"
# Every query is about the relays that were chosen.
RELAYS = 'job="hairpin", instance=~"$instance"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
NATIVE = 'mode="native"'
WIDTH = 24
HEIGHT = 8


def select(metric, *labels):
    """A selector: a metric of the chosen relays, with these label matchers."""
    return f"{metric}{{{', '.join([RELAYS, *labels])}}}"


def rate(metric, by, *labels):
    """How fast a counter grows each second, summed over all labels but these."""
    return f"sum by ({by}) (rate({select(metric, *labels)}{RATE}))"


def quantile(share, metric, by=""):
    """A quantile of a histogram."""
    labels = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({share}, sum by ({labels}) (rate({select(metric + '_bucket')}{RATE})))"


def targets(queries):
    """Queries with their legends, as Grafana names them: A, B, C."""
    return [
        {"datasource": DATASOURCE, "editorMode": "code", "expr": query, "legendFormat": legend, "range": True, "refId": chr(65 + at)}
        for at, (query, legend) in enumerate(queries)
    ]


def panel(title, description, unit, width, height, queries, kind, defaults=None, options=None):
    return {
        "title": title,
        "description": description,
        "type": kind,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": unit, **(defaults or {})}, "overrides": []},
        "options": options or {},
        "targets": targets(queries),
        "size": (width, height),
    }


def steps(*pairs):
    """Colours from a value on; the first has no lower end."""
    colours = [{"color": colour, "value": value} for value, colour in pairs]
    return {"mode": "absolute", "steps": colours}


def graph(title, description, unit, queries, width=8, stacked=False, least=0, most=None):
    """Lines over time."""
    custom = {"drawStyle": "line", "fillOpacity": 20 if stacked else 5, "lineWidth": 1, "showPoints": "never"}
    custom["stacking"] = {"group": "A", "mode": "normal" if stacked else "none"}
    defaults = {"custom": custom, "min": least, "color": {"mode": "palette-classic"}}
    if most is not None:
        defaults["max"] = most
    options = {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel(title, description, unit, width, HEIGHT, queries, "timeseries", defaults, options)


def stat(title, description, unit, queries, thresholds, mappings=None, width=4):
    """One number, coloured by what it means."""
    defaults = {"thresholds": thresholds, "color": {"mode": "thresholds"}, "mappings": mappings or []}
    options = {
        "colorMode": "background",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    }
    return panel(title, description, unit, width, 4, queries, "stat", defaults, options)


def heatmap(title, description, unit, metric, width=8):
    """How a histogram is spread, over time."""
    query = f"sum by (le) (increase({select(metric + '_bucket')}{RATE}))"
    made = panel(title, description, unit, width, HEIGHT, [(query, "{{le}}")], "heatmap")
    made["targets"][0]["format"] = "heatmap"
    made["options"] = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"unit": unit},
    }
    return made


def words(**texts):
    """What numbers are called: `v1="yes"`."""
    return [{"type": "value", "options": {name[1:]: {"text": text} for name, text in texts.items()}}]


GREEN_IF_NOT_0 = steps((None, "red"), (1, "green"))
GREEN_IF_0 = steps((None, "green"), (1, "red"))
FULL = steps((None, "green"), (0.7, "yellow"), (0.85, "red"))

ROWS = [
    ("Is it healthy?", [
        stat("Relays up", "Relays that Prometheus reaches, of those that it knows.", "none",
             [(f"sum({select('up')})", "up"), (f"count({select('up')})", "of")], GREEN_IF_NOT_0),
        stat("Silent threads", "Threads that serve packets and do not answer; their clients get nothing in userspace.", "none",
             [(f"sum({select('hairpin_shards')}) - sum({select('hairpin_shards_up')})", "")], GREEN_IF_0),
        stat("Configuration", "Whether the last reload was good, on every relay.", "none",
             [(f"min({select('hairpin_config_last_reload_successful')})", "")], GREEN_IF_NOT_0,
             words(v0="not taken", v1="in force")),
        stat("Draining", "Relays that send new clients elsewhere.", "none",
             [(f"sum({select('hairpin_draining')})", "")], steps((None, "green"), (1, "yellow"))),
        stat("XDP in the driver", "Interfaces with the program in the driver, of all relays; 0 where it is off.", "none",
             [(f"sum({select('hairpin_xdp_attached', NATIVE)}) or vector(0)", "")],
             steps((None, "yellow"), (1, "green"))),
        stat("First certificate ends in", "Time until the first of all certificates ends; nothing where there is none.", "s",
             [(f"min({select('hairpin_certificate_expiry_timestamp_seconds')}) - time()", "")],
             steps((None, "red"), (86400, "yellow"), (14 * 86400, "green"))),
        stat("Version", "Which versions run, and on how many relays.", "none",
             [(f"count by (version) ({select('hairpin_build_info')})", "{{version}}")], steps((None, "blue"))),
        stat("Running for", "Time since the relay was started last, of the one that was started last.", "s",
             [(f"time() - max({select('hairpin_start_time_seconds')})", "")], steps((None, "yellow"), (3600, "green"))),
        stat("Configured for", "Age of the configuration that is in force, of the relay that was reloaded last.", "s",
             [(f"time() - max({select('hairpin_config_last_reload_success_timestamp_seconds')})", "")],
             steps((None, "blue"))),
        stat("Reloads today", "Reloads within a day, by result.", "none",
             [(f"sum by (result) (round(increase({select('hairpin_config_reloads_total')}[1d])))", "{{result}}")],
             steps((None, "blue"))),
        stat("Drain ends in", "Time until the allocations that are left are closed; nothing unless there is a deadline.", "s",
             [(f"(min({select('hairpin_drain_deadline_timestamp_seconds')} > 0) - time()) or vector(0)", "")],
             steps((None, "blue"))),
        stat("Lost log lines", "Lines of the log within an hour that nobody took.", "none",
             [(f"sum(round(increase({select('hairpin_log_lines_dropped_total')}[1h])))", "")],
             steps((None, "green"), (1, "yellow"))),
    ]),
    ("Is it full?", [
        stat("Allocations", "The part of all allocations there can be, on the fullest relay.", "percentunit",
             [(f"max({select('instance:hairpin_allocations:ratio')})", "")], FULL, width=3),
        stat("Sessions", "The part of all sessions of two legs there can be, on the fullest relay.", "percentunit",
             [(f"max({select('instance:hairpin_ice_sessions:ratio')}) or vector(0)", "")], FULL, width=3),
        stat("Ports", "The part of all ports in use, at the fullest relay address.", "percentunit",
             [(f"max({select('instance_address:hairpin_relay_ports:ratio')})", "")], FULL, width=3),
        stat("Kernel records", "The part of all records in use, on the fullest relay with XDP.", "percentunit",
             [(f"max({select('instance:hairpin_kernel_records:ratio')}) or vector(0)", "")], FULL, width=3),
        stat("Next hops", "The part of all next hops in use, on the fullest relay with XDP.", "percentunit",
             [(f"max({select('instance:hairpin_kernel_next_hops:ratio')}) or vector(0)", "")], FULL, width=3),
        stat("Open files", "The part of all files that may be open, on the fullest relay.", "percentunit",
             [(f"max({select('instance:hairpin_open_fds:ratio')})", "")], FULL, width=3),
        stat("Turned away", "Clients a second that found no room: allocations, ports or sockets.", "reqps",
             [(rate("hairpin_refusals_total", "job", 'cause=~"relay_full|no_port|no_socket"'), "")],
             steps((None, "green"), (0.001, "red")), width=6),
    ]),
    ("Load by path", [
        graph("Datagrams", "Datagrams relayed a second, by the path they took: the kernel's is the cheap one.", "pps",
              [(rate("hairpin_relayed_packets_total", "path, direction"), "{{path}}, {{direction}}")], stacked=True),
        graph("Data", "Application data relayed a second, without headers, by path.", "bps",
              [(f"8 * {rate('hairpin_relayed_bytes_total', 'path, direction')}", "{{path}}, {{direction}}"),
               (f"8 * {rate('hairpin_tcp_relayed_bytes_total', 'direction')}", "TCP relaying, {{direction}}")], stacked=True),
        graph("Share of userspace", "The part of all datagrams that the kernel did not forward. Clients over TCP, TLS and DTLS are "
              "always part of it.", "percentunit",
              [(select("instance:hairpin_userspace_packets:ratio_rate5m"), "{{instance}}")], most=1),
        graph("From client to client", "Datagrams that the kernel took from one client of the relay to another, in one step.",
              "pps", [(rate("hairpin_relay_to_relay_packets_total", "instance"), "{{instance}}")]),
        graph("Media sessions", "Datagrams a second that went from one leg of a media session to the other, by the path they "
              "took.", "pps", [(rate("hairpin_media_packets_total", "path"), "{{path}}")], stacked=True),
        graph("Data of media sessions", "Their payload a second, without headers, by path.", "bps",
              [(f"8 * {rate('hairpin_media_bytes_total', 'path')}", "{{path}}")], stacked=True),
        graph("Limits of data", "Configured limits of data, in bits a second; 0 is none. Compare with the data relayed.", "bps",
              [(f"8 * max by (limit) ({select('hairpin_limit_bytes_per_second')})", "{{limit}}")]),
        graph("Limits of datagrams", "Configured limits of datagrams a second; 0 is none.", "pps",
              [(f"max by (limit) ({select('hairpin_limit_packets_per_second')})", "{{limit}}")]),
    ]),
    ("Sessions of two legs", [
        graph("Live sessions", "By state: new ones have a leg without a remote, paused ones a leg that has lost its consent.", "none",
              [(f"sum by (state) ({select('hairpin_ice_sessions')})", "{{state}}"),
               (f"sum ({select('hairpin_ice_sessions_capacity')})", "most")]),
        graph("Begin and end of sessions", "Sessions that are created, and that end, a second, by reason.", "ops",
              [(rate("hairpin_ice_sessions_created_total", "job"), "created"),
               (rate("hairpin_ice_sessions_closed_total", "reason"), "closed: {{reason}}")]),
        graph("Connectivity checks", "Checks that legs answer, a second. A full agent checks every few seconds.", "ops",
              [(rate("hairpin_ice_checks_total", "instance, result"), "{{instance}} {{result}}")]),
    ]),
    ("Allocations", [
        graph("Live allocations", "By what their clients speak. Only those over UDP are forwarded by the kernel.", "none",
              [(f"sum by (transport) ({select('hairpin_allocations')})", "{{transport}}")], stacked=True),
        graph("Begin and end", "Allocations that begin, and that end, a second, by reason. Many that expire are clients that "
              "vanish.", "ops",
              [(rate("hairpin_allocations_begun_total", "job"), "begun"),
               (rate("hairpin_allocations_ended_total", "reason"), "ended: {{reason}}")]),
        graph("Use of what there is", "The part in use of allocations and ports, by relay and address.", "percentunit",
              [(select("instance:hairpin_allocations:ratio"), "{{instance}} allocations"),
               (select("instance_address:hairpin_relay_ports:ratio"), "{{instance}} ports of {{address}}")], most=1),
        graph("Allocations of a relay", "Live allocations, and how many there can be.", "none",
              [(f"sum by (instance) ({select('hairpin_allocations')})", "{{instance}}"),
               (select("hairpin_allocations_capacity"), "{{instance}} at most")]),
        graph("Ports in use", "Bound ports of each relay address, and how many there are.", "none",
              [(select("hairpin_relay_ports_in_use"), "{{instance}} {{address}}"),
               (select("hairpin_relay_ports_capacity"), "{{instance}} {{address}} at most")]),
        graph("Credentials", "Credentials a second that applications got, or were refused, from the admin interface.", "ops",
              [(rate("hairpin_credentials_minted_total", "job"), "minted"),
               (rate("hairpin_credentials_refused_total", "reason"), "refused: {{reason}}")]),
    ]),
    ("Realms and user stores", [
        stat("User stores", "Databases and webhooks that answer, of those that are configured; nothing where there is none.", "none",
             [(f"sum({select('hairpin_user_store_up')})", "up"), (f"count({select('hairpin_user_store_up')})", "of")],
             GREEN_IF_NOT_0, width=6),
        stat("Fullest realm", "The part of all allocations that its realm may have, of the fullest one.", "percentunit",
             [(f"max({select('instance_realm:hairpin_realm_allocations:ratio')}) or vector(0)", "")], FULL, width=6),
        stat("Waiting", "Requests that wait until a database or the webhook has answered.", "none",
             [(f"sum({select('hairpin_requests_waiting')})", "")], steps((None, "green"), (100, "yellow")), width=6),
        stat("Nobody could tell", "Requests a second that were told to try again, since no store answered in time.", "reqps",
             [(rate("hairpin_refusals_total", "job", 'cause="users_unavailable"'), "")],
             steps((None, "green"), (0.001, "red")), width=6),
        graph("Allocations by realm", "Live allocations and reserved ports of each realm, over all relays.", "none",
              [(f"sum by (realm) ({select('hairpin_realm_allocations')})", "{{realm}}")], stacked=True, width=6),
        graph("Use of realms", "The part in use of the allocations that each realm may have.", "percentunit",
              [(select("instance_realm:hairpin_realm_allocations:ratio"), "{{instance}} {{realm}}")], most=1, width=6),
        graph("Allocations each realm may have", "By relay and realm; 0 of one that is no longer configured.", "none",
              [(select("hairpin_realm_allocations_capacity"), "{{instance}} {{realm}}")], width=6),
        graph("Users by realm", "Users that have allocations.", "none",
              [(f"sum by (realm) ({select('hairpin_realm_users')})", "{{realm}}")], width=6),
        graph("Answers of user stores", "Questions a second, by what has become of them.", "reqps",
              [(rate("hairpin_user_store_answers_total", "store, answer"), "{{store}}: {{answer}}")], stacked=True),
        graph("Time of user stores", "Time that 99 % of answers stay below, by store, and half of them over all relays.", "s",
              [(select("instance_store:hairpin_user_store_seconds:p99_5m"), "{{instance}} {{store}}"),
               (quantile(0.5, "hairpin_user_store_seconds", "store"), "{{store}}, half")]),
        graph("Requests that wait", "For a database or the webhook, by relay.", "none",
              [(select("hairpin_requests_waiting"), "{{instance}}")]),
    ]),
    ("Failures by cause", [
        graph("Refused requests", "Requests a second that were refused, by cause. docs/metrics.md says of each what it means.",
              "reqps", [(rate("hairpin_refusals_total", "job"), "all"),
                        (f"{rate('hairpin_refusals_total', 'cause')} > 0", "{{cause}}")]),
        graph("Wrong credentials", "Requests a second with wrong credentials, beside allocations that begin.", "reqps",
              [(f"sum({select('instance:hairpin_authentication_failures:rate5m')})", "wrong credentials"),
               (f"sum({select('instance:hairpin_allocations_begun:rate5m')})", "allocations begun")]),
        graph("Dropped datagrams", "Datagrams dropped a second, by path and reason. Some are always there: strangers knock on "
              "every open port.", "pps",
              [(rate("hairpin_dropped_packets_total", "path"), "{{path}}: all"),
               (f"{rate('hairpin_dropped_packets_total', 'path, reason')} > 0", "{{path}}: {{reason}}")]),
        graph("Attack", "Datagrams of strangers that limits drop, datagrams of peers without a permission, and attempts to "
              "reach forbidden peers, a second.", "pps",
              [(rate("hairpin_dropped_packets_total", "reason", 'reason=~"source_rate|control_rate|no_permission|forbidden_peer"'),
                "{{reason}}"),
               (rate("hairpin_refusals_total", "cause", 'cause="forbidden_peer"'), "request: {{cause}}")]),
        graph("Requests", "STUN requests a second, by method and the path that answers.", "reqps",
              [(rate("hairpin_stun_requests_total", "path, method"), "{{path}}: {{method}}")]),
        graph("Error responses", "Responses a second that are no success, by method and code. The 401 of each client's first "
              "request is none to worry about.", "reqps",
              [(rate("hairpin_stun_responses_total", "method, code", 'code!="200"'), "{{method}} {{code}}")]),
    ]),
    ("Kernel", [
        graph("Passed on", "Packets a second that the program left to the kernel's stack, by reason. `not_ours` and `not_udp` are "
              "the host's other traffic.", "pps", [(rate("hairpin_xdp_passed_packets_total", "reason"), "{{reason}}")]),
        graph("Records and next hops", "What is in the program's tables, and how much there is room for.", "none",
              [(select("hairpin_kernel_records"), "{{instance}} records"),
               (select("hairpin_kernel_records_capacity"), "{{instance}} records at most"),
               (select("hairpin_kernel_next_hops"), "{{instance}} next hops"),
               (select("hairpin_kernel_next_hops_capacity"), "{{instance}} next hops at most")]),
        graph("Flows", "Relayed addresses, permissions and channels that the kernel knows, and those a second that it could not "
              "take.", "none",
              [(select("hairpin_flows"), "{{instance}} flows"),
               (rate("hairpin_flow_insert_failures_total", "instance"), "{{instance}} failures a second")]),
    ]),
    ("Latency", [
        graph("Setup of an allocation", "Time from the arrival of an Allocate request to its success, in the relay alone.", "s",
              [(quantile(share, "hairpin_allocation_setup_seconds"), f"{name} of all")
               for share, name in [(0.5, "half"), (0.9, "90 %"), (0.99, "99 %")]]),
        heatmap("Setup times", "How the times of setup are spread.", "s", "hairpin_allocation_setup_seconds"),
        heatmap("Lifetimes", "How long allocations lived that have ended.", "s", "hairpin_allocation_lifetime_seconds"),
        graph("Lag of threads", "How long each thread took to answer the scrape: packets in userspace wait about as long.", "s",
              [(select("hairpin_shard_lag_seconds"), "{{instance}} {{shard}}")]),
        graph("Handshakes", "Time that 99 % of handshakes stay below, by transport.", "s",
              [(quantile(0.99, "hairpin_handshake_seconds", "transport"), "{{transport}}")]),
        graph("Slow setups and handshakes", "What the alerts look at, by relay: 99 % stay below.", "s",
              [(select("instance:hairpin_allocation_setup_seconds:p99_5m"), "{{instance}} setup"),
               (select("instance_transport:hairpin_handshake_seconds:p99_5m"), "{{instance}} {{transport}}")]),
    ]),
    ("Connections", [
        graph("Connections", "Clients' connections over TCP and TLS and associations over DTLS, those of clients without an "
              "allocation, and connections with peers (RFC 6062).", "none",
              [(f"sum by (transport) ({select('hairpin_connections')})", "{{transport}}"),
               (f"sum({select('hairpin_new_connections')})", "without an allocation"),
               (f"sum({select('hairpin_peer_connections')})", "with peers")]),
        graph("Begin and end of connections", "Connections that begin, and that end, a second, by transport and reason.", "ops",
              [(rate("hairpin_connections_begun_total", "transport"), "begun: {{transport}}"),
               (rate("hairpin_connections_ended_total", "reason"), "ended: {{reason}}")]),
        graph("Failed handshakes", "Handshakes a second that failed, and that succeeded, by transport.", "ops",
              [(rate("hairpin_handshake_failures_total", "transport"), "{{transport}} failed"),
               (rate("hairpin_handshake_seconds_count", "transport"), "{{transport}} succeeded")]),
    ]),
    ("Process", [
        graph("Processors", "Processors that the process uses. What the program takes is the host's softirq time.", "none",
              [(f"sum by (instance) (rate({select('process_cpu_seconds_total')}{RATE}))", "{{instance}}")]),
        graph("Memory", "Memory of the process in RAM, and that it has addresses for. The program's tables are the kernel's.", "bytes",
              [(select("process_resident_memory_bytes"), "{{instance}} in RAM"),
               (select("process_virtual_memory_bytes"), "{{instance}} addresses")]),
        graph("Files", "Open files, sockets included, and how many may be open.", "none",
              [(select("process_open_fds"), "{{instance}}"), (select("process_max_fds"), "{{instance}} at most")]),
        graph("Traces", "Spans a second that went to the collector of `--otlp`, or found no room; nothing is sent without one.",
              "ops", [(rate("hairpin_traces_exported_total", "result"), "exported: {{result}}"),
                      (rate("hairpin_traces_dropped_total", "job"), "dropped")]),
    ]),
]


def laid_out(rows):
    """Gives every panel its place, in lines from left to right under the title of their row."""
    panels, number, y = [], 0, 0
    for title, members in rows:
        number += 1
        panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        y, x, tallest = y + 1, 0, 0
        for member in members:
            width, height = member.pop("size")
            if x + width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            panels.append({"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **member})
            x, tallest = x + width, max(tallest, height)
        y += tallest
    return panels


def variables():
    datasource = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    query = 'label_values(up{job="hairpin"}, instance)'
    instance = {
        "name": "instance", "label": "Relay", "type": "query", "datasource": DATASOURCE, "definition": query,
        "query": {"query": query, "refId": "instance"}, "refresh": 2, "sort": 1,
        "includeAll": True, "allValue": ".*", "multi": True, "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
    return [datasource, instance]


DASHBOARD = {
    "title": "Hairpin",
    "uid": "hairpin",
    "description": "TURN relays: is it healthy, is it full, who is hurting, is it an attack? docs/metrics.md explains the metrics.",
    "tags": ["hairpin", "turn", "webrtc"],
    "schemaVersion": 39,
    "version": 1,
    "editable": True,
    "graphTooltip": 1,
    "time": {"from": "now-3h", "to": "now"},
    "refresh": "30s",
    "timezone": "",
    "templating": {"list": variables()},
    "annotations": {"list": [{
        "name": "Starts", "enable": True, "datasource": DATASOURCE, "iconColor": "red",
        "expr": f"changes({select('hairpin_start_time_seconds')}[$__interval]) > 0", "titleFormat": "{{instance}} was started",
    }]},
    "panels": laid_out(ROWS),
}

json.dump(DASHBOARD, sys.stdout, indent=1, ensure_ascii=False)
print()
