// Talks to the service. The key, if there is one, lives in sessionStorage and leaves in a header, never in a URL.
export const JOBS = "/v1/audio/speech/jobs";
const QUIET_MS = 45_000; // the service sends a comment every 15 s: a stream that is silent for longer is dead

export const key = {
  get: () => sessionStorage.getItem("tts-key") || "",
  set: (value) => (value ? sessionStorage.setItem("tts-key", value) : sessionStorage.removeItem("tts-key")),
};

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, { method = "GET", body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (key.get()) sent.authorization = `Bearer ${key.get()}`;
  if (body) sent["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers: sent, body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The service cannot be reached.");
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new ApiError(answer.status, problem.error?.message || `The service answered with HTTP ${answer.status}.`);
  }
  return answer;
}

export const json = async (path, options) => (await ask(path, options)).json();

// Server-sent events over fetch: EventSource cannot send a key. Returns when the stream ends.
export async function events(path, lastId, signal, onOpen, onEvent) {
  const headers = { accept: "text/event-stream" };
  if (lastId) headers["last-event-id"] = lastId;
  const quiet = new AbortController();
  let timer = setTimeout(() => quiet.abort(), QUIET_MS);
  try {
    const answer = await ask(path, { headers, signal: AbortSignal.any([signal, quiet.signal]) });
    if (answer.status === 204) return;
    onOpen();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => quiet.abort(), QUIET_MS);
      rest += value;
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop();
      blocks.map(parsed).forEach(({ type, data, id }) => data && onEvent(type, JSON.parse(data), id));
    }
  } finally {
    clearTimeout(timer);
  }
}

function parsed(block) {
  const event = { type: "message", id: "", data: "" };
  for (const line of block.split(/\r?\n/)) {
    const [, name, text] = line.match(/^(\w+): ?(.*)$/) || [];
    if (name === "event") event.type = text;
    if (name === "id") event.id = text;
    if (name === "data") event.data += text;
  }
  return event;
}
