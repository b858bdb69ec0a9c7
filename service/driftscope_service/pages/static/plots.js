// <plot-figure kind="drift" source="….json">: fetches what it draws, draws it again when the size or
// the theme changes, and says so in words when it cannot. Each kind is a module under plots/ with
// `option(data, theme)`, which returns an ECharts option. Without a source, `show` says what to draw.

import { readTheme } from "./plots/theme.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

class PlotFigure extends HTMLElement {
  connectedCallback() {
    this.place = this.querySelector(".chart");
    this.status = this.querySelector(".plot-status");
    this.redraw = () => this.draw();
    dark.addEventListener("change", this.redraw);
    this.observer = new ResizeObserver(() => this.chart?.resize());
    this.observer.observe(this.place);
    if (this.getAttribute("source")) this.load();
  }

  disconnectedCallback() {
    dark.removeEventListener("change", this.redraw);
    this.observer.disconnect();
    this.chart?.dispose();
    this.chart = undefined;
  }

  async load() {
    this.place.classList.add("loading");
    this.say("Loading the data of this plot …");
    try {
      const [answer, kind] = await Promise.all([
        fetch(this.getAttribute("source"), { headers: { Accept: "application/json" } }),
        import(`./plots/${this.getAttribute("kind")}.js`),
      ]);
      if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
      this.show(kind.option, await answer.json());
    } catch (error) {
      this.failed(error);
    } finally {
      this.place.classList.remove("loading");
    }
  }

  show(option, data) {
    [this.option, this.data] = [option, data];
    if (this.isConnected) this.draw();
  }

  failed(error) {
    this.dataset.state = "failed";
    this.say(`This plot could not be drawn: ${error.message}. The table below and the links still work; reload the page to try again.`, true);
  }

  draw() {
    if (!this.data) return;
    this.chart?.dispose();
    this.chart = undefined;
    const empty = this.data.rows.length === 0;
    this.place.hidden = empty;
    if (empty) {
      this.dataset.state = "empty";
      this.say(this.data.empty ?? "There is nothing to draw.");
      return;
    }
    this.chart = echarts.init(this.place, null, { renderer: this.getAttribute("renderer") ?? "canvas" });
    // Besides the option of the library: what is to be said, and where a click on a column goes.
    const { said, go, ...option } = this.option(this.data, readTheme(this));
    this.chart.setOption({ animation: !still.matches && this.dataset.state !== "drawn", animationDuration: 250, ...option });
    if (go) this.followColumns(go);
    else this.chart.on("click", (event) => event.data?.href && location.assign(event.data.href));
    this.dataset.state = "drawn";
    this.say([this.data.note, said].filter(Boolean).join(" "));
  }

  // A click anywhere within the axes goes to what stands in that column: points are small, and a line
  // of many steps has none.
  followColumns(go) {
    const chart = this.chart;
    const column = ({ offsetX, offsetY }) => (chart.containPixel({ gridIndex: 0 }, [offsetX, offsetY])
      ? chart.convertFromPixel({ gridIndex: 0 }, [offsetX, offsetY])[0] : undefined);
    const area = chart.getZr();
    area.on("click", (event) => {
      const at = column(event);
      if (at !== undefined) location.assign(go(at));
    });
    area.on("mousemove", (event) => area.setCursorStyle(column(event) === undefined ? "default" : "pointer"));
  }

  say(text, failed = false) {
    this.status.textContent = text;
    this.status.classList.toggle("failed", failed);
  }
}

customElements.define("plot-figure", PlotFigure);
