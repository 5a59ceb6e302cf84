// One job: watched over events (polling when they fail), heard while it renders, controlled.
import { JOBS, ask, events, json, key } from "/ui/api.js";
import { $, clock, el, facts, notice } from "/ui/dom.js";
import { Grid } from "/ui/grid.js";
import { Reader } from "/ui/reader.js";

const ENDED = ["completed", "completed_with_gaps", "failed", "cancelled", "expired"];
const audio = $("audio");
let job = null;
let chunks = [];
let captions = [];
let source = "";
let watching = null;
let captionsAt = 0;
const path = (rest = "") => `${JOBS}/${encodeURIComponent(job.id)}${rest}`;
const ended = () => ENDED.includes(job.status);
const grid = new Grid($("grid"), showChunk);
const reader = new Reader(jump);

function showChunk(chunk) {
  const attempts = chunk.attempts?.length ?? 0;
  $("grid").setAttribute("aria-valuenow", chunk.index + 1);
  $("grid").setAttribute("aria-valuetext", `${chunk.index + 1} of ${chunks.length}, ${chunk.state}, ${attempts} attempts${chunk.reason ? `, ${chunk.reason}` : ""}`);
  facts($("chunk"), [
    ["Chunk", `${chunk.index + 1} of ${chunks.length}`],
    ["State", chunk.state],
    ["Attempts", attempts],
    ["Backend", chunk.backend ?? "–"],
    ["Timeout", chunk.timeout_ms ? `${chunk.timeout_ms.toLocaleString()} ms` : "–"],
    ["Reason", chunk.reason],
  ]);
}

function show(news) {
  Object.assign(job, news);
  const c = job.chunks;
  $("status").textContent = job.status.replaceAll("_", " ");
  $("job-title").textContent = job.metadata?.title || job.id;
  $("progress").value = job.progress;
  facts($("facts"), [
    ["Chunks", `${c.completed.toLocaleString()} of ${c.total.toLocaleString()}${c.failed ? `, ${c.failed} failed` : ""}`],
    ["Audio ready", clock(job.audio_seconds_ready)],
    ["Time left", ended() ? null : clock(job.eta_seconds)],
    ["orchestratorTimeoutMs", job.orchestrator_timeout_ms.toLocaleString()],
    ["Job", job.id],
  ]);
  $("facts").lastElementChild.className = "id";
  $("error").textContent = job.error?.message || "";
  $("error").hidden = !job.error;
  $("retry").hidden = !["failed", "completed_with_gaps"].includes(job.status);
  $("cancel").hidden = ended();
  $("play").disabled = !(c.completed > 0 && (job.status !== "failed" && job.status !== "cancelled" || ended()));
  $("seek").max = Math.max(1, job.audio_seconds_ready);
  downloads();
  if (job.audio_seconds_ready > 0) loadCaptions(ended());
}

function downloads() {
  const box = $("downloads");
  const state = `${job.id} ${job.status}`;
  if (box.dataset.state === state) return;
  box.dataset.state = state;
  if (!ended() || !job.chunks.completed) return box.replaceChildren(el("span", "When the job has ended.", { class: "muted" }));
  const gaps = job.status === "completed" ? "" : "&gaps=silence";
  const names = ["mp3", "wav", "flac", "opus"].map((f) => [f, `/audio?format=${f}${gaps}`, f === "opus" ? "ogg" : f]);
  names.push(["captions (srt)", "/captions.srt", "srt"], ["captions (vtt)", "/captions.vtt", "vtt"], ["receipt", "/manifest", "json"]);
  box.replaceChildren(
    ...names.map(([label, rest, suffix]) => {
      const link = el("a", label, { class: "button", href: path(rest), download: `${job.id}.${suffix}` });
      link.addEventListener("click", (event) => key.get() && (event.preventDefault(), save(link)));
      return link;
    }),
  );
}

// With a key a plain link would be refused: fetch it with the key, then save the bytes.
async function save(link) {
  try {
    const url = URL.createObjectURL(await (await ask(link.getAttribute("href"))).blob());
    el("a", "", { href: url, download: link.getAttribute("download") }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    notice(error.message);
  }
}

async function loadCaptions(now) {
  const mine = watching;
  if (!now && performance.now() - captionsAt < Math.max(1500, chunks.length)) return;
  captionsAt = performance.now();
  try {
    const found = await json(path("/captions.json"));
    if (watching !== mine) return;
    captions = found.captions.filter((caption) => caption.start !== null);
    reader.captions(captions, chunks);
  } catch {
    // The next progress asks again; the text is readable without captions.
  }
}

async function load() {
  const mine = watching;
  const found = (await json(path("/chunks"))).data;
  if (mine !== watching) return;
  chunks = found;
  grid.set(chunks);
  $("grid").setAttribute("aria-valuemax", chunks.length);
  showChunk(chunks[Math.min(grid.chosen, chunks.length - 1)]);
}

function onEvent(type, data) {
  if (type === "chunk" && chunks[data.index]) {
    chunks[data.index] = data;
    reader.state(data);
    grid.draw();
    if (data.index === grid.chosen) showChunk(data);
  } else if (type !== "chunk") show(data);
}

async function watch(signal) {
  let last = "";
  while (!signal.aborted && !ended()) {
    try {
      await events(path("/events"), last, signal, (type, data, id) => {
        if (signal.aborted) return;
        last = id || last;
        onEvent(type, data);
      });
    } catch {
      if (signal.aborted) return;
    }
    if (ended()) break;
    // The stream broke: poll once, then try it again.
    await new Promise((resolve) => setTimeout(resolve, job.poll_after_ms));
    if (signal.aborted) return;
    try {
      show(await json(path()));
      await load();
      chunks.forEach((chunk) => reader.state(chunk));
    } catch (error) {
      if ([401, 404, 410].includes(error.status)) return notice(error.message);
    }
  }
  if (signal.aborted) return;
  show(await json(path()));
  await load();
  chunks.forEach((chunk) => reader.state(chunk));
  document.dispatchEvent(new Event("jobs-changed"));
}

export async function openJob(id) {
  watching?.abort();
  watching = new AbortController();
  const { signal } = watching;
  job = { id };
  captions = [];
  chunks = [];
  captionsAt = 0;
  resetAudio();
  try {
    job = await json(path());
    await load();
    if (signal.aborted) return;
    let text = null;
    try { text = sessionStorage.getItem(`tts-text-${id}`); } catch { /* storage is off */ }
    reader.show(text, chunks);
    show({});
    watch(signal).catch((error) => notice(error.message));
  } catch (error) {
    if (!signal.aborted) notice(error.message);
  }
}

function resetAudio() {
  audio.pause();
  if (source.startsWith("blob:")) URL.revokeObjectURL(source);
  source = "";
  audio.removeAttribute("src");
  audio.load();
}

// The live stream while the job runs, the file with ranges after it. With a key: the bytes, fetched with the key.
async function setSource(at = 0) {
  const gaps = job.status === "completed" ? "" : "&gaps=silence";
  const wanted = path(ended() ? `/audio?format=mp3${gaps}` : "/audio?live=1&format=mp3");
  if (audio.dataset.from === wanted && source) return;
  resetAudio();
  audio.dataset.from = wanted;
  source = key.get() ? URL.createObjectURL(await (await ask(wanted)).blob()) : wanted;
  audio.src = source;
  if (at) audio.currentTime = at;
}

async function play() {
  try {
    if (!audio.paused) return audio.pause();
    if (key.get() && !ended()) return notice("With an API key the audio can be heard here once the job has ended.");
    if (!source || audio.ended) await setSource();
    await audio.play();
  } catch (error) {
    if (error.name !== "AbortError") notice(`Playing failed: ${error.message}`);
  }
}

async function jump(seconds) {
  try {
    if (key.get() && !ended()) return;
    const within = [...Array(audio.buffered.length).keys()].some((i) => audio.buffered.start(i) <= seconds && seconds < audio.buffered.end(i));
    if (source && within) audio.currentTime = seconds + 0.01;
    else if (ended()) {
      await setSource();
      audio.currentTime = seconds + 0.01;
    } else return notice("This sentence can be reached as soon as its audio has arrived.");
    notice("");
    await audio.play();
  } catch (error) {
    if (error.name !== "AbortError") notice(`Playing failed: ${error.message}`);
  }
}

function tick() {
  const t = audio.currentTime;
  $("seek").value = t;
  $("time").textContent = `${clock(t)} / ${clock(job?.audio_seconds_ready ?? 0)}`;
  let [low, high] = [0, captions.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (captions[middle].start <= t) low = middle + 1;
    else high = middle;
  }
  reader.mark(low && !audio.paused ? captions[low - 1].index : reader.now);
  if (!ended() && (!captions.length || t > captions.at(-1).end - 5)) loadCaptions(false);
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
  $("play").addEventListener("click", play);
  $("seek").addEventListener("change", () => jump(Number($("seek").value)));
  for (const type of ["timeupdate", "seeked"]) audio.addEventListener(type, tick);
  for (const type of ["play", "pause", "ended"]) audio.addEventListener(type, () => ($("play").textContent = audio.paused ? "Play" : "Pause"));
  audio.addEventListener("error", () => source && notice("The audio stream broke off. Play starts it again."));
  $("retry").addEventListener("click", () => act("POST", "/retry", () => openJob(job.id)));
  $("cancel").addEventListener("click", () => {
    resetAudio(); // the live stream of a cancelled job breaks off
    act("POST", "/cancel", async (answer) => show(await answer.json()));
  });
  $("delete").addEventListener("click", () => confirm("Delete this job and its audio?") && act("DELETE", "", onGone));
}

export function closeJob() {
  watching?.abort();
  resetAudio();
}
