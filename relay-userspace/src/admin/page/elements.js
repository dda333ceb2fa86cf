// What is put into the document. Text is only ever put in as text, whoever has made it up.

export const element = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Shows a text, or `{ text, value, title, badge, share, className }`; touches only what has changed. */
export function put(place, content) {
  const { text, value, title = "", badge, share } = typeof content === "object" ? content : { text: String(content) };
  let span = place.querySelector(":scope > span");
  if (!span) {
    span = make("span");
    place.replaceChildren(span);
  }
  if (span.textContent !== text) span.textContent = text;
  if (place.title !== title) place.title = title;
  set(place, "value", value);
  set(place, "badge", badge);
  bar(place, share);
}

function set(place, name, value) {
  if (value === undefined) delete place.dataset[name];
  else place.dataset[name] = value;
}

/** A share of a whole as a bar; what it says is in the text, too. */
function bar(place, share) {
  let shown = place.querySelector(":scope > .bar");
  if (share === undefined) {
    shown?.remove();
    return;
  }
  if (!shown) {
    shown = make("span", { className: "bar", ariaHidden: "true" }, make("i"));
    place.append(shown);
  }
  shown.firstChild.style.width = `${Math.min(100, share * 100)}%`;
  place.classList.toggle("full", share > 0.85);
}

/** Fills a table with rows of a key and cells, and keeps the rows that stay. */
export function fill(id, rows) {
  const table = element(id);
  const [body] = table.tBodies;
  const heads = [...table.tHead.rows[0].cells];
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  rows.forEach(({ key, cells, isSum = false }, index) => {
    const row = old.get(key) ?? begin(key, heads, isSum);
    old.delete(key);
    cells.forEach((cell, column) => put(row.cells[column], cell));
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  old.forEach((row) => row.remove());
  const none = element(`${id}-none`);
  if (none) {
    none.hidden = rows.length > 0;
    table.hidden = rows.length === 0;
  }
}

function begin(key, heads, isSum) {
  const row = make("tr", { className: isSum ? "sum" : "" });
  row.dataset.key = key;
  heads.forEach((head, column) => {
    const cell = make(column === 0 ? "th" : "td", { className: head.className });
    if (column === 0) cell.scope = "row";
    row.append(cell);
  });
  return row;
}

/** Fills a list of names and values. */
export function pairs(id, rows) {
  const list = element(id);
  rows.forEach(([name, content], index) => {
    let term = list.children[2 * index];
    if (!term) {
      term = make("dt");
      list.append(term, make("dd"));
    }
    if (term.textContent !== name) term.textContent = name;
    put(term.nextSibling, content);
  });
  while (list.children.length > 2 * rows.length) list.lastChild.remove();
}

/** Whoever has no mouse can scroll what is too wide, and nobody stops at what is not. */
export function watchScrolling() {
  const watcher = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    const box = target.closest(".scroll");
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-labelledby", box.firstElementChild.getAttribute("aria-labelledby"));
    } else {
      ["tabindex", "role", "aria-labelledby"].forEach((name) => box.removeAttribute(name));
    }
  }));
  for (const box of document.querySelectorAll(".scroll")) {
    watcher.observe(box);
    watcher.observe(box.firstElementChild);
  }
}
