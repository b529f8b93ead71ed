// Steps through a trace: forward in the order of the tape, then back, youngest first.
"use strict";

const backward = new Map(data.backward.map((each) => [each.node, each]));
const forwardAt = new Map(data.nodes.map((each, i) => [each.id, i + 1]));
const backwardAt = new Map(data.backward.map((each, i) => [each.node, data.nodes.length + i + 1]));
const partOf = new Map(data.parts.flatMap((part) => part.nodes.map((id) => [id, part.id])));
const steps = data.nodes.length + data.backward.length;
const HOLE = "\ue0fe";  // stands in a template where its pictures differ
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let at = 0;             // the step that is shown: 0 is before the first one
let timer = 0;          // of the next step while playing
let openedBySteps = ""; // the part that stepping has opened, and closes again
const $ = (id) => document.getElementById(id);

const pair = (sign, figure) => make("span", { class: "pair" }, make("span", { class: "sign" }, sign), figure);

// --- the panel -----------------------------------------------------------------------------------------------------

function place(of) {
  const words = [of.where && `in ${of.where}`, of.source && `at ${of.source}`, `${sized(of.shape)} ${of.dtype}`];
  return make("p", { class: "place" }, make("bdi", {}, words.filter(Boolean).join(" · ")));
}

/** What says that numbers are not those that a node was computed from. */
function changed(ids) {
  const who = ids.flatMap((id, i) => [i ? " and " : "", link(id)]);
  return ids.length ? make("p", { class: "bad" }, ...who, ids.length > 1 ? " have" : " has",
    " been given other numbers since they were read here. The new ones are shown.") : "";
}

function heading(phase, ...parts) {
  return make("h2", {}, make("span", { class: `phase ${phase}` }, phase), " ", equation(...parts));
}

function welcome() {
  return [
    make("p", {}, make("span", { class: "phase forward" }, "forward"),
      " Each step computes one value from values that are there already, oldest first."),
    make("p", {}, make("span", { class: "phase backward" }, "backward"), " Each step takes a node whose gradient is complete, ",
      "because all that used it have had their turn. By the chain rule it multiplies that with the derivative of its ",
      "own operation, and adds the product to the gradient of each of its arguments."),
    make("p", {}, "A bar over a name, or ∇ before it, is the gradient of ", make("bdi", {}, data.of), " for it."),
  ];
}

function forwardPanel(of) {
  const panel = [];
  if (!of.op) {
    panel.push(heading("forward", symbol(of.id)), place(of));
    const stop = of.stop ? ` Gradients stop here: ${of.stop}.` : "";
    panel.push(make("p", {}, (of.role === "parameter" ? "Given: it has a gradient." : "Given: it has no gradient.") + stop));
    if (of.stale.length) panel.push(make("p", { class: "bad" }, "It has been given other numbers since it was read. The new ones are shown."));
    panel.push(make("div", { class: "arrays" }, matrix(of.value, equation(symbol(of.id)))));
    return panel;
  }
  const formula = of.formula < 0 ? [] : ["=", ...filled(of.formula, symbols(of)).childNodes];
  panel.push(heading("forward", symbol(of.id), ...formula), place(of));
  const line = of.each ? withNumbers(of.formula, of, of.value) : "";
  const arrays = [...new Set(of.inputs)].filter((input) => node.has(input))
    .map((input) => matrix(node.get(input).value, equation(symbol(input))));
  arrays.push(pair("→", matrix(of.value, equation(symbol(of.id)), of.each)));
  panel.push(changed(stale(of)), line, make("div", { class: "arrays" }, ...arrays));
  return panel;
}

function backwardPanel(of, step) {
  const panel = [heading("backward", barred(of.id)), place(of)];
  const waited = step.waited.flatMap((id) => [" ", make("span", { class: "done-mark" }, "✓ ", link(id))]);
  const seed = step.seed ? `${of.name} is what is differentiated: its gradient comes in from outside. ` : "";
  panel.push(make("p", { class: "why" }, make("bdi", {}, seed), ...(waited.length
    ? ["It can run now: every use of it has passed a gradient back.", ...waited]
    : [])));
  if (step.gradient === null) {
    panel.push(make("p", { class: "bad" }, `Its gradient is ${of.state}.`));
  } else {
    panel.push(make("div", { class: "arrays" }, matrix(step.gradient, make("span", {}, "upstream ", equation(barred(of.id))))));
  }
  if (of.hook) panel.push(make("p", {}, "A hook has changed this gradient."));
  const added = step.gradient === null ? "." : "; backward() adds this to its .grad.";
  if (!of.op) panel.push(make("p", {}, `It was given, so nothing goes on from here${added}`));
  panel.push(changed(stale(of)));
  for (const part of step.parts) panel.push(contribution(of, step, part));
  return panel;
}

/** What a node adds to the gradient of one of its arguments: rule, numbers, and the sum before and after. */
function contribution(of, step, part) {
  const [target, card] = [barred(part.to), make("article", {})];
  if (part.lost !== undefined) {
    card.append(equation(target), make("p", { class: "bad" }, `lost: ${part.lost}`));
    return card;
  }
  const rule = part.rule < 0 ? math("mtext", `the rule of ${of.op}`) : math("mrow", ...filled(part.rule, symbols(of)).childNodes);
  card.append(make("h3", {}, equation(target, math("mo", "+="), rule), " ",
    make("small", {}, "to ", link(part.to), `, argument ${part.argument} of ${of.op}`)));
  const product = part.product === null ? part.added : part.product;
  const elementwise = of.each && same(data.arrays[product][1], of.shape);
  const unchanged = data.patterns[part.rule] === `∇${OWN}`;
  card.append(elementwise && !unchanged ? withNumbers(part.rule, of, product, step.gradient) : "");
  const arrays = elementwise ? [] : factors(of, part);
  if (part.product !== null) {
    arrays.push(matrix(part.product, "product", elementwise), make("span", { class: "sign wide" },
      `summed over ${part.summed.length > 1 ? "axes" : "axis"} ${part.summed.join(", ")}, as ${called(part.to)} was broadcast →`));
  }
  const pickable = elementwise && part.product === null;
  if (part.before === null) {
    arrays.push(matrix(part.added, "contribution, the first one", pickable));
  } else {
    arrays.push(matrix(part.before, "before"), pair("+", matrix(part.added, "contribution", pickable)));
    arrays.push(pair("=", matrix(part.after, "after")));
  }
  card.append(make("div", { class: "arrays" }, ...arrays));
  return card;
}

/** The arrays that a rule reads besides the gradient. */
function factors(of, part) {
  const letters = part.rule < 0 ? [] : [...new Set(data.patterns[part.rule].replaceAll(`∇${OWN}`, ""))];
  const ids = letters.map((letter) => (letter === OWN ? of.id : of.inputs[letter.charCodeAt(0) - FIRST_SLOT]));
  const found = ids.filter((id) => node.has(id)).map((id) => matrix(node.get(id).value, equation(symbol(id))));
  return found.length ? [...found, make("span", { class: "sign wide" }, "with the upstream gradient, by the rule:")] : [];
}

/** The step as one sentence, for a screen reader. */
function sentence() {
  const of = current(), step = at > data.nodes.length ? backward.get(of.id) : null;
  if (!of) return `${data.of}: ${data.nodes.length} steps forward, ${data.backward.length} back. Press → or play.`;
  const count = `Step ${at} of ${steps}, ${step ? "backward" : "forward"}: `;
  if (!step) {
    const how = of.op ? `${of.name} = ${computed(of)}` : `${of.name} is given${of.stale.length ? ", and anew since it was read" : ""}`;
    return `${count}${how}, which is ${summary(of.value)}.`;
  }
  if (step.gradient === null) return `${count}the gradient of ${of.name} is ${of.state}.`;
  const often = new Map(); // by id, how often it occurs among the arguments
  for (const { to } of step.parts) often.set(to, (often.get(to) || 0) + 1);
  const on = [...often].map(([to, n]) => called(to) + (n === 1 ? "" : n === 2 ? ", twice" : `, ${n} times`));
  return `${count}the gradient of ${of.name} is complete, ${summary(step.gradient)}`
    + (on.length ? `; it goes on to ${on.join(on.length < step.parts.length ? ", and to " : " and ")}.` : "; it ends here.");
}

const computed = (of) => (of.formula < 0 ? `${of.op}(${of.inputs.map(named).join(", ")})` : texted(of.formula, of));

// --- the trace table -----------------------------------------------------------------------------------------------

const rows = new Map(data.nodes.map((of) => {
  const cells = [make("td", {}, computedText(of)), make("td"), make("td"), make("td")];
  const row = make("tr", { "data-jump": of.id, "data-node": of.id }, make("th", { scope: "row" }, link(of.id)), ...cells);
  $("rows").append(row);
  return [of.id, { row, value: cells[1], terms: cells[2], gradient: cells[3] }];
}));

function computedText(of) {
  return make("bdi", {}, of.op ? computed(of) : "");
}

/** What is known of the gradients at this step: by id, the sum so far and the texts of its terms. */
function gradientsSoFar() {
  const found = new Map();
  const terms = (id) => found.get(id) || found.set(id, { terms: [], sum: null }).get(id);
  for (const step of data.backward.slice(0, Math.max(0, at - data.nodes.length))) {
    if (step.seed && step.gradient !== null) {
      terms(step.node).terms.unshift("given");
      terms(step.node).sum = step.gradient;
    }
    for (const part of step.parts) {
      if (part.lost !== undefined) continue;
      terms(part.to).terms.push(part.rule < 0 ? `by ${node.get(step.node).op}` : texted(part.rule, node.get(step.node)));
      terms(part.to).sum = part.after;
    }
  }
  return found;
}

function showTable(gradients) {
  for (const of of data.nodes) {
    const { row, value, terms, gradient } = rows.get(of.id);
    const known = gradients.get(of.id), done = backwardAt.has(of.id) && at >= backwardAt.get(of.id);
    const state = at > data.nodes.length && of.state ? (of.stop ? `∥ ${of.stop}` : of.state.split(":")[0]) : "";
    const text = known ? known.terms.slice(0, 3).join(" + ") + (known.terms.length > 3 ? ` + … (${known.terms.length})` : "") : "";
    const sum = done && backward.get(of.id).gradient !== null ? backward.get(of.id).gradient : known?.sum;
    set(value, at >= forwardAt.get(of.id) ? (of.stale.length ? "now " : "") + summary(of.value) : "");
    set(terms, text);
    set(gradient, state || (known ? summary(sum) : ""));
    row.className = [done ? "done" : "", of === current() ? "now" : "", state && !of.stop ? "none" : ""].join(" ");
  }
}

function set(cell, text) {
  if (cell.textContent === text) return;
  cell.replaceChildren(make("bdi", {}, text));
  cell.title = text;
}

// --- the pictures --------------------------------------------------------------------------------------------------

const chips = new Map(data.parts.map((part) => {
  const chip = make("button", { type: "button", "aria-expanded": "false", title: part.path, onclick: () => toggle(part.id) }, make("bdi", {}, part.title));
  $("parts").append(chip);
  return [part.id, chip];
}));

const opened = (id) => document.querySelector(`#open > [data-part="${id}"]`);

/** The picture of a part: the template of all that are like it, with its own ids and texts in the holes. */
function drawn(part) {
  const picture = $(`part-${part.like}`).content.cloneNode(true), rest = part.own[Symbol.iterator]();
  const own = (text) => (text === HOLE ? rest.next().value : text);
  for (const each of picture.querySelectorAll("[id], text, title")) { // in the order in which they are written
    for (const name of ["id", "data-of"]) {
      if (each.hasAttribute(name)) each.setAttribute(name, part.id + own(each.getAttribute(name)));
    }
    if (!each.children.length) each.textContent = own(each.textContent);
  }
  return picture;
}

function toggle(id, open = !opened(id)) {
  if (open && !opened(id)) {
    const part = data.parts.find((each) => each.id === id);
    const picture = make("div", { class: "picture", "data-part": id, tabindex: "0", role: "group", "aria-label": part.path }, drawn(part));
    const later = data.parts.slice(data.parts.indexOf(part) + 1).map((each) => opened(each.id)).find(Boolean);
    $("open").insertBefore(picture, later || null);
    resized(picture);
    light(picture);
  } else if (!open && opened(id)) {
    opened(id).remove();
  }
  chips.get(id).setAttribute("aria-expanded", String(open));
}

/** The id of the box that something in a picture stands for. */
const meant = (box) => (box.dataset.of || box.id).replace(/^[^-]*-/, "");

/** Mark in a picture what has been computed, what is now, and which arrows are taken. */
function light(picture) {
  const of = current(), back = at > data.nodes.length;
  const ends = new Set(of ? of.inputs.filter((input) => node.has(input)) : []);
  const taken = back && of ? new Map(backward.get(of.id).parts.map((part) => [part.place, part.to])) : null;
  const fed = new Set(taken ? taken.values() : []);
  for (const box of picture.querySelectorAll(".node")) {
    const id = meant(box), closed = chips.has(id);
    const inside = closed ? data.parts.find((part) => part.id === id).nodes.filter((each) => node.has(each)) : [id];
    const now = of && inside.includes(of.id);
    box.classList.toggle("seen", inside.every((each) => at >= forwardAt.get(each)));
    box.classList.toggle("done", inside.every((each) => !backwardAt.has(each) || at >= backwardAt.get(each)) && back);
    box.classList.toggle("now", Boolean(now));
    box.classList.toggle("gets", !now && inside.some((each) => fed.has(each)));
    box.classList.toggle("gives", !now && !back && inside.some((each) => ends.has(each)));
  }
  for (const arrow of picture.querySelectorAll(".edge")) {
    // An arrow's id ends in its target and its place; into a closed box, in the box and the id of what enters.
    const [, target, last] = arrow.id.match(/_([nb]\d+)_(n?\d+|all)$/) || [];
    const here = of && (target === of.id || (chips.has(target) && partOf.get(of.id) === target));
    const used = last === "all" || (last?.startsWith("n") ? ends.has(last) : !back || taken.has(Number(last)));
    arrow.classList.toggle("ahead", Boolean(here && used && !back));
    arrow.classList.toggle("back", Boolean(here && used && back && (!String(last).startsWith("n") || fed.has(last))));
  }
}

const width = (picture) => Number(picture.querySelector("svg").getAttribute("viewBox").split(" ")[2]);
const fitting = (picture, least, most) => Math.min(most, Math.max(least, (picture.clientWidth - 4) / width(picture)));
let zoom = fitting(document.querySelector(".picture"), 0.9, data.parts.length ? 0.9 : 1.5);
function resized(picture) {
  const drawn = picture.querySelector("svg"), [, , width, height] = drawn.getAttribute("viewBox").split(" ");
  drawn.style.width = `${width * zoom}px`;
  drawn.style.height = `${height * zoom}px`;
}

function scaled(to) {
  zoom = Math.min(3, Math.max(0.1, to));
  document.querySelectorAll(".picture").forEach(resized);
  show(false);
}

/** Scroll a box, and nothing around it, until a part of it is in view. */
function reveal(scroller, element, margin = 20, sideways = true) {
  const [outer, inner] = [scroller.getBoundingClientRect(), element.getBoundingClientRect()];
  const off = (low, high, from, to) => (low < from + margin || high > to - margin ? (low + high - from - to) / 2 : 0);
  const [left, top] = [off(inner.left, inner.right, outer.left, outer.right), off(inner.top, inner.bottom, outer.top, outer.bottom)];
  if (left || top) scroller.scrollBy({ left: sideways ? left : 0, top, behavior: calm.matches || timer ? "instant" : "smooth" });
}

// --- going from step to step ---------------------------------------------------------------------------------------

const current = () => (at === 0 ? null : at <= data.nodes.length ? data.nodes[at - 1] : node.get(data.backward[at - data.nodes.length - 1].node));

function show(moved = true) {
  const of = current(), back = at > data.nodes.length;
  if (moved) {
    const part = of ? partOf.get(of.id) || "" : "";
    if (openedBySteps && openedBySteps !== part) toggle(openedBySteps, false);
    openedBySteps = openedBySteps === part ? part : "";
    if (part && !opened(part)) {
      toggle(part, true);
      openedBySteps = part;
    }
    $("said").textContent = sentence();
  }
  const panel = !of ? welcome() : back ? backwardPanel(of, backward.get(of.id)) : forwardPanel(of);
  $("step").replaceChildren(...panel.filter((each) => each !== ""));
  document.body.dataset.phase = at === 0 ? "" : back ? "backward" : "forward";
  document.body.dataset.step = at;
  $("scrub").value = at;
  $("scrub").setAttribute("aria-valuetext", `${at} of ${steps}`);
  showTable(gradientsSoFar());
  for (const picture of document.querySelectorAll(".picture")) {
    light(picture);
    const box = moved && picture.querySelector(".node.now");
    if (box) reveal(picture, box);
    if (box && picture.parentElement === $("open")) reveal($("open"), box);
  }
  if (of && moved) reveal($("rows").closest(".scroll"), rows.get(of.id).row, 60, false);
}

function go(to) {
  at = Math.min(steps, Math.max(0, to));
  show();
}

/** To a node: in the direction that is on, or in the other one if it is shown already. */
function jump(id) {
  const [there, back] = [forwardAt.get(id), backwardAt.get(id) || forwardAt.get(id)];
  stop();
  go(at > data.nodes.length ? (at === back ? there : back) : (at === there ? back : there));
}

function play() {
  if (at >= steps) at = 0;
  $("said").setAttribute("aria-live", "off"); // a screen reader could not keep up
  $("play").textContent = "⏸ pause";
  $("play").setAttribute("aria-label", "Pause");
  const on = () => {
    if (at >= steps) return stop();
    go(at + 1);
    timer = setTimeout(on, 1200 / Number($("speed").value));
  };
  timer = setTimeout(on, 0);
}

function stop() {
  clearTimeout(timer);
  timer = 0;
  $("said").setAttribute("aria-live", "polite");
  $("play").textContent = "▶ play";
  $("play").setAttribute("aria-label", "Play");
}

const step = (to) => { stop(); go(to); };
const KEYS = { ArrowRight: () => step(at + 1), ArrowLeft: () => step(at - 1), Home: () => step(0), End: () => step(steps),
  " ": () => (timer ? stop() : play()) };

$("first").addEventListener("click", KEYS.Home);
$("back").addEventListener("click", KEYS.ArrowLeft);
$("play").addEventListener("click", KEYS[" "]);
$("next").addEventListener("click", KEYS.ArrowRight);
$("last").addEventListener("click", KEYS.End);
$("scrub").max = steps;
$("scrub").style.setProperty("--split", `${(100 * data.nodes.length) / steps}%`);
$("scrub").addEventListener("input", () => step(Number($("scrub").value)));
$("smaller").addEventListener("click", () => scaled(zoom / 1.25));
$("larger").addEventListener("click", () => scaled(zoom * 1.25));
$("fit").addEventListener("click", () => {
  const picture = document.querySelector("#open > .picture:last-child") || document.querySelector(".picture");
  scaled(fitting(picture, 0.1, 1.5));
});

document.addEventListener("keydown", (event) => {
  const inField = event.target.closest("input, select, summary") || (event.key === " " && event.target.closest("button"));
  if (!KEYS[event.key] || inField || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  KEYS[event.key]();
});

document.addEventListener("click", (event) => {
  const jumping = event.target.closest("[data-jump]"), cell = event.target.closest("[data-index]");
  const box = event.target.closest(".picture .node");
  if (jumping) jump(jumping.dataset.jump);
  else if (cell) {
    picked = cell.dataset.index.split(",").map(Number);
    show(false);
  } else if (box && chips.has(meant(box))) toggle(meant(box));
  else if (box && node.has(meant(box))) jump(meant(box));
});

document.addEventListener("wheel", (event) => {
  if (!event.ctrlKey || !event.target.closest(".picture")) return;
  event.preventDefault();
  scaled(zoom * (event.deltaY < 0 ? 1.1 : 1 / 1.1));
}, { passive: false });

document.querySelectorAll(".picture").forEach(resized);
show();
document.documentElement.dataset.ready = "yes";
