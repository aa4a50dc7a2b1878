// The threshold slider: everything is in the table, so that it moves without a kernel too.

const NUMBERS = {
  precision: ["Precision", "share of lenses in the list, from labelled objects"],
  recall: ["Recall", "share of the lenses that are listed, from labelled objects"],
  fdr: ["False discovery rate", "expected share of false ones in the list, from conformal p-values"],
};
const percent = (v) => (v == null ? "–" : v < 0.0995 ? `${(100 * v).toFixed(1)}%` : `${(100 * v).toFixed(0)}%`);

function render({ model, el }) {
  const table = model.get("table"), last = table.listed.length - 1;
  const slider = make("input", {
    type: "range", min: 0, max: last, step: 1, value: model.get("place"), "aria-label": "Threshold",
    oninput: (e) => { model.set("place", +e.target.value); model.save_changes(); show(); },
  });
  const shown = Object.fromEntries(Object.keys(NUMBERS).map((key) => [key, make("output", { "data-number": key })]));
  const listed = make("output", { "data-number": "listed" });
  const tile = (title, note, value) => make("div", { class: "tile", title: note }, make("span", {}, title), value);
  const histogram = make("canvas", { role: "img", class: "plot" });
  const curves = make("canvas", { role: "img", class: "plot curves" });
  const list = make("ol", { tabindex: 0, "aria-label": "Listed objects, the last first" });
  const at = make("span", { class: "where" });

  el.classList.add("lensq-inspector", "lensq-threshold");
  el.append(make("section", { "aria-label": "Threshold", "data-lm-suppress-shortcuts": "true", onkeydown: keepKeys },
    make("div", { class: "tiles" }, tile("Listed", "objects at or above the threshold", listed),
      Object.entries(NUMBERS).map(([key, [title, note]]) => tile(title, note, shown[key]))),
    make("label", { class: "slide" }, make("span", {}, "short list, sure"), slider, make("span", {}, "long list, complete")), at,
    make("div", { class: "below" },
      make("figure", {}, histogram, make("figcaption", {}, "score: all objects, and the threshold")),
      make("figure", {}, curves, make("figcaption", {}, "against the length of the list (logarithmic)")),
      make("div", {}, make("div", { class: "where" }, "last on the list"), list))));

  function drawCurves(place) {
    figure(curves, 96, (c, w, h, ink, faint) => {
      const x = (i) => 4 + (Math.log(table.listed[i]) / Math.log(Math.max(table.listed[last], 2))) * (w - 70);
      const y = (v) => 6 + (1 - v) * (h - 14);
      c.strokeStyle = faint;
      c.strokeRect(4, 6, w - 70, h - 14);
      const styles = { precision: [COLOURS.lens, []], recall: [COLOURS.not, [6, 3]], fdr: [ink, [2, 2]] };
      const rows = [];
      for (const [key, [paint, dash]] of Object.entries(styles)) {
        const known = table[key].map((v, i) => [v, i]).filter(([v]) => v != null);
        if (!known.length) continue;
        c.strokeStyle = c.fillStyle = paint;
        c.lineWidth = 2;
        c.setLineDash(dash);
        c.beginPath();
        known.forEach(([v, i], k) => (k ? c.lineTo(x(i), y(v)) : c.moveTo(x(i), y(v))));
        c.stroke();
        let row = y(known.at(-1)[0]) + 3;
        while (rows.some((other) => Math.abs(other - row) < 11)) row += row > h / 2 ? -1 : 1;
        rows.push(row);
        c.fillText(key === "fdr" ? "FDR" : key, w - 62, row);
      }
      c.setLineDash([3, 3]);
      c.strokeStyle = ink;
      c.lineWidth = 1;
      c.beginPath();
      c.moveTo(x(place), 6);
      c.lineTo(x(place), h - 8);
      c.stroke();
    });
  }
  function show() {
    const place = model.get("place"), n = table.listed[place];
    slider.value = place;
    slider.setAttribute("aria-valuetext", `${n} listed, threshold ${table.threshold[place]}`);
    listed.textContent = n.toLocaleString("en");
    for (const key of Object.keys(NUMBERS)) shown[key].textContent = percent(table[key][place]);
    at.textContent = `score ≥ ${table.threshold[place]}`;
    const first = Math.max(0, Math.min(n, table.names.length) - 60), end = Math.min(n, table.names.length);
    list.replaceChildren(...table.names.slice(first, end).map((name, i) =>
      make("li", { value: first + i + 1 }, make("span", {}, name), make("span", {}, Number(table.scores[first + i]).toPrecision(3)))).reverse());
    if (n > table.names.length) list.prepend(make("li", { class: "more" }, `and ${(n - table.names.length).toLocaleString("en")} more`));
    drawHistogram(histogram, table.histogram, null, table.axis[place]);
    histogram.setAttribute("aria-label", `Histogram of all scores, threshold at ${table.threshold[place]}`);
    drawCurves(place);
    curves.setAttribute("aria-label", `Precision ${percent(table.precision[place])}, recall ${percent(table.recall[place])}, false discovery rate ${percent(table.fdr[place])} for ${n} listed objects`);
  }
  const resized = new ResizeObserver(show);
  resized.observe(el);
  model.on("change:place", show);
  show();
  return () => { resized.disconnect(); model.off("change:place", show); };
}
export default { render };
