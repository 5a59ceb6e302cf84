// The form: text, how to speak it, the plan of a dry run, and the start.
import { JOBS, json } from "/ui/api.js";
import { $, characters, clock, el, facts, ms, notice } from "/ui/dom.js";
import { textOf } from "/ui/files.js";

const SAMPLE = `The last ferry left at nine, and the harbour went quiet. Only the lamp on the pier kept its slow count.

Ada read the letter again. It was short, and it was kind. "Come when the tide is low," it said, "and bring the dog."

She folded it twice. Outside, the rain had stopped. Somewhere a door closed, and the whole street seemed to listen.`;
const limit = Number(document.body.dataset.maxCharacters);
const limitBytes = Number(document.body.dataset.maxBodyBytes);
const EMPTY = "The plan appears when there is text.";
let planning = null;
let timer = 0;

function body(more = {}) {
  return JSON.stringify({
    model: $("model").value || "tts-1",
    input: $("text").value,
    response_format: $("format").value,
    speed: Number($("speed").value),
    chunking: { mode: $("chunking").value },
    on_chunk_failure: $("gaps").checked ? "silence" : "fail",
    ...($("voice").value ? { voice: $("voice").value } : {}),
    ...more,
  });
}

// What the service would refuse is said here, before anything is sent.
function tooLarge(count, sent) {
  if (count > limit) return `The text has ${count.toLocaleString()} characters; this service takes at most ${limit.toLocaleString()} in one job. Cut it into parts.`;
  const bytes = sent.length * 3 > limitBytes ? new Blob([sent]).size : 0;
  if (bytes > limitBytes) return `The text makes a request of ${bytes.toLocaleString()} bytes; this service takes at most ${limitBytes.toLocaleString()}. Cut it into parts.`;
  return "";
}

function title(text) {
  const words = [...text.slice(0, 500).trim().replace(/\s+/g, " ")];
  return words.length > 60 ? `${words.slice(0, 60).join("").replace(/ \S*$/, "")} …` : words.join("");
}

function note(text, bad = false) {
  $("plan-note").textContent = text;
  $("plan-note").hidden = !text;
  $("plan-note").className = bad ? "bad" : "muted";
}

async function plan() {
  planning?.abort();
  planning = new AbortController();
  const { signal } = planning;
  facts($("plan"), []);
  if (!$("text").value.trim()) return note(EMPTY);
  const sent = body();
  const refused = tooLarge(characters($("text").value), sent);
  if (refused) return note(refused, true);
  note("Planning …");
  try {
    const found = await json(`${JOBS}?dry_run=true`, { method: "POST", body: sent, signal });
    if (signal.aborted) return;
    const ready = found.estimated_finish_seconds;
    facts($("plan"), [
      ["Chunks", found.chunks.length.toLocaleString()],
      ["Characters", found.character_count.toLocaleString()],
      ["Audio, about", clock(found.estimated_audio_seconds)],
      ["Ready in, about", ready === null ? "known after the first call" : clock(Math.ceil(ready))],
      ["orchestratorTimeoutMs", ms(found.orchestrator_timeout_ms)],
      ["Deadline of the job", clock(found.job_timeout_ms / 1000)],
    ]);
    note(found.warnings.join(" "));
    $("start").disabled = false;
  } catch (error) {
    if (!signal.aborted) note(error.message, true);
  }
}

// As dir="auto" would, which takes the browser seconds for a book: the first letter decides.
const direction = (text) => (/^[\p{sc=Arab}\p{sc=Hebr}\p{sc=Syrc}\p{sc=Thaa}\p{sc=Nkoo}]/u.test(text.slice(0, 1000).match(/\p{L}/u)?.[0] ?? "") ? "rtl" : "ltr");

function changed() {
  const { length } = $("text").value;
  $("text").dir = direction($("text").value);
  const count = characters($("text").value);
  $("start").disabled = true;
  $("characters").textContent = `${count.toLocaleString()} of ${limit.toLocaleString()} characters`;
  $("characters").className = count > limit ? "bad" : "muted";
  $("speed-shown").textContent = `${Number($("speed").value).toFixed(2)}×`;
  clearTimeout(timer);
  timer = setTimeout(plan, 350 + length / 1000);
}

async function open(file) {
  if (!file) return;
  try {
    $("text").value = await textOf(file, limit);
    notice("");
  } catch (error) {
    notice(`${file.name}: ${error.message}.`);
  }
  $("file").value = ""; // the same file can be opened again
  changed();
}

export async function compose(onStarted) {
  $("text").addEventListener("input", changed);
  $("form").addEventListener("input", changed);
  $("sample").addEventListener("click", () => {
    $("text").value = SAMPLE;
    changed();
  });
  $("file").addEventListener("change", () => open($("file").files[0]));
  const drop = $("drop");
  for (const type of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(type, (event) => {
      if (event.dataTransfer && ![...event.dataTransfer.types].includes("Files")) return; // dragged text is the browser's to drop
      event.preventDefault();
      drop.classList.toggle("dropping", type === "dragover");
      if (type === "drop") open(event.dataTransfer.files[0]);
    });
  }
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    $("start").disabled = true;
    try {
      const job = await json(JOBS, { method: "POST", body: body({ metadata: { title: title($("text").value) } }) });
      notice("");
      onStarted(job, $("text").value);
    } catch (error) {
      notice(error.message);
    }
    $("start").disabled = false;
  });
  changed();
  const [voices, models] = await Promise.all([json("/v1/audio/voices"), json("/v1/models")]);
  $("voice").append(...voices.voices.filter((v) => v.id !== "default").map((v) => el("option", v.name || v.id, { value: v.id })));
  $("model").replaceChildren(...models.data.map((m) => el("option", m.id, { value: m.id })));
  changed();
}
