// The candidate inspector. What is drawn is decided here; what is shown and what is kept, by the kernel.

const KEYS = [
  ["l n u", "lens, not a lens, unsure"], ["1 2 3 0", "grade A, B, C, X (not a lens)"], ["x", "take label and grade away"], ["z", "undo"],
  ["e", "write a note"], ["m", "mosaic of 100 a page"], ["d", "the rest of this page: not a lens"], ["+ -", "zoom"],
  ["← → ↑ ↓", "another object"], ["PgUp PgDn", "another page"], ["r", "learn from the labels, rank anew"],
  ["s", "choose what is shown"], ["/", "search a name"], ["g", "go to a rank, name or position"],
  ["t", "next stretch"], ["c", "next colours"], ["i", "show what is known"], ["?", "these keys"],
];
const LABELS = { lens: ["l", "Lens", "★"], not: ["n", "Not a lens", "✕"], unsure: ["u", "Unsure", "?"] };
const GRADES = [["1", "A"], ["2", "B"], ["3", "C"], ["0", "X"]]; // key and grade
const GRADE_LABELS = { A: "lens", B: "lens", C: "unsure", X: "not" };
const SILENCE = 4000; // ms without an answer after which the kernel counts as gone

function render({ model, el }) {
  const view = { stretch: "asinh", units: "noise", scale: "own", colours: model.get("overview").colours[0], white: 99.9, on: true, known: false, zoom: 1 };
  let page, planes = [], selected = 0, marks = {}, extra = {}, waiting = new Map(), next = 0;

  const overview = model.get("overview");
  const choose = (name, label, options, act) => {
    const node = make("select", { "aria-label": label, name, onchange: (e) => act(e.target.value) },
      Object.entries(options).map(([value, text]) => make("option", { value }, text)));
    return [make("label", {}, make("span", {}, label), node), node];
  };
  const same = (names) => Object.fromEntries(names.map((name) => [name, name]));
  const look = (name) => (value) => { view[name] = value; drawAll(); };

  const [orderLabel, order] = choose("order", "Order", overview.orders, (v) => ask("order", v));
  const [filterLabel, filter] = choose("filter", "Show", overview.filters, (v) => ask("filter", v, search.value));
  const [stretchLabel, stretch] = choose("stretch", "Stretch", same(Object.keys(STRETCHES)), look("stretch"));
  const [unitsLabel] = choose("units", "Normalisation",
    { noise: "sky noise", flux: "flux", input: "network input" }, look("units"));
  const [scaleLabel] = choose("scale", "Scale", { own: "each its own", shared: "same for all" }, look("scale"));
  const [coloursLabel, colours] = choose("colours", "Colours", same(overview.colours), look("colours"));
  const white = make("input", {
    type: "range", min: 97, max: 100, step: 0.1, value: view.white, name: "white", "aria-label": "White level, per cent of pixels",
    oninput: (e) => { view.white = +e.target.value; drawAll(); },
  });
  const field = (label, name, hint, act) => {
    const node = make("input", {
      type: "search", name, placeholder: hint, "aria-label": label, size: 12,
      onkeydown: (e) => { if (e.key === "Enter") act(node.value); },
    });
    return node;
  };
  const search = field("Part of a name", "search", "part of a name", (v) => ask("filter", filter.value, v));
  const goto = field("Rank, name, or right ascension and declination in degrees", "goto", "rank, name, RA Dec", (v) => ask("jump", v));

  const counts = make("div", { class: "counts" });
  const gallery = make("div", { class: "gallery", role: "listbox", tabindex: -1, onclick: clicked });
  const said = make("div", { class: "said", role: "status", "aria-live": "polite" });
  const alarm = make("div", { class: "alarm", role: "alert", hidden: true });
  const where = make("span", { class: "where" });
  const turn = (step) => ask("show", page.number + step);
  const pager = make("div", { class: "pager" },
    make("button", { type: "button", "aria-label": "Previous page", onclick: () => turn(-1) }, "‹"), where,
    make("button", { type: "button", "aria-label": "Next page", onclick: () => turn(1) }, "›"));
  const title = make("h3", {}), facts = make("dl", {});
  const panels = ["image", "reconstruction", "residual"].map((name) => ({
    name, canvas: make("canvas", { role: "img" }), caption: make("figcaption", {}, name), bar: make("i", { class: "bar" }),
  }));
  const buttons = Object.entries(LABELS).map(([label, [key, text]]) =>
    make("button", { type: "button", class: `give ${label}`, "aria-pressed": "false", "aria-keyshortcuts": key, onclick: () => soon(() => give(label)) },
      text, make("kbd", {}, key)));
  const undo = make("button", { type: "button", "aria-keyshortcuts": "z", onclick: () => ask("undo") }, "Undo", make("kbd", {}, "z"));
  const learn = make("button", { type: "button", "aria-keyshortcuts": "r", title: "Train a head on the labels and rank anew", onclick: relearn },
    "Learn", make("kbd", {}, "r"));
  const rest = make("button", { type: "button", "aria-keyshortcuts": "d", onclick: () => soon(() => ask("rest")) }, "Rest of this page: not a lens", make("kbd", {}, "d"));
  const mosaic = make("button", { type: "button", "aria-pressed": "false", "aria-keyshortcuts": "m", onclick: () => soon(toggleMosaic) }, "Mosaic", make("kbd", {}, "m"));
  const grades = GRADES.map(([key, grade]) =>
    make("button", { type: "button", class: "grade", "aria-label": `Grade ${grade}`, "aria-pressed": "false", "aria-keyshortcuts": key, onclick: () => soon(() => giveGrade(grade)) }, grade, make("kbd", {}, key)));
  const note = make("input", { type: "text", name: "note", maxlength: 400, placeholder: "a note", "aria-label": "Note", onchange: writeNote,
    onkeydown: (e) => { if (e.key === "Enter") { writeNote(); gallery.children[selected]?.focus(); } } });
  const zooms = [["−", "Zoom out", -1], ["+", "Zoom in", 1]].map(([text, label, step]) =>
    make("button", { type: "button", "aria-label": label, onclick: () => zoom(step) }, text));
  const links = make("div", { class: "links" });
  const stepOn = make("input", { type: "checkbox", checked: true, onchange: (e) => { view.on = e.target.checked; } });
  const reveal = make("input", { type: "checkbox", onchange: (e) => { view.known = e.target.checked; drawDetail(); } });
  const plots = ["score", "latent space", "sky"].map((name) => ({
    name, canvas: make("canvas", { role: "img", class: "plot" }), caption: make("figcaption", {}, name),
  }));
  const help = make("dl", { class: "help", hidden: true, "aria-label": "Keys" },
    KEYS.map(([keys, what]) => make("div", {}, make("dt", {}, keys.split(" ").map((k) => make("kbd", {}, k))), make("dd", {}, what))));

  const framed = ({ canvas, caption, bar }) => make("figure", {}, make("div", { class: "frame" }, canvas, bar), caption);
  el.classList.add("lensq-inspector");
  el.append(make("section", { "aria-label": "Candidate inspector", "data-lm-suppress-shortcuts": "true", onkeydown: pressed },
    make("header", {}, make("strong", {}, "Candidates"), counts,
      make("button", { type: "button", class: "plain", "aria-keyshortcuts": "?", onclick: () => toggleHelp() }, "Keys", make("kbd", {}, "?"))),
    alarm, help,
    make("div", { class: "tools" }, orderLabel, learn, filterLabel, search, goto),
    make("div", { class: "tools" }, stretchLabel, unitsLabel, scaleLabel, coloursLabel, make("label", {}, make("span", {}, "White"), white), make("span", { class: "zoom" }, zooms)),
    make("div", { class: "main" },
      make("div", { class: "left" }, gallery, pager, make("div", { class: "pager" }, mosaic, rest), make("div", { class: "plots" }, plots.map(framed))),
      make("div", { class: "right" },
        title,
        make("div", { class: "panels" }, panels.map(framed)),
        make("div", { class: "labels" }, buttons, undo, make("label", { class: "check" }, stepOn, "step on")),
        make("div", { class: "labels" }, make("span", { class: "where" }, "Grade"), grades, note),
        facts, links,
        make("label", { class: "check" }, reveal, "show what is known", make("kbd", {}, "i")))),
    said));

  // Asking the kernel, and noticing that it does not answer.

  // Until the answer to a move is there, keys wait: the next label is meant for the object that comes.
  const later = [];
  const moving = () => [...waiting.values()].some((each) => each.moves);
  const soon = (act) => (moving() ? later.push(act) : act());
  function answered() {
    while (later.length && !moving()) later.shift()();
  }

  function ask(act, ...what) {
    const id = ++next;
    const timer = setTimeout(() => {
      alarm.hidden = false;
      alarm.textContent = "No answer from a kernel. A busy one keeps labels later; without one, as in the book, look around, but labels are not kept.";
      waiting.get(id).moves = false;
      answered();
    }, SILENCE);
    waiting.set(id, { timer, moves: !["label", "grade", "note", "hello"].includes(act) });
    model.send({ id, do: act, with: what });
  }
  model.on("msg:custom", (message) => {
    clearTimeout(waiting.get(message.done)?.timer);
    waiting.delete(message.done);
    if (!waiting.size) alarm.hidden = true;
    answered();
  });

  function give(label) {
    const item = page.items[selected];
    if (!item) return;
    marks = { ...marks, [item.name]: label };
    const [grade, text] = extraOf(item);
    extra = { ...extra, [item.name]: [GRADE_LABELS[grade] === label ? grade : "", text] };
    ask("label", item.name, label);
    stepped(label);
  }
  function giveGrade(grade) {
    const item = page.items[selected];
    if (!item) return;
    marks = { ...marks, [item.name]: GRADE_LABELS[grade] };
    extra = { ...extra, [item.name]: [grade, extraOf(item)[1]] };
    ask("grade", item.name, grade);
    stepped(grade);
  }
  function stepped(given) {
    const focused = gallery.contains(document.activeElement);
    if (given && view.on) select(selected + 1, focused);
    drawMarks();
  }
  const extraOf = (item) => extra[item?.name] || ["", ""];
  function writeNote() {
    const item = page.items[selected];
    if (!item || note.value === extraOf(item)[1]) return;
    extra = { ...extra, [item.name]: [extraOf(item)[0], note.value] };
    ask("note", item.name, note.value);
  }
  const toggleMosaic = () => ask("mosaic", !page.mosaic, selected);
  function zoom(step) {
    view.zoom = Math.min(Math.max(view.zoom * 2 ** step, 1), 8);
    drawDetail();
  }
  function relearn() {
    said.textContent = "Learning ...";
    ask("order", order.value === "uncertain" ? "uncertain" : "learnt");
  }

  // Moving about.

  function select(index, focus = true) {
    if (index >= page.items.length && page.number + 1 < page.pages) return ask("show", page.number + 1);
    if (index < 0 && page.number > 0) return ask("show", page.number - 1, page.items.length - 1);
    selected = Math.min(Math.max(index, 0), page.items.length - 1);
    [...gallery.children].forEach((node, i) => {
      node.setAttribute("aria-selected", i === selected);
      node.tabIndex = i === selected ? 0 : -1;
    });
    const node = gallery.children[selected];
    if (focus && node) node.focus({ preventScroll: true });
    drawDetail();
  }
  function clicked(event) {
    const node = event.target.closest("[role=option]");
    if (node) select([...gallery.children].indexOf(node));
  }
  const cycle = (node, name) => {
    node.selectedIndex = (node.selectedIndex + 1) % node.options.length;
    view[name] = node.value;
    drawAll();
  };
  function toggleHelp() { help.hidden = !help.hidden; }

  function pressed(event) {
    keepKeys(event);
    const typing = event.target.matches("input[type=search], input[type=text], select, input[type=range]");
    if (event.key === "Escape") { help.hidden = true; return gallery.children[selected]?.focus(); }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = getComputedStyle(gallery).gridTemplateColumns.split(" ").length;
    const act = {
      l: () => give("lens"), n: () => give("not"), u: () => give("unsure"), x: () => give(""), z: () => ask("undo"),
      ArrowRight: () => select(selected + 1), ArrowLeft: () => select(selected - 1),
      ArrowDown: () => select(Math.min(selected + columns, page.items.length - 1)),
      ArrowUp: () => select(Math.max(selected - columns, 0)),
      PageDown: () => turn(1), PageUp: () => turn(-1), Home: () => select(0), End: () => select(page.items.length - 1),
      r: relearn, s: () => filter.focus(), "/": () => search.focus(), g: () => goto.focus(),
      m: toggleMosaic, d: () => ask("rest"), e: () => note.focus(), "+": () => zoom(1), "=": () => zoom(1), "-": () => zoom(-1),
      ...Object.fromEntries(GRADES.map(([key, grade]) => [key, () => giveGrade(grade)])),
      t: () => cycle(stretch, "stretch"), c: () => cycle(colours, "colours"),
      i: () => { reveal.checked = view.known = !view.known; drawDetail(); }, "?": toggleHelp,
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    soon(act);
  }

  // Drawing.

  const short = (v) => (v >= 100 ? v.toFixed(0) : v.toPrecision(2));
  const inGrey = (values) => (page.weights.length < 3 ? values : byPixel(values, (rgb) => Array(3).fill(mean(rgb))).slice(0, values.length / 3));
  function stretched(each, plane) {
    const f = (v) => STRETCHES[view.stretch](v, each.low, each.high, each.softening), values = each.planes[plane];
    return view.colours === "colour" ? inColour(values, each.low, f) : inGrey(values).map(f);
  }
  const middle = (values) => quantile(values, 0.5);
  function scales() {
    const all = planes.map((each, i) => inUnits(each, page.items[i], view.units, page.weights));
    for (const each of all) {
      each.high = Math.max(quantile(each.planes[0], view.white / 100), each.least);
      each.residual = each.planes[1]?.map((v, p) => each.planes[0][p] - v);
      each.limit = each.residual ? Math.max(quantile(each.residual.map(Math.abs), 0.995), 1e-12) : 1;
    }
    if (view.scale === "shared" && all.length) {
      const shared = Object.fromEntries(["low", "high", "softening", "limit"].map((k) => [k, middle(all.map((each) => each[k]))]));
      for (const each of all) Object.assign(each, shared);
    }
    return all;
  }
  let drawn = [];
  function drawAll() {
    drawn = scales();
    drawn.forEach((each, i) => draw(gallery.children[i].querySelector("canvas"), page.size, stretched(each, 0), view.colours));
    drawDetail();
  }
  function drawDetail() {
    const item = page.items[selected], each = drawn[selected];
    if (!item || !each) { title.textContent = "Nothing to show: choose another filter."; return; }
    title.replaceChildren(make("span", { class: "rank" }, `${item.rank}`), item.name);
    panels.forEach(({ name, canvas, bar, caption }, i) => {
      canvas.closest("figure").hidden = i > 0 && page.planes < 2;
      if (i > 0 && page.planes < 2) return;
      const left = i === 2 && (view.colours === "colour" ? byPixel(each.residual, (rgb) => rgb) : inGrey(each.residual));
      const values = i < 2 ? stretched(each, i) : left.map((v) => 0.5 + v / each.limit / 2);
      draw(canvas, page.size, values, i < 2 ? view.colours : "difference");
      canvas.setAttribute("aria-label", `${name} of ${item.name}, rank ${item.rank}, ${view.stretch} stretch`);
      canvas.style.transform = `scale(${view.zoom})`;
      bar.style.width = i ? "0" : `${(view.zoom * 200 / page.arcsec) / page.size}%`;
      if (i === 2) caption.textContent = `residual, ±${short(each.limit)} ${view.units === "noise" ? "sky noise" : ""}${view.colours === "colour" ? ", grey is none" : ""}`;
    });
    const rows = [
      [overview.score.replaceAll("_", " "), item.score], ["lens-like", item.chance],
      ["position", item.position.sexagesimal], ["degrees", item.position.degrees], ["split", item.split],
      ["known as", item.known], ["it is", view.known ? item.truth : null],
    ].filter(([, value]) => value != null && value !== "");
    facts.replaceChildren(...rows.flatMap(([what, value]) => [make("dt", {}, what), make("dd", {}, `${value}`)]));
    links.replaceChildren(...Object.entries(item.links).map(([name, address]) =>
      make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, name)));
    if (document.activeElement !== note) note.value = extraOf(item)[1];
    const { points } = model.get("progress");
    drawHistogram(plots[0].canvas, overview.histogram, item.axis);
    drawMap(plots[1].canvas, overview.latent, points, item.latent);
    drawMap(plots[2].canvas, overview.sky, [], item.sky, overview.ends);
    plots[0].canvas.setAttribute("aria-label", `Histogram of scores; this object scores ${item.score}, rank ${item.rank} of ${page.total}`);
    plots[1].canvas.setAttribute("aria-label", `First two principal components of the latent means, this object circled, at ${item.latent.map((v) => v / 10)} per cent`);
    plots[2].canvas.setAttribute("aria-label", `Objects on the sky, this one circled, at ${item.position.degrees || "an unknown position"}`);
    drawMarks();
  }
  function drawMarks() {
    [...gallery.children].forEach((node, i) => {
      const { name, rank, score, known } = page.items[i], label = marks[name] || "";
      node.dataset.label = label;
      const [grade, text] = extraOf(page.items[i]);
      node.querySelector("b").textContent = (label ? LABELS[label][2] : "") + grade + (text ? " ✎" : "");
      node.setAttribute("aria-label", `Rank ${rank}, ${name}, score ${score}${label ? `, labelled ${label}` : ""}${grade ? `, grade ${grade}` : ""}${known ? ", a known lens" : ""}`);
    });
    const current = marks[page.items[selected]?.name] || "";
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", Object.keys(LABELS)[i] === current));
    grades.forEach((button, i) => button.setAttribute("aria-pressed", GRADES[i][1] === extraOf(page.items[selected])[0]));
  }

  function newPage() {
    const focused = el.contains(document.activeElement) && !document.activeElement.matches("input, select");
    page = model.get("page");
    const pixels = bytesOf(model.get("pixels"));
    planes = page.items.map((_, i) => decode(pixels, page, i));
    gallery.replaceChildren(...page.items.map((item) => make("div", { role: "option", tabindex: -1 },
      make("canvas", { "aria-hidden": "true" }), make("span", {}, `${item.rank}`), make("b", { "aria-hidden": "true" }),
      item.known ? make("em", { title: item.known }, "◆") : null)));
    gallery.setAttribute("aria-label", `Ranked objects, page ${page.number + 1} of ${page.pages}`);
    where.textContent = `page ${page.number + 1} of ${page.pages} · ${page.shown.toLocaleString("en")} of ${page.total.toLocaleString("en")} objects`;
    [order.value, filter.value] = [page.order, page.filter];
    marks = { ...model.get("progress").marks };
    extra = { ...model.get("progress").said };
    el.classList.toggle("mosaic", page.mosaic);
    mosaic.setAttribute("aria-pressed", page.mosaic);
    drawAll();
    select(page.select, focused);
  }
  function newProgress() {
    const { counts: given, text, file, marks: kept, said: more } = model.get("progress");
    marks = { ...kept };
    extra = { ...more };
    counts.replaceChildren(
      ...Object.entries(given).map(([label, n]) => make("span", { class: `chip ${label}` }, `${LABELS[label][2]} ${n} ${label}`)),
      make("span", { class: "file" }, `kept in ${file}`));
    said.textContent = text;
    if (page) drawDetail();
  }

  model.on("change:page", newPage);
  model.on("change:progress", newProgress);
  const resized = new ResizeObserver(() => page && drawDetail());
  resized.observe(plots[0].canvas);
  newPage();
  newProgress();
  ask("hello");
  return () => {
    resized.disconnect();
    waiting.forEach(({ timer }) => clearTimeout(timer));
    model.off("change:page", newPage);
    model.off("change:progress", newProgress);
  };
}
export default { render };
