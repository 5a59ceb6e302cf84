// The text of an EPUB in its reading order, with the browser's own means: ZIP entries are cut out of the file, inflated by
// DecompressionStream and parsed by DOMParser into documents that run and load nothing. Pictures are never read.
const LARGEST_ENTRY_BYTES = 20_000_000;
const END_BYTES = 65_557; // the end record and the longest comment
const BLOCKS = "address, article, aside, blockquote, body, caption, dd, div, dt, figcaption, figure, h1, h2, h3, h4, h5, h6, header, footer, hr, li, main, ol, p, pre, section, table, td, th, tr, ul";
const UNSPOKEN = "script, style, template, nav, rt, rp";

class Problem extends Error {}

// Raises errors whose messages are for people. most: characters after which reading stops with one.
export async function bookText(file, most) {
  try {
    return await read(file, most);
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Error("this EPUB is damaged");
  }
}

async function read(file, most) {
  const entry = await unzip(file);
  const container = xml(await entry("META-INF/container.xml"));
  const rootPath = all(container, "rootfile")[0]?.getAttribute("full-path");
  if (!rootPath) throw new Problem("this EPUB is damaged: it does not say where its book is");
  const book = xml(await entry(rootPath));
  const base = new URL(encodeURI(rootPath), "http://epub/");
  const items = new Map(all(book, "item").map((item) => [item.getAttribute("id"), item]));
  let parts = [];
  let length = 0;
  for (const reference of all(book, "itemref")) {
    const item = items.get(reference.getAttribute("idref"));
    if (!item || !/html|^$/.test(item.getAttribute("media-type") ?? "")) continue;
    const path = decodeURIComponent(new URL(item.getAttribute("href"), base).pathname.slice(1));
    parts = parts.concat(paragraphs(await entry(path)));
    length = parts.reduce((sum, part) => sum + part.length, 0);
    if (length > most) throw new Problem(`this book has more than ${most.toLocaleString()} characters: open its parts one by one`);
  }
  if (!length) throw new Problem("there is no text in this EPUB; its pages may be pictures");
  return parts.join("\n\n");
}

const xml = (text) => new DOMParser().parseFromString(text, "application/xml");
const all = (document, name) => [...document.getElementsByTagNameNS("*", name)];

// Tags lose their attributes first: the page's policy forbids styles and handlers, here too, and says so on the console.
const plain = (html) => html.replace(/<(style|script)\b[^]*?<\/\1\s*>/gi, "").replace(/<([a-z][\w:.-]*)(?:"[^"]*"|'[^']*'|[^'">])*>/gi, "<$1>");

function paragraphs(html) {
  const { body } = new DOMParser().parseFromString(plain(html), "text/html"); // never put into the page
  body.querySelectorAll(UNSPOKEN).forEach((node) => node.remove());
  body.querySelectorAll("br").forEach((node) => node.replaceWith(" "));
  for (const block of body.querySelectorAll(BLOCKS)) {
    block.before("\0");
    block.after("\0");
  }
  return body.textContent.split("\0").map((text) => text.replace(/\s+/g, " ").trim()).filter(Boolean);
}

const view = async (file, from, to) => new DataView(await file.slice(from, to).arrayBuffer());

// Reads a ZIP's directory (APPNOTE.TXT 4.3); returns path => text. Only what is asked for is read.
async function unzip(file) {
  const tail = await view(file, Math.max(0, file.size - END_BYTES), file.size);
  let end = tail.byteLength - 22;
  while (end >= 0 && tail.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) throw new Problem("this is no EPUB, or only a part of one");
  const start = tail.getUint32(end + 16, true);
  const directory = await view(file, start, start + tail.getUint32(end + 12, true));
  const found = new Map();
  for (let at = 0, left = tail.getUint16(end + 10, true); left > 0; left -= 1) {
    const [name, extra, comment] = [28, 30, 32].map((offset) => directory.getUint16(at + offset, true));
    found.set(new TextDecoder().decode(new Uint8Array(directory.buffer, at + 46, name)), at);
    at += 46 + name + extra + comment;
  }
  if (found.has("META-INF/rights.xml") || found.has("META-INF/license.lcpl")) throw new Problem("this EPUB is locked (DRM) and cannot be read");
  return async (path) => {
    const at = found.get(path);
    if (at === undefined) throw new Problem(`this EPUB is incomplete: it has no ${path}`);
    if (directory.getUint16(at + 8, true) & 1) throw new Problem("this EPUB is locked (encrypted) and cannot be read");
    const local = directory.getUint32(at + 42, true);
    const head = await view(file, local, local + 30);
    const from = local + 30 + head.getUint16(26, true) + head.getUint16(28, true);
    const data = file.slice(from, from + directory.getUint32(at + 20, true));
    const stream = data.stream();
    return text(directory.getUint16(at + 10, true) === 0 ? stream : stream.pipeThrough(new DecompressionStream("deflate-raw")), path);
  };
}

// Counted while it is inflated: a small file can hold a very large one.
async function text(stream, path) {
  const blocks = [];
  let size = 0;
  for (const reader = stream.getReader(); ; ) {
    const { value, done } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > LARGEST_ENTRY_BYTES) {
      await reader.cancel();
      throw new Problem(`${path} in this EPUB is larger than ${LARGEST_ENTRY_BYTES / 1_000_000} MB`);
    }
    blocks.push(value);
  }
  return new Blob(blocks).text();
}
