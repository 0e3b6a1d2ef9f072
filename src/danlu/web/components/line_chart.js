// Curves over steps: raw and smoothed, log scale, zoom, PNG and CSV. The data stays here; the server sends only what is new.
// ECharts, a megabyte, is loaded after the page stands and hears the server: words and numbers do not wait for the drawing.

const ALPHA = 0.9;

export default {
  template: `<div class="dl-chart" :class="{ small: small, blank: isBlank }" role="img" :aria-label="label"></div>`,
  props: { series: Array, points_json: String, label: String, x: String, y: String, small: Boolean, log: Boolean },
  data: () => ({ isLog: false, isSmooth: true, isBlank: false, lines: [] }),
  mounted() {
    this.lines = this.series;
    this.points = JSON.parse(this.points_json);
    this.isLog = this.log;
    this.begun = this.begin();
  },
  beforeUnmount() {
    this.isGone = true;
    this.observer?.disconnect();
    this.scheme?.removeEventListener("change", this.draw);
    this.chart?.dispose();
  },
  methods: {
    async begin() {
      this.library = await import("nicegui-echart");
      if (this.isGone) return;
      this.observer = new ResizeObserver(() => { if (this.chart) this.chart.resize(); else if (this.$el.clientWidth) this.open(); });
      this.observer.observe(this.$el);
      this.scheme = matchMedia("(prefers-color-scheme: dark)");
      this.scheme.addEventListener("change", this.draw);
    },
    open() { // what is folded away is not drawn before somebody unfolds it
      this.chart = this.library.echarts.init(this.$el, null, { renderer: "canvas" });
      this.draw();
    },
    append(added) {
      added.forEach((points, i) => {
        for (const point of points) {
          const last = this.points[i].at(-1);
          if (!last || point[0] > last[0]) this.points[i].push(point);
        }
      });
      this.draw();
    },
    replace(series, points) { this.lines = series; this.points = points; this.draw(); },
    set_log(value) { this.isLog = value; this.draw(); },
    set_smooth(value) { this.isSmooth = value; this.draw(); },
    async png(name) {
      await this.begun;
      if (!this.chart) this.open();
      window.danlu.save(name, "image/png", this.chart.getDataURL({ pixelRatio: 2, backgroundColor: window.danlu.token("--surface") }));
    },
    csv(name) {
      const steps = [...new Set(this.points.flatMap((points) => points.map((p) => p[0])))].sort((a, b) => a - b);
      const columns = this.points.map((points) => new Map(points));
      const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
      const rows = steps.map((step) => [step, ...columns.map((column) => column.get(step) ?? "")].join(","));
      window.danlu.save(name, "text/csv", [["step", ...this.lines.map((line) => quoted(line.name))].join(","), ...rows].join("\n"));
    },
    smoothed(points) {
      let mean = 0, weight = 0;
      return points.map(([step, value]) => {
        mean = ALPHA * mean + (1 - ALPHA) * value;
        weight = ALPHA * weight + (1 - ALPHA);
        return [step, mean / weight];
      });
    },
    draw() {
      if (!this.chart) return;
      const token = window.danlu.token, ink = token("--ink"), muted = token("--muted"), line = token("--line");
      const made = [], hasPoints = this.points.some((points) => points.length);
      this.isBlank = !hasPoints;
      this.lines.forEach((kind, i) => {
        const color = token(`--chart-${kind.color}`), points = this.points[i];
        const isSmooth = kind.smooth && this.isSmooth && points.length > 4;
        const base = { type: "line", name: kind.name, showSymbol: points.length < 3 || kind.dots, symbolSize: 5, sampling: "lttb", animation: false, itemStyle: { color } };
        made.push({ ...base, id: `raw-${i}`, data: points, lineStyle: { color, width: isSmooth ? 1 : 1.75, opacity: isSmooth ? 0.4 : 1, type: kind.dash || "solid" },
          tooltip: { show: true } });
        made.push({ ...base, id: `smooth-${i}`, showSymbol: false, data: isSmooth ? this.smoothed(points) : [], lineStyle: { color, width: 1.75 }, tooltip: { show: false } });
      });
      this.chart.setOption({
        animation: false,
        textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: ink },
        grid: { left: 8, right: 16, top: 36, bottom: 28, containLabel: true },
        legend: { top: 0, left: 0, icon: "roundRect", itemWidth: 12, itemHeight: 3, textStyle: { color: ink, fontSize: 12 }, data: this.lines.map((kind) => kind.name),
          selectedMode: this.lines.length > 1, inactiveColor: muted, type: this.lines.length > 2 ? "scroll" : "plain", pageIconColor: ink, pageIconInactiveColor: line,
          pageTextStyle: { color: muted } },
        tooltip: { trigger: "axis", confine: true, backgroundColor: token("--surface"), borderColor: line, textStyle: { color: ink, fontSize: 12 },
          valueFormatter: (value) => (value === undefined ? "" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString() : Number(value).toPrecision(4)) },
        dataZoom: [{ type: "inside", filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }],
        xAxis: { show: hasPoints, type: "value", name: this.x, nameLocation: "middle", nameGap: 24, nameTextStyle: { color: muted, fontSize: 12 }, min: "dataMin", max: "dataMax",
          axisLabel: { color: muted, fontSize: 11, hideOverlap: true }, axisLine: { lineStyle: { color: line } }, splitLine: { show: false }, minInterval: 1 },
        yAxis: { show: hasPoints, type: this.isLog ? "log" : "value", scale: true, axisLabel: { color: muted, fontSize: 11,
          formatter: (value) => (Math.abs(value) >= 1e6 ? value / 1e6 + "M" : Math.abs(value) >= 1e4 ? value / 1e3 + "k" : value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(1) : +value.toPrecision(4)) },
          splitLine: { lineStyle: { color: line } } },
        series: made,
      }, { replaceMerge: ["series"] });
    },
  },
};
