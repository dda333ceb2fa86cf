// What an operator should look at, as far as metrics tell. Whoever has a token reads the relay's own words instead, which
// say more; those that only stand here stay.

import { duration, exact } from "./format.js";

const NEARLY_FULL = 0.85;
const SOON = 14 * 86_400;
const LATE = 0.1;

const FULL = [
  ["hairpin_allocations", "hairpin_allocations_capacity", "allocations", "new clients will be refused"],
  ["hairpin_ice_sessions", "hairpin_ice_sessions_capacity", "sessions", "new ones will be refused"],
  ["hairpin_kernel_records", "hairpin_kernel_records_capacity", "records in the kernel", "new flows go through userspace"],
];
const REASONS = {
  veth: "one end of a virtual cable",
  native_refused: "the driver has refused it",
  busy: "another program is there",
  not_permitted: "the relay has not the rights",
  gone: "there is no such interface",
  failed: "the log says why",
};

export const whyNot = (reason) => REASONS[reason] ?? reason;

/** What the relay says itself, too. */
export function common(scrape, now) {
  const found = [];
  const stuck = scrape.sum("hairpin_shards") - scrape.sum("hairpin_shards_up");
  if (stuck > 0) found.push(`${stuck} of ${scrape.sum("hairpin_shards")} shards do not answer`);
  if (scrape.all("hairpin_config_last_reload_successful").some(({ value }) => value === 0)) {
    found.push("the last reload has changed nothing: the configuration has problems");
  }
  for (const { labels, value } of scrape.all("hairpin_certificate_expiry_timestamp_seconds")) {
    if (value < now) found.push(`the certificate ${labels.file} has expired`);
    else if (value < now + SOON) found.push(`the certificate ${labels.file} expires in ${duration(value - now)}`);
  }
  for (const [used, capacity, what, then] of FULL) {
    nearly(found, scrape.sum(used), scrape.sum(capacity), what, then);
  }
  for (const { labels, value } of scrape.all("hairpin_relay_ports_capacity")) {
    const used = scrape.sum("hairpin_relay_ports_in_use", labels);
    nearly(found, used, value, `ports of ${labels.address}`, "new clients will be refused");
  }
  for (const { labels, value } of scrape.all("hairpin_realm_allocations_capacity")) {
    const used = scrape.sum("hairpin_realm_allocations", labels);
    nearly(found, used, value, `allocations of realm ${labels.realm}`, "new ones will be refused");
  }
  for (const { labels, value } of scrape.all("hairpin_user_store_up")) {
    if (value === 0) found.push(`${labels.store} does not answer: new users are not let in`);
  }
  for (const { labels } of scrape.all("hairpin_xdp_attached").filter(({ labels }) => labels.mode !== "native")) {
    found.push(`XDP on ${labels.interface} is ${labels.mode}, not native: ${whyNot(labels.reason)}`);
  }
  return found;
}

/** What only stands here. */
export function ownOnly(growth) {
  const { scrape } = growth;
  const found = [];
  for (const { labels, value } of scrape.all("hairpin_shard_lag_seconds").filter(({ value }) => value > LATE)) {
    found.push(`shard ${labels.shard} took ${value.toFixed(2)} s to answer: packets wait about as long`);
  }
  nearly(found, scrape.sum("process_open_fds"), scrape.sum("process_max_fds"), "open files", "raise LimitNOFILE=");
  const lost = growth.gained("hairpin_flow_insert_failures_total");
  if (lost > 0) found.push(`${exact(lost)} flows found no room in the kernel since this page was opened`);
  return found;
}

function nearly(found, used, of, what, then) {
  if (of > 0 && used / of > NEARLY_FULL) found.push(`${exact(used)} of ${exact(of)} ${what}: ${then}`);
}
