// Which view is shown follows from the URL: / is a new text, /?job=ID is a job.
import { JOBS, json, key } from "/ui/api.js";
import { showBackends } from "/ui/backends.js";
import { compose } from "/ui/compose.js";
import { $, el, notice } from "/ui/dom.js";
import { closeJob, jobControls, openJob } from "/ui/job.js";

const REFRESH_MS = 10_000;
let unreachable = false;

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
    const marks = { completed: "good", failed: "bad" };
    item.append(
      el("a", job.metadata?.title || job.id, { href: `/?job=${encodeURIComponent(job.id)}`, dir: "auto" }),
      el("span", job.status.replaceAll("_", " "), { class: `pill ${marks[job.status] ?? ""}` }),
    );
    return item;
  });
  $("recent").replaceChildren(...(items.length ? items : [el("li", "None yet. What you start appears here.", { class: "muted" })]));
}

async function refresh() {
  if (document.hidden) return;
  try {
    await recent();
    await showBackends();
    if (unreachable) notice("");
    unreachable = false;
  } catch (error) {
    if (error.status === 401 && $("key-form").hidden) keyForm(true);
    unreachable = error.status === 0;
    notice(error.message);
  }
}

function keyForm(open) {
  $("key-form").hidden = !open;
  $("key-open").setAttribute("aria-expanded", String(open));
  if (open) $("key").focus();
}

$("key-open").addEventListener("click", () => keyForm($("key-form").hidden));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  location.reload();
});
$("key-open").textContent = key.get() ? "API key set" : "API key";
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
}).catch((error) => error.status === 401 || notice(error.message));
