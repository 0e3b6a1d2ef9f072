// The tail of a log, with search. It follows the end unless the reader has scrolled up.
export default {
  template: `<div class="dl-col">
    <div class="dl-row between">
      <input class="dl-search" type="search" :placeholder="search" :aria-label="search" v-model="wanted">
      <span class="dl-small dl-muted" aria-live="polite">{{ wanted ? found : "" }}</span>
    </div>
    <div class="dl-log" ref="log" tabindex="0" role="log" :aria-label="label"><template v-for="(part, i) in parts" :key="i"><mark v-if="part[1]">{{ part[0] }}</mark><template v-else>{{ part[0] }}</template></template></div>
  </div>`,
  props: { text: String, label: String, search: String, matches: String, empty: String },
  data() { return { all: this.text, wanted: "" }; },
  computed: {
    lines() {
      if (!this.wanted) return this.all;
      const needle = this.wanted.toLowerCase();
      return this.all.split("\n").filter((line) => line.toLowerCase().includes(needle)).join("\n");
    },
    found() { return `${this.lines ? this.lines.split("\n").length : 0} ${this.matches}`; },
    parts() {
      if (!this.all) return [[this.empty, false]];
      if (!this.wanted) return [[this.lines, false]];
      const parts = [], needle = this.wanted.toLowerCase(), text = this.lines, low = text.toLowerCase();
      let at = 0;
      for (let next = low.indexOf(needle); next >= 0; next = low.indexOf(needle, at)) {
        parts.push([text.slice(at, next), false], [text.slice(next, next + needle.length), true]);
        at = next + needle.length;
      }
      parts.push([text.slice(at), false]);
      return parts;
    },
  },
  mounted() { this.end(); },
  methods: {
    append(text) {
      const log = this.$refs.log, isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      this.all = (this.all + text).slice(-200000);
      if (isAtEnd) this.$nextTick(this.end);
    },
    end() { const log = this.$refs.log; if (log) log.scrollTop = log.scrollHeight; },
  },
};
