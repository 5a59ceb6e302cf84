// Text out of what is dropped: plain files as they are, EPUB by its reading order, with the platform's own means.
const MAX_BYTES = 100_000_000;

export async function textOf(file) {
  if (!/\.epub$/i.test(file.name)) return file.text();
  const entries = await unzip(await file.arrayBuffer());
  const xml = (text, type = "application/xml") => new DOMParser().parseFromString(text, type);
  const opfPath = xml(await entries("META-INF/container.xml")).getElementsByTagNameNS("*", "rootfile")[0].getAttribute("full-path");
  const opf = xml(await entries(opfPath));
  const base = new URL(opfPath, "http://epub/");
  const items = new Map([...opf.getElementsByTagNameNS("*", "item")].map((item) => [item.id, item.getAttribute("href")]));
  const parts = [];
  for (const reference of opf.getElementsByTagNameNS("*", "itemref")) {
    const path = decodeURIComponent(new URL(items.get(reference.getAttribute("idref")), base).pathname.slice(1));
    const body = xml(await entries(path), "text/html").body; // parsed, never put into the page
    body.querySelectorAll("script, style, nav").forEach((node) => node.remove());
    const blocks = body.querySelectorAll("p, h1, h2, h3, h4, h5, h6, li, blockquote, pre");
    const leaves = [...blocks].filter((block) => !block.querySelector("p, li, h1, h2, h3, h4, h5, h6"));
    const texts = leaves.length ? leaves.map((block) => block.textContent) : [body.textContent];
    parts.push(...texts.map((text) => text.replace(/\s+/g, " ").trim()).filter(Boolean));
  }
  return parts.join("\n\n");
}

// Reads a ZIP's central directory; returns path => text.
async function unzip(buffer) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) throw new Error("this is no EPUB file");
  const found = new Map();
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left -= 1) {
    const name = view.getUint16(at + 28, true);
    found.set(new TextDecoder().decode(new Uint8Array(buffer, at + 46, name)), at);
    at += 46 + name + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return async (path) => {
    const entry = found.get(path);
    if (entry === undefined) throw new Error(`the EPUB has no ${path}`);
    if (view.getUint32(entry + 24, true) > MAX_BYTES) throw new Error(`${path} is too large`);
    const local = view.getUint32(entry + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const data = new Blob([new Uint8Array(buffer, start, view.getUint32(entry + 20, true))]);
    if (view.getUint16(entry + 10, true) === 0) return data.text();
    return new Response(data.stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
  };
}
