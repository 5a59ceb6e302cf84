// The text of an EPUB in its reading order: zip.js takes the documents out of the file, DOMParser turns them into
// documents that run and load nothing. Pictures are never read.
import { BlobReader, configure, ERR_BAD_FORMAT, ERR_CENTRAL_DIRECTORY_NOT_FOUND, ERR_EOCDR_NOT_FOUND, ERR_SPLIT_ZIP_FILE, ZipReader } from "/ui/zip.min.js";

const LARGEST_ENTRY_BYTES = 20_000_000;
const NO_ZIP = [ERR_BAD_FORMAT, ERR_CENTRAL_DIRECTORY_NOT_FOUND, ERR_EOCDR_NOT_FOUND, ERR_SPLIT_ZIP_FILE];
const BLOCKS = "address, article, aside, blockquote, body, caption, dd, div, dt, figcaption, figure, h1, h2, h3, h4, h5, h6, header, footer, hr, li, main, ol, p, pre, section, table, td, th, tr, ul";
const UNSPOKEN = "script, style, template, nav, rt, rp";

configure({ useWebWorkers: false });

class Problem extends Error {}

// Raises errors whose messages are for people. most: characters after which reading stops with one.
export async function bookText(file, most) {
  try {
    return await read(file, most);
  } catch (error) {
    if (error instanceof Problem) throw error;
    if (NO_ZIP.includes(error.message)) throw new Error("this is no EPUB, or only a part of one");
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

// path => text. Only what is asked for is read.
async function unzip(file) {
  const found = new Map((await new ZipReader(new BlobReader(file)).getEntries()).map((entry) => [entry.filename, entry]));
  if (found.has("META-INF/rights.xml") || found.has("META-INF/license.lcpl")) throw new Problem("this EPUB is locked (DRM) and cannot be read");
  return async (path) => {
    const entry = found.get(path);
    if (!entry) throw new Problem(`this EPUB is incomplete: it has no ${path}`);
    if (entry.encrypted) throw new Problem("this EPUB is locked (encrypted) and cannot be read");
    return text(entry, path);
  };
}

// Counted while it is inflated: a small file can hold a very large one.
async function text(entry, path) {
  const blocks = [];
  let size = 0;
  const sink = new WritableStream({
    write(block, controller) {
      size += block.length;
      if (size > LARGEST_ENTRY_BYTES) controller.error();
      else blocks.push(block);
    },
  });
  try {
    await entry.getData(sink, { checkSignature: true });
  } catch (error) {
    if (size > LARGEST_ENTRY_BYTES) throw new Problem(`${path} in this EPUB is larger than ${LARGEST_ENTRY_BYTES / 1_000_000} MB`);
    throw error;
  }
  return new Blob(blocks).text();
}
