// Numbers as people read them. What is exact stands in the title of each.

const PREFIXES = ["", "k", "M", "G", "T", "P"];
const SPACE = "\u00a0";
export const NOTHING = "–";

export const exact = (number) => number.toLocaleString("en-GB", { maximumFractionDigits: 3 });

function scaled(number, unit) {
  let power = 0;
  let rest = number;
  while (rest >= 999.5 && power < PREFIXES.length - 1) {
    rest /= 1000;
    power += 1;
  }
  const digits = rest < 99.95 && (power > 0 || !Number.isInteger(rest)) ? 1 : 0;
  const text = rest > 0 && rest < 0.05 ? "<0.1" : rest.toFixed(digits);
  const end = PREFIXES[power] + unit;
  return end === "" || end.startsWith("/") ? text + end : text + SPACE + end;
}

const figure = (text, value, unit) => ({ text, value, title: `${exact(value)} ${unit}`.trim() });
const known = (make) => (number) => (number === null || Number.isNaN(number) ? NOTHING : make(number));

export const count = known((number) => figure(number < 10_000 ? exact(number) : scaled(number, ""), number, ""));
export const packetRate = known((rate) => figure(scaled(rate, "pkt/s"), rate, "packets a second"));
export const bitRate = known((rate) => figure(scaled(rate, "bit/s"), rate, "bits a second"));
export const perSecond = known((rate) => figure(scaled(rate, "/s"), rate, "a second"));
export const bytes = known((number) => figure(scaled(number, "B"), number, "bytes"));

export function percent(part, whole) {
  if (!whole) return NOTHING;
  const tenths = Math.floor((part / whole) * 1000);
  const title = `${exact(part)} of ${exact(whole)}`;
  if (tenths === 0 && part > 0) return { text: "<0.1%", value: part / whole, title };
  return { text: tenths === 1000 ? "100%" : `${(tenths / 10).toFixed(1)}%`, value: part / whole, title };
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(whole / unit));
  const two = (number) => String(number).padStart(2, "0");
  if (days > 0) return `${days}d ${two(hours % 24)}h`;
  if (hours > 0) return `${hours}h ${two(minutes % 60)}m`;
  return minutes > 0 ? `${minutes}m ${two(whole % 60)}s` : `${whole}s`;
}

export const clock = (date) => date.toLocaleTimeString("en-GB");

/** A time of the relay, in seconds since the epoch. */
export const moment = (seconds) => new Date(seconds * 1000).toLocaleString("en-GB");
