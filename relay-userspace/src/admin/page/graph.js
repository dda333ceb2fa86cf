// Rates over the last five minutes, by path.

import { make } from "./elements.js";

const SPAN = 300;
/** Seconds between two scrapes that were not one after the other: the tab was hidden, or the relay away. */
const GAP = 7;
const [WIDTH, HEIGHT] = [300, 100];
const PATHS = ["kernel", "userspace"];

const drawn = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
};

/** One, two or five times a power of ten, and no less than this. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return power * ([1, 2, 5].find((step) => step * power >= value) ?? 10);
}

/** A graph of one unit. */
export class Graph {
  #points = [];
  #lines = {};
  #top = make("span", { className: "top" });

  constructor(place, name, format) {
    this.name = name;
    this.format = format;
    this.svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const line of ["grid", "area", ...PATHS]) {
      this.#lines[line] = drawn("path", { class: line });
      this.svg.append(this.#lines[line]);
    }
    this.#lines.grid.setAttribute("d", `M0 0.5H${WIDTH}M0 ${HEIGHT / 2}H${WIDTH}`);
    const legend = PATHS.map((path) => make("span", { className: path }, path));
    place.append(
      make("div", { className: "plot" }, this.svg, this.#top),
      make("div", { className: "ends" }, make("span", {}, "5 min ago"), make("span", {}, "now")),
      make("div", { className: "legend" }, ...legend),
    );
  }

  /** Adds rates by path, at a time in milliseconds. */
  add(at, rates) {
    this.#points.push({ at, ...rates });
    this.#points = this.#points.filter((point) => at - point.at <= SPAN * 1000);
    const values = this.#points.flatMap((point) => PATHS.map((path) => point[path] ?? 0));
    const most = roundUp(Math.max(...values));
    for (const path of PATHS) this.#lines[path].setAttribute("d", this.#line(path, at, most));
    this.#lines.area.setAttribute("d", this.#line("kernel", at, most, true));
    this.#top.textContent = this.format(most).text;
    const now = PATHS.map((path) => `${path} ${this.format(rates[path]).text ?? "not known yet"}`).join(", ");
    this.svg.setAttribute("aria-label", `${this.name}, now: ${now}; the scale ends at ${this.format(most).text}`);
  }

  #line(path, now, most, isArea = false) {
    const runs = [];
    let before = null;
    for (const point of this.#points.filter((point) => point[path] !== null)) {
      if (before === null || point.at - before > GAP * 1000) runs.push([]);
      before = point.at;
      const x = WIDTH * (1 - (now - point.at) / (SPAN * 1000));
      const y = HEIGHT - 1 - (HEIGHT - 2) * (point[path] / most);
      runs.at(-1).push([x.toFixed(2), y.toFixed(2)]);
    }
    const drawRun = (run) => {
      const line = `M${run.map((point) => point.join(" ")).join("L")}`;
      return isArea ? `${line}L${run.at(-1)[0]} ${HEIGHT}L${run[0][0]} ${HEIGHT}Z` : line;
    };
    return runs.map(drawRun).join("");
  }
}
