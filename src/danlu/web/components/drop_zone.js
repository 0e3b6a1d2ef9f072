// A place for files: dropped or chosen, sent in pieces that are acknowledged one by one, going on by itself after an interruption.
const PIECE = 4 * 1024 * 1024;

export default {
  template: `<div>
    <div class="dl-drop" :class="{ over: isOver }" role="button" tabindex="0" @click="$refs.input.click()" @keydown.enter.prevent="$refs.input.click()"
      @keydown.space.prevent="$refs.input.click()" @dragover.prevent="isOver = true" @dragleave="isOver = false" @drop.prevent="take($event.dataTransfer.files)">
      <strong>{{ label }}</strong>
      <span class="dl-small dl-muted">{{ text }}</span>
    </div>
    <input ref="input" type="file" hidden :accept="accept" :aria-label="label" @change="take($event.target.files)">
    <div v-if="file" class="dl-col" style="margin-top: 12px">
      <div class="dl-row between dl-small"><span class="dl-clip">{{ file.name }}</span><span aria-live="polite">{{ told }}</span></div>
      <div class="dl-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" :aria-valuenow="Math.round(share * 100)" :aria-label="file.name"><div :style="{ width: share * 100 + '%' }"></div></div>
    </div>
  </div>`,
  props: { label: String, text: String, accept: String, waiting: String, token: String },
  data: () => ({ isOver: false, file: null, sent: 0, isWaiting: false }),
  computed: {
    share() { return this.file ? this.sent / Math.max(1, this.file.size) : 0; },
    told() { return this.isWaiting ? this.waiting : `${(this.sent / 1e6).toFixed(1)} / ${(this.file.size / 1e6).toFixed(1)} MB`; },
  },
  methods: {
    take(files) {
      this.isOver = false;
      if (!files.length || (this.file && this.sent < this.file.size && this.sent > 0)) return;
      this.file = files[0];
      this.sent = 0;
      this.$emit("begin", { name: this.file.name, size: this.file.size });
      this.$refs.input.value = "";
    },
    refuse() { this.file = null; },
    async send(id, offset) {
      this.sent = offset;
      let pause = 500;
      while (this.sent < this.file.size) {
        try {
          const answer = await fetch(`${window.path_prefix ?? ""}/studio-upload/${id}?offset=${this.sent}`, {
            method: "PUT", body: this.file.slice(this.sent, this.sent + PIECE), headers: { "content-type": "application/octet-stream", ...(this.token ? { "x-csrf-token": this.token } : {}) },
          });
          const told = await answer.json();
          if (told.received_bytes === undefined) { this.$emit("failed", told); this.file = null; return; }
          this.sent = told.received_bytes;
          this.isWaiting = false;
          pause = 500;
        } catch (error) {
          this.isWaiting = true;
          await new Promise((done) => setTimeout(done, pause));
          pause = Math.min(10000, pause * 2);
        }
      }
      this.$emit("done", id);
    },
  },
};
