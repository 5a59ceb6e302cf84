// Text out of what is dropped or opened. What goes wrong is said in words that help the person in front of the page.

const MEGABYTE = 1_000_000;

// limit: how many characters the service takes. Far beyond it a file is not even read.
export async function textOf(file, limit) {
  if (/\.epub$/i.test(file.name)) return (await import("/ui/epub.js")).bookText(file, 4 * limit); // with its library only when it is needed
  if (/\.(pdf|docx?|odt|rtf|mobi|azw3?)$/i.test(file.name)) throw new Error("this kind of file cannot be read here: save it as .txt or .epub");
  if (file.size > 16 * limit) {
    throw new Error(`it has ${Math.ceil(file.size / MEGABYTE).toLocaleString()} MB; the service takes at most ${limit.toLocaleString()} characters in one job`);
  }
  const text = decoded(new Uint8Array(await file.arrayBuffer()));
  if (text.includes("\0")) throw new Error("this is no text file");
  if (!text.trim()) throw new Error("the file is empty");
  return text;
}

function decoded(bytes) {
  const mark = `${bytes[0]} ${bytes[1]}`;
  if (mark === "255 254" || mark === "254 255") return new TextDecoder(mark === "255 254" ? "utf-16le" : "utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes); // what text files were before UTF-8
  }
}
