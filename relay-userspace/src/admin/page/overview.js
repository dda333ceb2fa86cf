// All that metrics say, which everybody may see.

import { element, fill, make, pairs, put } from "./elements.js";
import { bitRate, bytes, count, duration, exact, moment, NOTHING, packetRate, percent, perSecond } from "./format.js";
import { Graph } from "./graph.js";
import { whyNot } from "./warnings.js";

const PATHS = ["kernel", "userspace"];
const TRANSPORTS = ["udp", "tcp", "tls", "dtls"];
/** What is relayed: packets and bytes of each, and the labels that every row of it has. */
const RELAYED = ["hairpin_relayed_packets_total", "hairpin_relayed_bytes_total"];
const MEDIA = ["hairpin_media_packets_total", "hairpin_media_bytes_total"];
const STREAMS = [null, "hairpin_tcp_relayed_bytes_total"];
const FLOWS = [
  { name: "To peers", metrics: RELAYED, labels: { direction: "to_peer" }, always: true },
  { name: "To clients", metrics: RELAYED, labels: { direction: "to_client" }, always: true },
  { name: "Between legs", metrics: MEDIA, labels: {} },
  { name: "To peers, over TCP", metrics: STREAMS, labels: { direction: "to_peer" }, path: "userspace" },
  { name: "To clients, over TCP", metrics: STREAMS, labels: { direction: "to_client" }, path: "userspace" },
];
/** What goes wrong: the metric, what it counts, and the labels that say why. */
const WRONG = [
  ["hairpin_dropped_packets_total", ({ path }) => `datagrams, ${path}`, ({ reason }) => reason],
  ["hairpin_refusals_total", () => "requests", ({ cause }) => cause],
  ["hairpin_handshake_failures_total", () => "handshakes", ({ transport }) => transport],
  ["hairpin_credentials_refused_total", () => "requests for credentials", ({ reason }) => reason],
  ["hairpin_flow_insert_failures_total", () => "flows, kernel", () => "no_room"],
  ["hairpin_log_lines_dropped_total", () => "lines of the log", () => "not_taken"],
  ["hairpin_traces_dropped_total", () => "spans", () => "not_taken"],
];

const graphs = {
  packets: new Graph(element("packets-graph"), "Packets a second", packetRate),
  bits: new Graph(element("bits-graph"), "Bits a second", bitRate),
};

const plus = (...rates) => (rates.includes(null) ? null : rates.reduce((sum, rate) => sum + rate, 0));
const times = (rate, factor) => (rate === null ? null : rate * factor);
const share = (used, of) => ({ ...asCell(percent(used, of)), share: of > 0 ? used / of : 0 });
const asCell = (content) => (typeof content === "object" ? content : { text: content });

/** Shows a scrape that has come at this time in milliseconds, of which `growth` tells the rates. */
export function show(growth, at) {
  const { scrape } = growth;
  traffic(growth, at);
  allocations(growth);
  fill("ports", scrape.all("hairpin_relay_ports_capacity").map(({ labels, value }) => {
    const used = scrape.sum("hairpin_relay_ports_in_use", labels);
    return { key: labels.address, cells: [labels.address, count(used), count(value), share(used, value)] };
  }));
  kernel(growth);
  process(growth);
  wrong(growth);
}

function traffic(growth, at) {
  const { scrape } = growth;
  const packetsOf = (path) =>
    plus(growth.rate(RELAYED[0], { path }), growth.rate(MEDIA[0], { path }));
  const bitsOf = (path) => {
    const streams = path === "userspace" ? growth.rate(STREAMS[1]) : 0;
    return times(plus(growth.rate(RELAYED[1], { path }), growth.rate(MEDIA[1], { path }), streams), 8);
  };
  const byPath = (rate) => Object.fromEntries(PATHS.map((path) => [path, rate(path)]));
  const [packets, bits] = [byPath(packetsOf), byPath(bitsOf)];
  graphs.packets.add(at, packets);
  graphs.bits.add(at, bits);

  const all = plus(packets.kernel, packets.userspace);
  put(element("packets"), packetRate(all));
  put(element("bits"), bitRate(plus(bits.kernel, bits.userspace)));
  put(element("kernel-share"), all ? percent(packets.kernel, all) : NOTHING);
  const both = (direction, metric, factor, format) =>
    format(times(growth.rate(metric, { direction }), factor)).text ?? NOTHING;
  const sides = (metric, factor, format) =>
    `${both("to_peer", metric, factor, format)} to peers, ${both("to_client", metric, factor, format)} to clients`;
  put(element("packets-more"), sides(RELAYED[0], 1, packetRate));
  put(element("bits-more"), sides(RELAYED[1], 8, bitRate));
  const inKernel = PATHS.map((path) => scrape.sum(RELAYED[0], { path }) + scrape.sum(MEDIA[0], { path }));
  const ever = percent(inKernel[0], inKernel[0] + inKernel[1]);
  put(element("kernel-share-more"), ever === NOTHING ? "nothing relayed yet" : `${ever.text} since the start`);

  const rows = FLOWS.flatMap((flow) => PATHS.filter((path) => !flow.path || flow.path === path).map((path) => {
    const labels = flow.path ? flow.labels : { ...flow.labels, path };
    const [packetsTotal, bytesTotal] = flow.metrics.map((metric) => (metric ? scrape.sum(metric, labels) : null));
    const isShown = flow.always || bytesTotal > 0;
    const [packetsNow, bytesNow] = flow.metrics.map((metric) => (metric ? growth.rate(metric, labels) : null));
    const cells = [flow.name, { text: path, badge: path }, packetRate(packetsNow), bitRate(times(bytesNow, 8))];
    return { isShown, key: `${flow.name} ${path}`, cells: [...cells, count(packetsTotal), bytes(bytesTotal)] };
  }));
  fill("traffic", rows.filter(({ isShown }) => isShown));
}

function allocations(growth) {
  const { scrape } = growth;
  const [live, capacity] = ["hairpin_allocations", "hairpin_allocations_capacity"].map((name) => scrape.sum(name));
  const row = (name, labels, isSum = false) => {
    const of = (more) => count(scrape.sum("hairpin_allocations", { ...labels, ...more }));
    const connections = labels.transport === "udp" ? NOTHING : count(scrape.sum("hairpin_connections", labels));
    return { key: name, isSum, cells: [name, of({ family: "ipv4" }), of({ family: "ipv6" }), of({}), connections] };
  };
  fill("clients", [...TRANSPORTS.map((name) => row(name.toUpperCase(), { transport: name })), row("All", {}, true)]);
  put(element("allocations"), count(live));
  put(element("allocations-more"), { text: `of ${exact(capacity)}`, title: `${exact(live)} of ${exact(capacity)}`, share: capacity ? live / capacity : 0 });
  const begun = growth.rate("hairpin_allocations_begun_total");
  const ended = growth.rate("hairpin_allocations_ended_total");
  const more = [
    ["Begun", perSecond(begun)],
    ["Ended", perSecond(ended)],
    ["Since the start", count(scrape.sum("hairpin_allocations_begun_total"))],
  ];
  if (scrape.sum("hairpin_ice_sessions_created_total") > 0) {
    const states = scrape.all("hairpin_ice_sessions").map(({ labels, value }) => `${exact(value)} ${labels.state}`);
    more.push(["Sessions", `${states.join(", ")}, of ${exact(scrape.sum("hairpin_ice_sessions_capacity"))}`]);
  }
  pairs("clients-more", more);
}

function kernel(growth) {
  const { scrape } = growth;
  const badges = { native: "good", generic: "warn", none: "bad" };
  fill("interfaces", scrape.all("hairpin_xdp_attached").map(({ labels }) => {
    const mode = { text: labels.mode, badge: badges[labels.mode] ?? "" };
    return { key: labels.interface, cells: [labels.interface, mode, labels.reason ? whyNot(labels.reason) : NOTHING] };
  }));
  const full = (name) => {
    const [used, of] = [scrape.sum(name), scrape.sum(`${name}_capacity`)];
    return of > 0 ? { text: `${exact(used)} of ${exact(of)}`, value: used, share: used / of } : NOTHING;
  };
  const passed = scrape.all("hairpin_xdp_passed_packets_total").filter(({ value }) => value > 0);
  passed.sort((one, other) => other.value - one.value);
  const reasons = passed.slice(0, 3).map(({ labels, value }) => `${labels.reason} ${count(value).text}`);
  pairs("kernel-more", [
    ["Flows", count(scrape.sum("hairpin_flows"))],
    ["Records", full("hairpin_kernel_records")],
    ["Next hops", full("hairpin_kernel_next_hops")],
    ["Left to the stack", reasons.length > 0 ? reasons.join(", ") : NOTHING],
  ]);
}

function process(growth) {
  const { scrape } = growth;
  const now = Date.now() / 1000;
  const cpu = growth.rate("process_cpu_seconds_total");
  const lag = Math.max(0, ...scrape.all("hairpin_shard_lag_seconds").map(({ value }) => value));
  const reloaded = scrape.sum("hairpin_config_last_reload_success_timestamp_seconds");
  const certificates = scrape.all("hairpin_certificate_expiry_timestamp_seconds");
  pairs("process", [
    ["Processor", cpu === null ? NOTHING : { text: `${(cpu * 100).toFixed(1)}% of one`, value: cpu }],
    ["Memory", bytes(scrape.sum("process_resident_memory_bytes"))],
    ["Open files", { text: `${exact(scrape.sum("process_open_fds"))} of ${exact(scrape.sum("process_max_fds"))}` }],
    ["Shards", `${exact(scrape.sum("hairpin_shards_up"))} of ${exact(scrape.sum("hairpin_shards"))} answer, in ${(lag * 1000).toFixed(1)} ms at most`],
    ["Configured", { text: `${duration(now - reloaded)} ago`, title: moment(reloaded) }],
    ...certificates.map(({ labels, value }) => [
      "Certificate",
      { text: `${labels.file}, ${value > now ? `for ${duration(value - now)}` : "expired"}`, title: moment(value) },
    ]),
  ]);
}

function wrong(growth) {
  const { scrape } = growth;
  const rows = WRONG.flatMap(([metric, what, why]) => scrape.all(metric).filter(({ value }) => value > 0).map(
    ({ key, labels, value }) => {
      const [now, gained] = [growth.rate(metric, labels), growth.gained(metric, labels)];
      return { key, now, gained, value, cells: [why(labels), what(labels), perSecond(now), count(gained), count(value)] };
    },
  ));
  rows.sort((one, other) => other.now - one.now || other.gained - one.gained || other.value - one.value);
  fill("dropped", rows);
}

/** Shows warnings, if there are any, and touches nothing when they are the same as before. */
export function warn(lines) {
  const list = element("warning-list");
  const shown = [...list.children].map((item) => item.textContent);
  if (lines.length === shown.length && lines.every((line, index) => line === shown[index])) return;
  list.replaceChildren(...lines.map((line) => make("li", {}, line)));
  element("warnings").hidden = lines.length === 0;
}
