// A place for files: dropped or chosen, sent in pieces that are acknowledged one by one, going on by itself after an interruption.
const PIECE = 4 * 1024 * 1024, LEAST_PIECE = 256 * 1024;
const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
const sha256 = async (bytes) => hex(await crypto.subtle.digest("SHA-256", bytes)); // only where the page came safely: https, or this machine

export default {
  template: `<div>
    <div class="dl-drop" :class="{ over: isOver }" role="button" tabindex="0" @click="$refs.input.click()" @keydown.enter.prevent="$refs.input.click()"
      @keydown.space.prevent="$refs.input.click()" @dragover.prevent="isOver = true" @dragleave="isOver = false" @drop.prevent="take($event.dataTransfer.files)">
      <strong>{{ label }}</strong>
      <span class="dl-small dl-muted">{{ words.text }}</span>
    </div>
    <input ref="input" type="file" hidden :accept="accept" :aria-label="label" @change="take($event.target.files)">
    <div v-if="file" class="dl-col" style="margin-top: 12px">
      <div class="dl-row between dl-small"><span class="dl-clip">{{ file.name }}</span><span aria-live="polite">{{ told }}</span></div>
      <div class="dl-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" :aria-valuenow="Math.round(share * 100)" :aria-label="file.name"><div :style="{ width: share * 100 + '%' }"></div></div>
    </div>
  </div>`,
  props: { label: String, words: Object, accept: String, head: Number, token: String },
  data: () => ({ isOver: false, file: null, sent: 0, state: "" }),
  computed: {
    share() { return this.file ? this.sent / Math.max(1, this.file.size) : 0; },
    told() { return this.state ? this.words[this.state] : `${(this.sent / 1e6).toFixed(1)} / ${(this.file.size / 1e6).toFixed(1)} MB`; },
  },
  methods: {
    async take(files) {
      this.isOver = false;
      if (!files.length || this.file) return;
      const file = this.file = files[0];
      this.sent = 0;
      this.state = "";
      let head = "";
      try {
        head = btoa(String.fromCharCode(...new Uint8Array(await file.slice(0, this.head).arrayBuffer())));
      } catch (error) { return this.unreadable(); } // a folder, or a file that went away
      this.$emit("begin", { name: file.name, size: file.size, head });
      this.$refs.input.value = "";
    },
    refuse() { this.file = null; },
    unreadable() {
      this.file = null;
      this.$emit("failed", { what: this.words.unreadable, why: this.words.unreadable_why, fix: this.words.unreadable_fix });
    },
    async ask(url, options) { // the answer, or null when there is none: the network, or what stands before the server, is away
      const headers = { ...options.headers, ...(this.token ? { "x-csrf-token": this.token } : {}) };
      try {
        const answer = await fetch(`${window.path_prefix ?? ""}${url}`, { ...options, headers });
        const told = await answer.json().catch(() => null);
        if (answer.status === 413 && !told?.code) return { isTooMuch: true };
        return told && { ...told, isBusy: [408, 429, 502, 503, 504].includes(answer.status) };
      } catch (error) { return null; }
    },
    async isSame(id, offset) { // whether what has arrived is the beginning of this file
      if (!globalThis.crypto?.subtle) return false;
      this.state = "comparing";
      const pieces = [];
      for (let start = 0; start < offset; start += PIECE) pieces.push(await sha256(await this.file.slice(start, Math.min(offset, start + PIECE)).arrayBuffer()));
      const told = await this.ask(`/studio-upload/${id}/compare?size=${PIECE}&length=${offset}`, { method: "POST", body: JSON.stringify(pieces), headers: { "content-type": "application/json" } });
      this.state = "";
      return told?.is_same === true;
    },
    async send(id, offset) {
      const file = this.file;
      if (!file) return;
      try {
        if (offset && !(await this.isSame(id, offset))) return this.$emit("other", { name: file.name, size: file.size });
        if (!(await this.sendAll(id, offset))) return;
        this.state = "finishing";
        this.$emit("done", id);
      } catch (error) { this.unreadable(); } // only reading the file throws here
    },
    async sendAll(id, offset) {
      this.sent = offset;
      let pause = 500, piece = PIECE, damaged = 0;
      while (this.sent < this.file.size) {
        const bytes = await this.file.slice(this.sent, this.sent + piece).arrayBuffer();
        const check = globalThis.crypto?.subtle ? { "x-piece-sha256": await sha256(bytes) } : {};
        const told = await this.ask(`/studio-upload/${id}?offset=${this.sent}`, { method: "PUT", body: bytes, headers: { "content-type": "application/octet-stream", ...check } });
        if (told?.isTooMuch && piece > LEAST_PIECE) { piece /= 2; continue; } // a proxy takes smaller requests only
        if (told?.received_bytes !== undefined) {
          this.sent = told.received_bytes;
          this.state = "";
          pause = 500;
        } else if (told?.code === "DL753" && damaged++ < 5) {
          continue; // damaged on its way
        } else if (told?.code && !told.isBusy) {
          this.file = null;
          this.$emit("failed", told);
          return false;
        } else {
          this.state = told ? "busy" : "waiting";
          await new Promise((done) => setTimeout(done, pause));
          pause = Math.min(10000, pause * 2);
        }
      }
      return true;
    },
  },
};
