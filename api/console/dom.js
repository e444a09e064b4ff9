// Makes elements. All that comes from the api becomes a text node or an attribute, never markup: names and descriptions of
// plugins are written by strangers.

const SVG = "http://www.w3.org/2000/svg";

/** h("p", {class: "x", onclick: f}, "text", node, [nodes], null): an element. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Tell people who cannot see it what changed. */
export function announce(text) {
  const place = document.getElementById("announce");
  place.textContent = "";
  setTimeout(() => { place.textContent = text; }, 50);
}

/** Put new content into `place` without taking the focus away from a control that is there before and after. */
export function replace(place, ...children) {
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const mark = focused?.getAttribute("data-key") ?? null;
  const open = new Map([...place.querySelectorAll("details[data-key]")].map((one) => [one.dataset.key, one.open]));
  place.replaceChildren(...children.flat(Infinity).filter(Boolean));
  for (const one of place.querySelectorAll("details[data-key]")) {
    if (open.has(one.dataset.key)) one.open = open.get(one.dataset.key);
  }
  if (mark !== null) place.querySelector(`[data-key="${CSS.escape(mark)}"]`)?.focus({ preventScroll: true });
}

/** An address from the api as a link, if it is one that a browser may safely follow; otherwise its text. */
export function outward(address, text) {
  let target = null;
  try { target = new URL(address); } catch { /* not an address */ }
  if (target === null || !["http:", "https:"].includes(target.protocol)) return document.createTextNode(text);
  return h("a", { href: target.href, rel: "noopener noreferrer", target: "_blank" }, text,
    h("span", { class: "unseen" }, " (opens in a new tab)"));
}

/** A table that can be scrolled with the keyboard where it does not fit. `rows`: lists of cells; the first is its header. */
export function table(caption, columns, rows, numeric = []) {
  return h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    h("table", {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, columns.map((name, at) =>
        h("th", { scope: "col", class: numeric.includes(at) ? "number" : null }, name)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, at) => at === 0
        ? h("th", { scope: "row" }, cell)
        : h("td", { class: numeric.includes(at) ? "number" : null }, cell)))))));
}
