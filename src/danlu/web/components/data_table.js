// A table whose rows come page by page from the server (event `request`); cards on small screens.
export default {
  template: `<div>
    <table class="dl-table cards">
      <caption class="dl-skip">{{ label }}</caption>
      <thead><tr><th v-for="c in columns" :key="c.name" scope="col" :class="{ right: c.align === 'right' }">{{ c.label }}</th></tr></thead>
      <tbody>
        <tr v-for="(row, i) in rows" :key="row.key ?? i" :class="{ link: row.href || opens }" @click="open(row, $event)">
          <td v-for="(c, j) in columns" :key="c.name" :data-label="c.label" :class="{ right: c.align === 'right', 'dl-mono': c.type === 'code' }">
            <label v-if="choose && j === 0" class="dl-check"><input type="checkbox" :checked="chosen.includes(row.key)" :aria-label="choose + ': ' + row[c.name]"
              @change="$emit('choose', [row.key, $event.target.checked])"></label>
            <a v-if="row.href && j === 0" :href="row.href">{{ row[c.name] }}</a>
            <time v-else-if="c.type === 'time' && row[c.name]" :data-at="row[c.name]"></time>
            <span v-else-if="c.type === 'badge' && row[c.name]" class="dl-badge" :class="row[c.name][1]">{{ row[c.name][0] }}</span>
            <button v-else-if="c.type === 'button'" type="button" class="dl-btn small quiet" :aria-label="c.label + ' ' + row[c.name]">{{ row[c.name] }}</button>
            <span v-else :title="row[c.name + '_title']">{{ row[c.name] ?? "–" }}</span>
          </td>
        </tr>
      </tbody>
    </table>
    <div v-if="has_next || page > 0" class="dl-tablefoot">
      <span class="dl-small dl-muted" aria-live="polite">{{ status }}</span>
      <span class="dl-row">
        <button type="button" class="dl-btn small" :disabled="page === 0" @click="$emit('request', page - 1)">{{ previous }}</button>
        <button type="button" class="dl-btn small" :disabled="!has_next" @click="$emit('request', page + 1)">{{ next }}</button>
      </span>
    </div>
  </div>`,
  props: { choose: String, chosen: Array, columns: Array, rows: Array, label: String, page: Number, has_next: Boolean, opens: Boolean, status: String, previous: String, next: String },
  methods: {
    open(row, event) {
      if (event.target.closest("a, label, input")) return;
      if (row.href) location.href = row.href;
      else this.$emit("row", row.key);
    },
  },
};
