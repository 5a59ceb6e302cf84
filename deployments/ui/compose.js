// The form: text, how to speak it, the plan of a dry run, and the start.
import { JOBS, json } from "/ui/api.js";
import { $, clock, el, facts, notice } from "/ui/dom.js";
import { textOf } from "/ui/files.js";

const SAMPLE = `The last ferry left at nine, and the harbour went quiet. Only the lamp on the pier kept its slow count.

Ada read the letter again. It was short, and it was kind. "Come when the tide is low," it said, "and bring the dog."

She folded it twice. Outside, the rain had stopped. Somewhere a door closed, and the whole street seemed to listen.`;
let planning = 0;
let timer = 0;

function body() {
  return {
    model: $("model").value || "tts-1",
    input: $("text").value,
    response_format: $("format").value,
    speed: Number($("speed").value),
    chunking: { mode: $("chunking").value },
    on_chunk_failure: $("gaps").checked ? "silence" : "fail",
    ...($("voice").value ? { voice: $("voice").value } : {}),
  };
}

async function plan() {
  const turn = ++planning;
  $("start").disabled = true;
  facts($("plan"), []);
  $("plan-note").hidden = false;
  $("plan-note").textContent = "The plan appears when there is text.";
  if (!$("text").value.trim()) return;
  try {
    const found = await json(`${JOBS}?dry_run=true`, { method: "POST", body: body() });
    if (turn !== planning) return;
    facts($("plan"), [
      ["Chunks", found.chunks.length.toLocaleString()],
      ["Characters", found.character_count.toLocaleString()],
      ["Audio, about", clock(found.estimated_audio_seconds)],
      ["Ready in, about", found.estimated_finish_seconds === null ? null : clock(found.estimated_finish_seconds)],
      ["Longest attempt", `${found.orchestrator_timeout_ms.toLocaleString()} ms`],
      ["Job deadline", clock(found.job_timeout_ms / 1000)],
    ]);
    $("plan-note").textContent = found.warnings.join(" ");
    $("plan-note").hidden = !found.warnings.length;
    $("start").disabled = false;
  } catch (error) {
    if (turn === planning) $("plan-note").textContent = error.message;
  }
}

function changed() {
  $("characters").textContent = `${$("text").value.length.toLocaleString()} characters`;
  $("speed-shown").textContent = `${Number($("speed").value).toFixed(2)}×`;
  clearTimeout(timer);
  timer = setTimeout(plan, 350);
}

async function open(file) {
  if (!file) return;
  try {
    $("text").value = await textOf(file);
    notice("");
  } catch (error) {
    notice(`${file.name}: ${error.message}`);
  }
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
      event.preventDefault();
      drop.classList.toggle("dropping", type === "dragover");
      if (type === "drop") open(event.dataTransfer.files[0]);
    });
  }
  $("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    $("start").disabled = true;
    try {
      const words = $("text").value.slice(0, 500).trim().replace(/\s+/g, " ");
      const title = words.length > 60 ? `${words.slice(0, 60).replace(/ \S*$/, "")} …` : words;
      const job = await json(JOBS, { method: "POST", body: { ...body(), metadata: { title } } });
      notice("");
      onStarted(job, $("text").value);
    } catch (error) {
      notice(error.message);
    }
    $("start").disabled = false;
  });
  const [voices, models] = await Promise.all([json("/v1/audio/voices"), json("/v1/models")]);
  $("voice").append(...voices.voices.filter((v) => v.id !== "default").map((v) => el("option", v.name || v.id, { value: v.id })));
  $("model").replaceChildren(...models.data.map((m) => el("option", m.id, { value: m.id })));
  if ($("text").value) changed();
}
