// The status page: asks the relay every two seconds while somebody looks, and says when it does not answer.

import * as details from "./page/details.js";
import { element, put, watchScrolling } from "./page/elements.js";
import { clock, duration, moment } from "./page/format.js";
import { Growth, Scrape } from "./page/metrics.js";
import { show, warn } from "./page/overview.js";
import { common, ownOnly } from "./page/warnings.js";

const EVERY = 2000;
/** Who has a token sees users and clients every so many rounds: they cost the relay more than counters. */
const ROUNDS = 2;
const PATIENCE = 10_000;

const growth = new Growth();
let lostSince = null;
let round = 0;
/** Users and clients are wanted at once. */
let isDue = true;
let timer = null;
let isAsking = false;

const ask = (path, options = {}) =>
  fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });

async function update() {
  const answer = await ask("/metrics");
  const text = await answer.text();
  if (!answer.ok) throw new Error(`the relay answers ${answer.status}`);
  const at = performance.now();
  growth.take(new Scrape(text), at);
  show(growth, at);
  header(growth.scrape);
  round += 1;
  if (isDue || round % ROUNDS === 0) {
    isDue = false;
    await details.update(ask);
  }
  const now = Date.now() / 1000;
  warn([...(details.warnings ?? common(growth.scrape, now)), ...ownOnly(growth)]);
}

function header(scrape) {
  const now = new Date();
  const [{ labels }] = scrape.all("hairpin_build_info");
  put(element("version"), labels.version);
  put(element("uptime"), { text: duration(now / 1000 - scrape.started), title: `since ${moment(scrape.started)}`, value: scrape.started });
  put(element("updated"), clock(now));
  const deadline = scrape.sum("hairpin_drain_deadline_timestamp_seconds");
  if (scrape.sum("hairpin_shards_up") < scrape.sum("hairpin_shards")) state("degraded", "A part does not answer");
  else if (scrape.sum("hairpin_draining") === 0) state("serving", "Serving");
  else state("draining", deadline > 0 ? `Draining until ${moment(deadline)}` : "Draining");
}

/** Says how the relay is, once: it is read aloud. */
function state(name, text) {
  const place = element("state");
  document.body.classList.toggle("lost", name === "lost");
  if (place.dataset.state === name && place.textContent === text) return;
  place.dataset.state = name;
  place.textContent = text;
  document.title = name === "serving" ? `Hairpin ${location.host}` : `${text}: Hairpin ${location.host}`;
}

async function tick() {
  clearTimeout(timer);
  if (isAsking || document.hidden) return;
  isAsking = true;
  try {
    await update();
    lostSince = null;
  } catch {
    lostSince ??= new Date();
    isDue = true;
    state("lost", `Not reachable since ${clock(lostSince)}`);
  }
  isAsking = false;
  timer = setTimeout(tick, isDue && lostSince === null ? 0 : EVERY);
}

/** Asks at once; what is under way comes to its end first. */
function refresh() {
  isDue = true;
  tick();
}

put(element("host"), location.host);
watchScrolling();
details.begin(refresh);
document.addEventListener("visibilitychange", refresh);
tick();
