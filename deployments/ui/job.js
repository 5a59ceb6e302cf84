// One job: watched over events (polling when they fail), shown, controlled.
import { JOBS, ask, events, json, key } from "/ui/api.js";
import { showChunk, showFailures } from "/ui/chunks.js";
import { $, clock, el, facts, ms, notice } from "/ui/dom.js";
import { Grid } from "/ui/grid.js";
import { Player } from "/ui/player.js";
import { Reader } from "/ui/reader.js";

const ENDED = ["completed", "completed_with_gaps", "failed", "cancelled", "expired"];
const GONE = [401, 404, 410];
const LONGEST_PAUSE_MS = 5_000;
let job = null;
let chunks = [];
let captions = [];
let watching = null;
let captionsAt = 0;
let updates = "";
let shown = "";
const path = (rest = "") => `${JOBS}/${encodeURIComponent(job.id)}${rest}`;
const ended = () => ENDED.includes(job.status);
const grid = new Grid($("grid"), (chunk) => showChunk(chunk, chunks.length));
const reader = new Reader((seconds) => player.jump(seconds));
const player = new Player({ path, ended, job: () => job, captions: () => captions }, (index) => {
  reader.mark(index);
  if (!ended() && captions.at(-1)?.index - index < 4) loadCaptions(false);
});

function show(news) {
  Object.assign(job, news);
  const c = job.chunks;
  if ($("status").textContent !== job.status.replaceAll("_", " ")) $("status").textContent = job.status.replaceAll("_", " ");
  $("status").className = `pill ${job.status === "completed" ? "good" : job.status === "failed" ? "bad" : ""}`;
  $("job-title").textContent = job.metadata?.title || job.id;
  document.title = `${Math.floor(job.progress * 100)} % ${job.metadata?.title || job.id} – tts-actors`;
  $("progress").value = job.progress;
  facts($("facts"), [
    ["Chunks", `${c.completed.toLocaleString()} of ${c.total.toLocaleString()}${c.failed ? `, ${c.failed.toLocaleString()} failed` : ""}`],
    ["Audio ready", clock(job.audio_seconds_ready)],
    ["Time left", ended() ? null : clock(job.eta_seconds)],
    ["Updates", ended() ? null : updates],
    ["orchestratorTimeoutMs", ms(job.orchestrator_timeout_ms)],
    ["Job", job.id],
  ]);
  $("facts").lastElementChild.className = "id";
  $("error").textContent = job.error?.message || "";
  $("error").hidden = !job.error;
  $("retry").hidden = !["failed", "completed_with_gaps"].includes(job.status);
  $("cancel").hidden = ended();
  $("play").disabled = c.completed === 0;
  player.tick();
  downloads();
  if (job.audio_seconds_ready > 0) loadCaptions(ended());
}

function downloads() {
  const box = $("downloads");
  const state = `${job.id} ${job.status}`;
  if (box.dataset.state === state) return;
  box.dataset.state = state;
  if (!ended() || !job.chunks.completed) return box.replaceChildren(el("span", ended() ? "Nothing was spoken." : "When the job has ended.", { class: "muted" }));
  const gaps = job.status === "completed" ? "" : "&gaps=silence";
  const names = ["mp3", "wav", "flac", "opus"].map((f) => [f, `/audio?format=${f}${gaps}`, f === "opus" ? "ogg" : f]);
  names.push(["captions (srt)", "/captions.srt", "srt"], ["captions (vtt)", "/captions.vtt", "vtt"], ["receipt", "/manifest", "json"]);
  box.replaceChildren(
    ...names.map(([label, rest, suffix]) => {
      const link = el("a", label, { class: "button", href: path(rest), download: `${job.id}.${suffix}` });
      link.addEventListener("click", (event) => key.get() && event.isTrusted && (event.preventDefault(), save(link)));
      return link;
    }),
  );
}

async function save(link) {
  try {
    await player.permit();
    link.click();
  } catch (error) {
    notice(error.message);
  }
}

async function loadCaptions(now) {
  const mine = watching;
  if (!now && performance.now() - captionsAt < Math.max(1500, chunks.length)) return;
  captionsAt = performance.now();
  try {
    const found = await json(path("/captions.json"), { signal: mine.signal });
    if (watching !== mine || found.captions.length < captions.length) return;
    captions = found.captions.filter((caption) => caption.start !== null);
    await reader.captions(captions, chunks);
    player.tick();
  } catch {
    // The next progress asks again; the text is readable without captions.
  }
}

async function load(signal) {
  const found = (await json(path("/chunks"), { signal })).data;
  chunks = found;
  grid.set(chunks);
  $("grid").setAttribute("aria-valuemax", chunks.length);
  if (chunks.length) showChunk(chunks[grid.chosen], chunks.length);
  showFailures(chunks, (index) => grid.choose(index));
  chunks.forEach((chunk) => reader.state(chunk));
  shown = counts();
}

const counts = () => `${job.chunks.completed} ${job.chunks.failed} ${job.status}`;

let failuresDue = false;
function failuresSoon() {
  if (failuresDue) return;
  failuresDue = true;
  setTimeout(() => {
    failuresDue = false;
    showFailures(chunks, (index) => grid.choose(index));
  }, 500);
}

function onEvent(type, data) {
  if (type !== "chunk") return show(data);
  if (!chunks[data.index] || chunks[data.index].state === data.state) return;
  chunks[data.index] = data;
  reader.state(data);
  grid.changed(data.index);
  if (data.attempts?.length > 1 || data.state === "failed") failuresSoon();
  if (data.index === grid.chosen) showChunk(data, chunks.length);
}

function tell(how) {
  updates = how;
  show({});
}

const pause = (lengthMs, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, lengthMs);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    addEventListener("online", resolve, { once: true });
  });

async function watch(signal) {
  let last = "";
  let failures = 0;
  while (!signal.aborted && !ended()) {
    const opened = () => {
      failures = 0;
      tell("live");
    };
    try {
      await events(path("/events"), last, signal, opened, (type, data, id) => {
        if (signal.aborted) return;
        last = id || last;
        onEvent(type, data);
      });
    } catch (error) {
      if (GONE.includes(error.status)) return signal.aborted || notice(error.message);
    }
    if (signal.aborted || ended()) break;
    // The stream broke: ask once, then try it again from the last event on.
    const wait = Math.min(LONGEST_PAUSE_MS, Math.max(job.poll_after_ms, 250) * 2 ** Math.min(failures++, 10));
    tell(navigator.onLine ? `asked for, next in ${clock(Math.ceil(wait / 1000))}` : "none: this device is offline");
    await pause(wait, signal);
    if (signal.aborted) return;
    try {
      show(await json(path(), { signal }));
      if (shown !== counts()) await load(signal);
      failures = Math.min(failures, 2); // the service answers: polling goes on at a good pace
    } catch (error) {
      if (GONE.includes(error.status)) return signal.aborted || notice(error.message);
    }
  }
  await finish(signal);
}

async function finish(signal) {
  while (!signal.aborted) {
    try {
      show(await json(path(), { signal }));
      await load(signal);
      return document.dispatchEvent(new Event("jobs-changed"));
    } catch (error) {
      if (signal.aborted) return;
      if (GONE.includes(error.status)) return notice(error.message);
      await pause(LONGEST_PAUSE_MS, signal);
    }
  }
}

export async function openJob(id) {
  closeJob();
  watching = new AbortController();
  const { signal } = watching;
  job = { id };
  captions = [];
  chunks = [];
  captionsAt = 0;
  updates = "connecting";
  for (const name of ["facts", "chunk", "attempts", "downloads", "reader"]) $(name).replaceChildren();
  delete $("downloads").dataset.state;
  $("failures-card").hidden = $("error").hidden = $("retry").hidden = $("cancel").hidden = true;
  $("status").textContent = "loading";
  $("job-title").textContent = id;
  $("progress").value = 0;
  $("play").disabled = true;
  grid.chosen = 0;
  grid.set([]);
  try {
    job = await json(path(), { signal });
    await load(signal);
    let text = null;
    try { text = sessionStorage.getItem(`tts-text-${id}`); } catch { /* storage is off */ }
    await reader.show(text, chunks);
    if (signal.aborted) return;
    show({});
    watch(signal).catch((error) => signal.aborted || notice(error.message));
  } catch (error) {
    if (signal.aborted) return;
    $("status").textContent = GONE.includes(error.status) ? "not here" : "no answer";
    notice(error.message);
  }
}

async function act(method, rest, after) {
  try {
    const answer = await ask(path(rest), { method });
    notice("");
    await after(answer);
    document.dispatchEvent(new Event("jobs-changed"));
  } catch (error) {
    notice(error.message);
  }
}

export function jobControls(onGone) {
  $("retry").addEventListener("click", () => act("POST", "/retry", () => openJob(job.id)));
  $("cancel").addEventListener("click", () => {
    player.reset(); // the live stream of a cancelled job breaks off
    act("POST", "/cancel", async (answer) => show(await answer.json()));
  });
  $("delete").addEventListener("click", () => confirm("Delete this job and its audio?") && act("DELETE", "", onGone));
}

export function closeJob() {
  watching?.abort();
  player.reset();
  document.title = "tts-actors";
}
