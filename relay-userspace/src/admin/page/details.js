// Users and addresses, which take a token. It comes in the fragment of a link, which no server and no log ever sees.

import { element, fill } from "./elements.js";
import { bitRate, bytes, count, duration, moment, NOTHING, percent } from "./format.js";

const PLACE = "hairpin-page-token";
const FRAGMENT = "#token=";
const LARGEST = 10;
const FAILURES = 20;

/** The relay's own warnings, once it has told them to somebody with a token. */
export let warnings = null;

let before = { at: null, bytes: new Map() };

/** Takes the token of a link out of the address bar. */
function takeFragment() {
  if (!location.hash.startsWith(FRAGMENT)) return;
  sessionStorage.setItem(PLACE, location.hash.slice(FRAGMENT.length));
  history.replaceState(null, "", location.pathname + location.search);
}

/** Has the form and the button do what they say; `refresh` asks the relay at once. */
export function begin(refresh) {
  takeFragment();
  addEventListener("hashchange", () => {
    takeFragment();
    refresh();
  });
  element("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = element("token").value.trim();
    sessionStorage.setItem(PLACE, given.slice(given.lastIndexOf(FRAGMENT) + 1).replace(/^token=/, ""));
    element("token").value = "";
    refresh();
  });
  element("forget").addEventListener("click", () => {
    forget("");
    element("token").focus();
  });
}

function forget(problem) {
  sessionStorage.removeItem(PLACE);
  warnings = null;
  before = { at: null, bytes: new Map() };
  for (const id of ["largest", "failures"]) fill(id, []);
  element("token-problem").textContent = problem;
  reveal(false);
}

/** Asks with the token, if there is one, and shows what is answered. Throws when the relay cannot be reached. */
export async function update(ask) {
  const token = sessionStorage.getItem(PLACE);
  if (!token) return;
  // What cannot be in a header cannot be a token.
  if (!/^[\x21-\x7e]+$/.test(token)) return forget("This is not a token.");
  const headers = { Authorization: `Bearer ${token}` };
  const paths = ["/v1/status", `/v1/allocations?order=data&limit=${LARGEST}`, `/v1/failures?limit=${FAILURES}`];
  const answers = await Promise.all(paths.map((path) => ask(path, { headers })));
  if (sessionStorage.getItem(PLACE) !== token) return;
  if (answers.some(({ status }) => status === 401 || status === 403)) {
    return forget("The relay does not know this token: it has expired, or the relay was started again since.");
  }
  if (!answers.every(({ ok }) => ok)) throw new Error("the relay has not answered");
  const [status, allocations, failures] = await Promise.all(answers.map((answer) => answer.json()));
  warnings = status.warnings;
  largest(allocations);
  recent(failures);
  element("token-problem").textContent = "";
  reveal(true);
}

function reveal(isKnown) {
  for (const id of ["shown", "forget"]) element(id).hidden = !isKnown;
  element("token-form").hidden = isKnown;
}

// Characters that are not seen, or turn what follows around, are written out: a name must not look like another.
const written = (name) => name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (hidden) => `\\u{${hidden.codePointAt(0).toString(16)}}`);
const named = (user) => (user?.trim() ? written(user) : "(none)");

function largest(allocations) {
  const [at, now] = [performance.now(), Date.now() / 1000];
  const relayed = new Map(allocations.map(({ id, relayed_data: { to_peer, to_client } }) => [id, to_peer.bytes + to_client.bytes]));
  const rate = (id) => {
    const old = before.bytes.get(id);
    return old === undefined ? null : Math.max(0, ((relayed.get(id) - old) * 8000) / (at - before.at));
  };
  fill("largest", allocations.map(({ id, user, username, client, transport, began, relayed: addresses, relayed_data: data }) => {
    const packets = data.to_peer.packets + data.to_client.packets;
    return {
      key: id,
      cells: [
        { text: named(user), title: `${username}, allocation ${id}` }, client, transport, bitRate(rate(id)), bytes(data.to_peer.bytes),
        bytes(data.to_client.bytes), percent(data.in_kernel.packets, packets),
        { text: duration(now - began), title: moment(began) }, addresses.join(" "),
      ],
    };
  }));
  before = { at, bytes: relayed };
}

function recent(failures) {
  const now = Date.now() / 1000;
  fill("failures", failures.map((failure, index) => {
    const { cause, at, count: times, client, transport, username, action, code, explanation, peer } = failure;
    const wanted = [action, code && `got ${code}`, peer && `peer ${peer}`].filter(Boolean).join(", ");
    return {
      key: `${index}`,
      cells: [
        cause, { text: `${duration(now - at)} ago`, title: moment(at) }, count(times), { text: client, title: `over ${transport}` },
        username === null ? NOTHING : named(username), wanted, explanation,
      ],
    };
  }));
}
