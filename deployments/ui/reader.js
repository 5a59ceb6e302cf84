// The text of a job: a span per chunk, split into sentences once captions say where they are heard.
import { $, el, slicer, slices } from "/ui/dom.js";

// Chunks in one block, whose layout the browser may put off while it is out of sight. A block ends with a paragraph, but
// a text of very many sentences without one is cut all the same: one flow of 10,000 would be laid out anew at every change.
const GROUP = 30;
const LONGEST_GROUP = 80;

export class Reader {
  constructor(onJump) {
    this.onJump = onJump;
    this.work = Promise.resolve(); // one thing at a time is done to the text
    this.turn = 0;
    $("reader").addEventListener("click", (event) => this.jump(event.target));
    $("reader").addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const keys = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
    const current = event.target.closest(".s");
    if (event.key === "Enter" || event.key === " ") this.jump(event.target, event);
    if (!current || !(event.key in keys)) return;
    event.preventDefault();
    const all = [...$("reader").querySelectorAll(".s")];
    all[all.indexOf(current) + keys[event.key]]?.focus();
  }

  // text: null if only the captions know it.
  show(text, chunks) {
    const turn = ++this.turn;
    this.slice = text === null ? null : slicer(text);
    this.spans = new Map();
    this.sentences = new Map();
    this.now = null;
    $("reader").replaceChildren();
    $("reader").classList.toggle("unknown", text === null);
    this.work = this.build(turn, chunks);
    return this.work;
  }

  async build(turn, chunks) {
    const rest = slices();
    let group = null;
    let boundary = "";
    for (const chunk of chunks) {
      const count = group?.childElementCount ?? LONGEST_GROUP;
      if (count >= LONGEST_GROUP || (count >= GROUP && boundary === "paragraph")) {
        await rest();
        if (turn !== this.turn) return;
        $("reader").append((group = el("div", "", { class: "group" })));
      }
      boundary = chunk.boundary;
      const span = el("span", this.slice ? this.slice(chunk.char_start, chunk.char_end) : "", { class: `c ${chunk.state}` });
      this.spans.set(chunk.index, span);
      group.append(span);
    }
  }

  state(chunk) {
    const span = this.spans?.get(chunk.index);
    const name = `c ${chunk.state}`;
    if (span && span.className !== name) span.className = name;
  }

  captions(captions, chunks) {
    const turn = this.turn;
    this.work = this.work.then(() => this.split(turn, captions, chunks));
    return this.work;
  }

  async split(turn, captions, chunks) {
    const rest = slices();
    for (const caption of captions) {
      if (this.sentences.has(caption.index)) continue;
      await rest();
      if (turn !== this.turn) return;
      const made = caption.chunks.filter((index) => chunks[index] && this.spans.has(index)).map((index) => this.part(caption, chunks[index]));
      this.sentences.set(caption.index, made);
    }
  }

  // The part of a sentence that lies in this chunk, cut out of the chunk's text.
  part(caption, chunk) {
    const span = this.spans.get(chunk.index);
    const whole = this.slice || (() => null);
    const from = Math.max(caption.char_start, chunk.char_start);
    const to = Math.min(caption.char_end, chunk.char_end);
    const first = !this.sentences.size && from === caption.char_start;
    const sentence = el("span", whole(from, to) ?? `${caption.text} `, { class: "s", role: "button", tabindex: first ? "0" : "-1" });
    sentence.dataset.start = caption.start;
    if (span.dataset.to === undefined) {
      span.textContent = "";
      span.dataset.to = chunk.char_start;
    } else if (this.slice) {
      span.lastChild.remove();
    }
    span.append(whole(Number(span.dataset.to), from) ?? "", sentence);
    if (this.slice) span.append(document.createTextNode(whole(to, chunk.char_end)));
    span.dataset.to = to;
    return sentence;
  }

  mark(index) {
    if (index === this.now || !this.sentences?.has(index)) return;
    for (const old of this.sentences.get(this.now) || []) old.classList.remove("now");
    this.now = index;
    const made = this.sentences.get(index);
    for (const sentence of made) sentence.classList.add("now");
    if (!made.length) return;
    const box = $("reader");
    const [inside, outside] = [made[0].getBoundingClientRect(), box.getBoundingClientRect()];
    if (inside.top < outside.top || inside.bottom > outside.bottom) box.scrollTop += inside.top - outside.top - box.clientHeight / 3;
  }

  jump(target, event) {
    const sentence = target.closest(".s");
    if (!sentence) return;
    event?.preventDefault();
    this.onJump(Number(sentence.dataset.start));
  }
}
