// The panel of the speech servers: health, breaker, calls against the limit, pace, and what went wrong by kind.
import { json } from "/ui/api.js";
import { $, el, ms } from "/ui/dom.js";

let offered = true;

export async function showBackends() {
  if (!offered) return;
  try {
    const rows = (await json("/v1/backends")).data;
    $("backends").replaceChildren(...rows.map(item));
    if (!rows.length) $("backends").append(el("li", "None.", { class: "muted" }));
  } catch (error) {
    offered = ![403, 404].includes(error.status); // not offered here, or not for this key
    $("backends").replaceChildren(el("li", offered ? error.message : "This service does not show its backends to you.", { class: "muted" }));
  }
}

function item(backend) {
  const made = el("li");
  const health = el("span", backend.healthy ? "healthy" : "unhealthy", { class: backend.healthy ? "pill good" : "pill bad" });
  const head = el("div", "", { class: "row spread" });
  head.append(el("strong", backend.name), health);
  const list = el("dl", "", { class: "figures" });
  const errors = Object.entries(backend.errors ?? {}).map(([kind, count]) => `${kind.replaceAll("_", " ")} ${count.toLocaleString()}`).join(", ");
  const pairs = [
    ["Breaker", backend.breaker?.replaceAll("_", " ") ?? "–"],
    ["Calls now", `${backend.in_flight ?? 0} of ${backend.limit ?? "–"}`],
    ["Median", ms(backend.p50_ms)],
    ["95 %", ms(backend.p95_ms)],
    ["Errors", errors || "none"],
  ];
  for (const [name, value] of pairs) {
    const pair = el("div", "", name === "Errors" ? { class: "wide" } : {});
    pair.append(el("dt", name), el("dd", value));
    list.append(pair);
  }
  made.append(head, list);
  return made;
}
