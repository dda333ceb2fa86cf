// What the relay counts: one scrape, and what has changed from each to the next.

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n", '"': '"', "\\": "\\" };

const has = (labels, wanted) => Object.entries(wanted).every(([name, value]) => labels[name] === value);

/** One scrape, in the text format of Prometheus. */
export class Scrape {
  #families = new Map();

  constructor(text) {
    for (const line of text.split("\n")) {
      const found = line.startsWith("#") ? null : LINE.exec(line);
      if (!found) continue;
      const [, name, pairs = "", value] = found;
      const labels = {};
      for (const [, label, raw] of pairs.matchAll(LABEL)) {
        labels[label] = raw.replace(/\\(.)/g, (whole, sign) => ESCAPES[sign] ?? whole);
      }
      if (!this.#families.has(name)) this.#families.set(name, []);
      this.#families.get(name).push({ key: `${name}{${pairs}}`, labels, value: Number(value) });
    }
  }

  /** The series of a metric that have these labels. */
  all(name, wanted = {}) {
    return (this.#families.get(name) ?? []).filter(({ labels }) => has(labels, wanted));
  }

  sum(name, wanted) {
    return this.all(name, wanted).reduce((total, { value }) => total + value, 0);
  }

  get started() {
    return this.sum("hairpin_start_time_seconds");
  }

  get counters() {
    const families = [...this.#families].filter(([name]) => name.endsWith("_total"));
    return new Map(families.flatMap(([, series]) => series.map(({ key, value }) => [key, value])));
  }
}

/** Follows counters: how fast they grow, and by how much they have since the page was opened. */
export class Growth {
  #last = null;
  #steps = new Map();
  #gained = new Map();
  #seconds = null;

  /** The next scrape, which has come at this time in milliseconds. */
  take(scrape, at) {
    this.scrape = scrape;
    const counters = scrape.counters;
    const last = this.#last;
    // A relay that was started again counts from 0, and when it began to is not known well enough for a rate.
    const isSame = last !== null && last.started === scrape.started;
    this.#seconds = isSame && at > last.at ? (at - last.at) / 1000 : null;
    this.#steps = new Map();
    if (last !== null) {
      for (const [key, value] of counters) {
        const before = isSame ? (last.counters.get(key) ?? 0) : 0;
        const step = Math.max(0, value - before);
        this.#steps.set(key, step);
        this.#gained.set(key, (this.#gained.get(key) ?? 0) + step);
      }
    }
    this.#last = { started: scrape.started, counters, at };
  }

  #sum(from, name, wanted) {
    return this.scrape.all(name, wanted).reduce((total, { key }) => total + (from.get(key) ?? 0), 0);
  }

  /** A second, between the last two scrapes; null where there are no two. */
  rate(name, wanted = {}) {
    return this.#seconds === null ? null : this.#sum(this.#steps, name, wanted) / this.#seconds;
  }

  /** Since the page was opened. */
  gained(name, wanted = {}) {
    return this.#sum(this.#gained, name, wanted);
  }
}
