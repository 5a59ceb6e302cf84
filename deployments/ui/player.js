// The audio element: the live stream while the job is rendered, the file with ranges after it; which sentence is heard.
import { ask, key } from "/ui/api.js";
import { $, clock, notice } from "/ui/dom.js";

const RENEW_MS = 20 * 60_000; // a permit lasts an hour
const audio = $("audio");

export class Player {
  // view: the job as it is known, its captions and address; onSentence hears which caption is spoken.
  constructor(view, onSentence) {
    this.view = view;
    this.onSentence = onSentence;
    this.source = "";
    this.permitted = { path: "", at: 0 };
    $("play").addEventListener("click", () => this.toggle());
    $("seek").addEventListener("change", () => this.jump(Number($("seek").value)));
    for (const type of ["timeupdate", "seeked"]) audio.addEventListener(type, () => this.tick());
    for (const type of ["play", "pause", "ended", "emptied"]) audio.addEventListener(type, () => ($("play").textContent = audio.paused ? "Play" : "Pause"));
    audio.addEventListener("error", () => this.source && this.broke());
  }

  reset() {
    audio.pause();
    this.source = "";
    audio.removeAttribute("src");
    audio.load();
  }

  broke() {
    this.reset();
    notice("The audio stream broke off. Play starts it again.");
  }

  // <audio> and links cannot send the key. With it the page asks for a permit: a cookie that opens this one job for reading.
  async permit() {
    const path = this.view.path();
    if (!key.get() || (this.permitted.path === path && Date.now() - this.permitted.at < RENEW_MS)) return;
    await ask(`${path}/listen`, { method: "POST" });
    this.permitted = { path, at: Date.now() };
  }

  async load() {
    const { path, job, ended } = this.view;
    const gaps = job().status === "completed" ? "" : "&gaps=silence";
    const wanted = path(ended() ? `/audio?format=mp3${gaps}` : "/audio?live=1&format=mp3");
    if (this.source === wanted) return;
    await this.permit();
    this.reset();
    this.source = wanted;
    audio.src = wanted;
  }

  async toggle() {
    if (!audio.paused) return audio.pause();
    await this.play(async () => (this.source && !audio.ended) || this.load());
  }

  async jump(seconds) {
    const within = [...Array(audio.buffered.length).keys()].some((i) => audio.buffered.start(i) <= seconds && seconds < audio.buffered.end(i));
    if (!(this.source && within) && !this.view.ended()) return notice("This sentence can be reached as soon as its audio has arrived: play up to it, or wait for the end of the job.");
    await this.play(async () => {
      if (!within) await this.load();
      audio.currentTime = seconds + 0.01;
    });
  }

  async play(prepare) {
    try {
      await prepare();
      notice("");
      await audio.play();
    } catch (error) {
      if (error.name !== "AbortError") notice(`Playing failed: ${error.message}`);
    }
  }

  // Seconds that can be heard: the captions know the pauses, which the job's own figure leaves out.
  length() {
    return Math.max(this.view.job()?.audio_seconds_ready ?? 0, this.view.captions().at(-1)?.end ?? 0);
  }

  tick() {
    const t = audio.currentTime;
    const captions = this.view.captions();
    $("seek").max = Math.max(1, this.length());
    $("seek").value = t;
    $("time").textContent = `${clock(t)} / ${clock(this.length())}`;
    $("seek").setAttribute("aria-valuetext", $("time").textContent);
    let [low, high] = [0, captions.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (captions[middle].start <= t) low = middle + 1;
      else high = middle;
    }
    if (this.source && low) this.onSentence(captions[low - 1].index);
    if (!audio.paused) this.permit().catch(() => {}); // what it had to say, playing says
  }
}
