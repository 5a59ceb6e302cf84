// The text of a job: a span per chunk, split into sentences once captions say where they are heard.
import { $, el, slicer } from "/ui/dom.js";

export class Reader {
  constructor(onJump) {
    this.onJump = onJump;
    $("reader").addEventListener("click", (event) => this.jump(event.target));
    $("reader").addEventListener("keydown", (event) => {
      const keys = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
      const current = event.target.closest(".s");
      if (event.key === "Enter" || event.key === " ") this.jump(event.target, event);
      if (!current || !(event.key in keys)) return;
      event.preventDefault();
      const all = [...$("reader").querySelectorAll(".s")];
      all[all.indexOf(current) + keys[event.key]]?.focus();
    });
  }

  show(text, chunks) {
    this.slice = text === null ? null : slicer(text);
    this.spans = new Map();
    this.sentences = new Map();
    this.now = null;
    $("reader").replaceChildren();
    if (!this.slice) $("reader").textContent = "";
    let group = null;
    for (const chunk of chunks) {
      if (!group || group.childElementCount >= 40) $("reader").append((group = el("span", "", { class: "group" })));
      const span = el("span", this.slice ? this.slice(chunk.char_start, chunk.char_end) : "");
      span.className = `c ${chunk.state}`;
      this.spans.set(chunk.index, span);
      group.append(span);
    }
  }

  state(chunk) {
    const span = this.spans?.get(chunk.index);
    if (span) span.className = `c ${chunk.state}`;
  }

  captions(captions, chunks) {
    const whole = this.slice || (() => null);
    for (const caption of captions) {
      if (this.sentences.has(caption.index) || caption.start === null) continue;
      const made = [];
      for (const index of caption.chunks) {
        const chunk = chunks[index];
        const span = this.spans.get(index);
        if (!chunk || !span) continue;
        const from = Math.max(caption.char_start, chunk.char_start);
        const to = Math.min(caption.char_end, chunk.char_end);
        const sentence = el("span", whole(from, to) ?? `${caption.text} `, { class: "s", role: "button", tabindex: made.length || this.sentences.size ? "-1" : "0" });
        sentence.dataset.start = caption.start;
        made.push(sentence);
        if (span.dataset.to === undefined) {
          span.textContent = "";
          span.dataset.to = chunk.char_start;
        } else if (this.slice) {
          span.lastChild.remove();
        }
        span.append(whole(Number(span.dataset.to), from) ?? "", sentence);
        if (this.slice) span.append(document.createTextNode(whole(to, chunk.char_end)));
        span.dataset.to = to;
      }
      this.sentences.set(caption.index, made);
    }
  }

  mark(index) {
    if (index === this.now) return;
    for (const old of this.sentences?.get(this.now) || []) old.classList.remove("now");
    this.now = index;
    const made = this.sentences?.get(index) || [];
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
