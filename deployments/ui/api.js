// Talks to the service. The key, if there is one, lives in sessionStorage and leaves in a header, never in a URL.
export const JOBS = "/v1/audio/speech/jobs";

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
  const answer = await fetch(path, { method, headers: sent, body: body && JSON.stringify(body), signal });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new ApiError(answer.status, problem.error?.message || `HTTP ${answer.status}`);
  }
  return answer;
}

export const json = async (path, options) => (await ask(path, options)).json();

// Server-sent events over fetch: EventSource cannot send a key. Returns the last event id when the stream ends.
export async function events(path, lastId, signal, onEvent) {
  const headers = { accept: "text/event-stream" };
  if (lastId) headers["last-event-id"] = lastId;
  const answer = await ask(path, { headers, signal });
  if (answer.status === 204) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { type: "message", id: "", data: "" };
      for (const line of block.split(/\r?\n/)) {
        const [, name, text] = line.match(/^(\w+): ?(.*)$/) || [];
        if (name === "event") event.type = text;
        if (name === "id") event.id = text;
        if (name === "data") event.data += text;
      }
      if (event.data) onEvent(event.type, JSON.parse(event.data), event.id);
    }
  }
}
