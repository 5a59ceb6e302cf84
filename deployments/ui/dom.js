// Small means for building the page. Text goes in through textContent alone.
export const $ = (id) => document.getElementById(id);

export function el(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function facts(list, pairs) {
  list.replaceChildren(...pairs.filter(([, v]) => v !== null && v !== undefined).flatMap(([k, v]) => [el("dt", k), el("dd", String(v))]));
}

export function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

export function clock(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const s = Math.floor(seconds);
  const rest = String(s % 60).padStart(2, "0");
  return s < 3600 ? `${Math.floor(s / 60)}:${rest}` : `${Math.floor(s / 3600)}:${String(Math.floor(s / 60) % 60).padStart(2, "0")}:${rest}`;
}

export const ms = (value) => (value === null || value === undefined ? "–" : `${Math.round(value).toLocaleString()} ms`);

// Long loops await this in every round: the page stays alive between slices of a few milliseconds.
export function slices(lengthMs = 10) {
  let since = performance.now();
  return async () => {
    if (performance.now() - since < lengthMs) return;
    await new Promise((resolve) => setTimeout(resolve));
    since = performance.now();
  };
}

// The service counts Unicode characters, JavaScript counts UTF-16 units.
export const characters = (text) => text.length - (text.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0);

// Returns (from, to) => text, in the service's count.
export function slicer(text) {
  if (!/[\ud800-\udfff]/.test(text)) return (from, to) => text.slice(from, to);
  const at = [];
  let unit = 0;
  for (const character of text) {
    at.push(unit);
    unit += character.length;
  }
  at.push(unit);
  return (from, to) => text.slice(at[from], at[to]);
}
