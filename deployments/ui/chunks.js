// What is known of the chunks: one of them in full, and all that went wrong, counted by kind.
import { $, el, facts, ms } from "/ui/dom.js";

const KINDS = { connect: "no connection", timeout: "timeout", bad_take: "bad audio", reply_too_large: "reply too large", cancelled: "cancelled" };
const kind = (attempt) => (attempt.outcome === "status" ? `HTTP ${attempt.status}` : KINDS[attempt.outcome] || attempt.outcome);
const states = { completed: "spoken", pending: "waiting", failed: "failed" };

export function showChunk(chunk, total) {
  const attempts = chunk.attempts ?? [];
  const canvas = $("grid");
  canvas.setAttribute("aria-valuenow", chunk.index + 1);
  canvas.setAttribute("aria-valuetext", `${chunk.index + 1} of ${total}, ${states[chunk.state]}, ${attempts.length} attempts${chunk.reason ? `, ${chunk.reason}` : ""}`);
  facts($("chunk"), [
    ["Chunk", `${(chunk.index + 1).toLocaleString()} of ${total.toLocaleString()}`],
    ["State", states[chunk.state]],
    ["Characters", chunk.characters?.toLocaleString()],
    ["Backend", chunk.backend ?? attempts.at(-1)?.backend ?? "–"],
    ["Timeout of an attempt", ms(chunk.timeout_ms)],
    ["Attempts", attempts.length],
  ]);
  $("attempts").replaceChildren(
    ...attempts.map((attempt) => {
      const item = el("li");
      const good = attempt.outcome === "ok";
      item.append(el("span", `${attempt.backend}: ${good ? "spoken" : kind(attempt)}`, good ? {} : { class: "bad" }), el("span", ms(attempt.elapsed_ms), { class: "muted" }));
      if (attempt.reason) item.append(el("span", attempt.reason, { class: "muted reason" }));
      return item;
    }),
  );
  $("reason").textContent = attempts.at(-1)?.reason === chunk.reason ? "" : chunk.reason ?? "";
}

// Counts failed attempts by kind; a chunk that failed without one (its job ended first) counts as not tried.
export function showFailures(chunks, choose) {
  const found = new Map();
  const count = (name, chunk, field) => {
    const row = found.get(name) ?? { attempts: 0, lost: 0, first: chunk.index };
    row[field] += 1;
    found.set(name, row);
  };
  for (const chunk of chunks) {
    const failed = (chunk.attempts ?? []).filter((attempt) => attempt.outcome !== "ok");
    for (const attempt of failed) count(kind(attempt), chunk, "attempts");
    if (chunk.state === "failed") count(failed.length ? kind(failed.at(-1)) : "not tried", chunk, "lost");
  }
  $("failures-card").hidden = !found.size;
  const body = [...found].sort((a, b) => b[1].lost - a[1].lost || b[1].attempts - a[1].attempts).map(([name, row]) => {
    const line = el("tr");
    const show = el("button", `chunk ${row.first + 1}`, { type: "button", class: "link" });
    show.addEventListener("click", () => choose(row.first));
    const cell = el("td");
    cell.append(show);
    line.append(el("th", name, { scope: "row" }), el("td", row.attempts.toLocaleString()), el("td", row.lost.toLocaleString()), cell);
    return line;
  });
  $("failures").replaceChildren(...body);
}
