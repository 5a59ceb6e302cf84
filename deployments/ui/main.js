// Which view is shown follows from the URL: / is a new text, /?job=ID is a job.
import { JOBS, json, key } from "/ui/api.js";
import { compose } from "/ui/compose.js";
import { $, el, notice } from "/ui/dom.js";
import { closeJob, jobControls, openJob } from "/ui/job.js";

const REFRESH_MS = 10_000;

function route() {
  const id = new URLSearchParams(location.search).get("job");
  $("compose").hidden = Boolean(id);
  $("job").hidden = !id;
  notice("");
  if (id) openJob(id);
  else closeJob();
}

function go(url) {
  history.pushState(null, "", url);
  route();
}

async function recent() {
  const jobs = (await json(`${JOBS}?limit=8`)).data;
  const items = jobs.map((job) => {
    const item = el("li");
    item.append(el("a", job.metadata?.title || job.id, { href: `/?job=${encodeURIComponent(job.id)}` }), el("span", job.status.replaceAll("_", " "), { class: "muted" }));
    return item;
  });
  $("recent").replaceChildren(...(items.length ? items : [el("li", "None yet.", { class: "muted" })]));
}

let hasBackends = true;
async function backends() {
  if (!hasBackends) return;
  try {
    const found = await json("/v1/backends");
    const rows = found.data;
    const table = el("table");
    const head = el("tr");
    head.append(...["Name", "Health", "Breaker", "Calls", "p50", "p95"].map((name) => el("th", name, { scope: "col" })));
    table.append(head);
    for (const b of rows) {
      const row = el("tr");
      const ms = (value) => (value === null || value === undefined ? "–" : `${Math.round(value)} ms`);
      row.append(...[b.name, b.healthy ? "healthy" : "unhealthy", b.breaker ?? "–", `${b.in_flight ?? 0} of ${b.limit ?? "–"}`, ms(b.p50_ms), ms(b.p95_ms)].map((text) => el("td", String(text))));
      table.append(row);
    }
    $("backends").replaceChildren(table);
  } catch (error) {
    hasBackends = ![403, 404].includes(error.status); // not offered here, or not for this key
    $("backends").replaceChildren(el("p", "This service does not show its backends to you.", { class: "muted" }));
  }
}

async function refresh() {
  if (document.hidden) return;
  try {
    await recent();
    await backends();
  } catch (error) {
    if (error.status === 401) keyForm(true);
    notice(error.message);
  }
}

function keyForm(open) {
  $("key-form").hidden = !open;
  $("key-open").setAttribute("aria-expanded", String(open));
}

$("key-open").addEventListener("click", () => keyForm($("key-form").hidden));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  location.reload();
});
addEventListener("popstate", route);
document.addEventListener("jobs-changed", refresh);
jobControls(() => go("/"));
route();
refresh();
setInterval(refresh, REFRESH_MS);
compose((job, text) => {
  try {
    sessionStorage.setItem(`tts-text-${job.id}`, text);
  } catch {
    // The storage is full: the page then shows the text from the captions.
  }
  go(`/?job=${encodeURIComponent(job.id)}`);
}).catch((error) => notice(error.message));
