// What the player shows of a trace: names, formulas and the numbers of arrays, as elements of the page. All text comes
// from the data and is set as text, never as markup; formulas are copies of what stands in the page's templates.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const node = new Map(data.nodes.map((each) => [each.id, each]));
const [names, patterns] = ["names", "patterns"].map((id) => [...document.getElementById(id).content.children]);
const nameOf = new Map(data.ids.map((id, i) => [id, names[i]]));
const OWN = "\ue0ff", FIRST_SLOT = 0xe100, BAR = "¯";

let picked = [];        // the entry whose numbers are shown in the formula

// --- small helpers -------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== ""));
  return made;
}

const called = (id) => node.get(id).name;
const written = (n) => String(n).replaceAll("-", "−").replace("e−", "e-");
const sized = (shape) => shape.join("×") || "scalar";
const summary = (array) => data.arrays[array][0].replaceAll("-", "−").replaceAll("e−", "e-");
const link = (id) => make("button", { type: "button", class: "link", "data-jump": id }, make("bdi", {}, called(id)));

/** The text of a pattern with names for its letters. */
function texted(pattern, of) {
  return [...data.patterns[pattern]].map((letter) => {
    const place = letter.charCodeAt(0) - FIRST_SLOT;
    if (letter === OWN) return called(of.id);
    return place >= 0 && place < of.inputs.length ? named(of.inputs[place]) : letter;
  }).join("");
}

const named = (input) => (node.has(input) ? called(input) : written(input));

/** A formula with something put in for its letters. own: for the result; gradient: for its letter with a bar. */
function filled(pattern, { own, argument, gradient }) {
  const formula = patterns[pattern].cloneNode(true);
  if (gradient) {
    for (const mover of formula.querySelectorAll("mover")) {
      if (mover.textContent === OWN + BAR) mover.replaceWith(gradient());
    }
  }
  for (const letter of formula.querySelectorAll("mi")) {
    const place = letter.textContent.charCodeAt(0) - FIRST_SLOT;
    if (letter.textContent === OWN) letter.replaceWith(own());
    else if (place >= 0 && letter.textContent.length === 1) letter.replaceWith(argument(place));
  }
  return formula;
}

const MATH = "http://www.w3.org/1998/Math/MathML";
function math(tag, ...children) {
  const made = document.createElementNS(MATH, tag);
  made.append(...children);
  return made;
}
function symbol(id) {
  const made = math("mrow", ...nameOf.get(id).cloneNode(true).childNodes);
  made.classList.add("symbol"); // a word of space, so that a product of two names is no third name
  return made;
}

/** The symbol of a gradient: a bar over the name, or over what stands before its subscript. */
function barred(id) {
  const made = symbol(id), inner = made.querySelector("msub") || made;
  const base = inner === made ? math("mrow", ...made.childNodes) : inner.firstElementChild;
  const long = base.textContent.length > 1; // no font stretches its bar over a word
  const bar = long ? math("mrow", base.cloneNode(true)) : math("mover", base.cloneNode(true), math("mo", BAR));
  if (long) bar.classList.add("over");
  if (inner === made) return bar;
  base.replaceWith(bar);
  return made;
}
const figure = (n) => {
  const number = math("mn", written(n));
  return n < 0 || n === "-inf" ? math("mrow", math("mo", "("), number, math("mo", ")")) : number;
};
const argumentOf = (of) => (place) => (node.has(of.inputs[place]) ? symbol(of.inputs[place]) : figure(of.inputs[place]));
const symbols = (of) => ({ own: () => symbol(of.id), argument: argumentOf(of), gradient: () => barred(of.id) });
/** The arguments that have other numbers now than those that a node was computed from. */
const stale = (of) => [...new Set(of.inputs)].filter((input) => node.get(input)?.stale.includes(of.id));
const equation = (...parts) => math("math", ...parts.map((part) => (typeof part === "string" ? math("mo", part) : part)));

// --- numbers of arrays ---------------------------------------------------------------------------------------------

/** The number of an array at an index of a result that it was broadcast to; undefined if it is not shown. */
function entry(array, index) {
  const [, shape, numbers, corner] = data.arrays[array];
  const own = shape.map((n, axis) => (n === 1 ? 0 : index[index.length - shape.length + axis]));
  if (!corner) return numbers[own.reduce((sum, i, axis) => sum * shape[axis] + i, 0)];
  const tail = own.slice(-corner.length);
  if (own.slice(0, -corner.length).some((i) => i > 0) || tail.some((i, axis) => i >= corner[axis])) return undefined;
  return numbers[tail.reduce((sum, i, axis) => sum * corner[axis] + i, 0)];
}

/** An array as a table of numbers, with the entry that is picked marked; large ones are a corner and a summary. */
function matrix(array, label, pickable = false) {
  const [, shape, numbers, corner] = data.arrays[array];
  const shown = corner || shape;
  const columns = shown.length ? shown[shown.length - 1] : 1;
  const rows = shown.length > 1 ? shown[shown.length - 2] : 1;
  const largest = Math.max(...numbers.map((n) => (typeof n === "number" ? Math.abs(n) : 0)), 1e-30);
  const table = make("table", { class: "matrix" });
  numbers.forEach((n, i) => {
    if (i % (rows * columns) === 0 && i) table.append(make("tbody"));
    if (i % columns === 0) (table.lastElementChild || table.appendChild(make("tbody"))).append(make("tr"));
    const index = corner ? [...Array(shape.length - corner.length).fill(0), ...unravel(i, corner)] : unravel(i, shape);
    const cell = make("td", {
      class: (n < 0 ? "minus" : "plus") + (typeof n === "string" ? " odd" : "")
        + (pickable && same(index, picked) ? " picked" : ""),
      "data-index": pickable && shape.length ? index.join() : false,
    }, written(n));
    cell.style.setProperty("--part", typeof n === "number" ? Math.abs(n) / largest : 0);
    table.lastElementChild.lastElementChild.append(cell);
  });
  const few = corner ? `corner of ${sized(shape)}: ${summary(array)}` : shape.length ? sized(shape) : "";
  return make("figure", {}, make("figcaption", {}, label, " ", make("small", {}, few)), table);
}

const unravel = (i, shape) => shape.map((n, axis) => Math.floor(i / shape.slice(axis + 1).reduce((a, b) => a * b, 1)) % n);
const same = (a, b) => a.length === b.length && a.every((n, i) => n === b[i]);

/** The entry to look at in an array: the one that was picked, or the first. */
function pick(array) {
  const [, shape] = data.arrays[array];
  if (picked.length !== shape.length || picked.some((i, axis) => i >= shape[axis])) picked = shape.map(() => 0);
  return picked;
}

/** Put a sign between factors that stand side by side: 2 x is a product, but 2 3 is another number, and 2 (3) a call. */
function multiplied(formula) {
  const outermost = (part, side) => (part.localName === "mrow" && part[side] ? outermost(part[side], side) : part);
  const factor = (part, parenthesis) => (part.localName === "mo" ? part.textContent === parenthesis
    : ["mn", "mfrac", "msqrt"].includes(part.localName)
      || (part.localName === "msup" && (part.textContent[0] === "e" || factor(outermost(part.firstElementChild, "lastElementChild"), ")"))));
  for (const part of formula.querySelectorAll("*")) {
    const next = part.nextElementSibling, together = ["mrow", "math", "msqrt"].includes(part.parentElement.localName);
    if (!next || !together) continue;
    if (factor(outermost(part, "lastElementChild"), ")") && factor(outermost(next, "firstElementChild"), "(")) part.after(math("mo", "·"));
  }
}

/** An elementwise formula with the numbers of one entry in it, or nothing if one of them is not known or not shown. */
function withNumbers(pattern, of, result, upstream) {
  if (stale(of).length) return "";
  const index = pick(result);
  const value = (input) => (node.has(input) ? entry(node.get(input).value, index) : input);
  const known = [entry(result, index), upstream === undefined ? 0 : entry(upstream, index), entry(of.value, index),
    ...of.inputs.map(value)];
  if (pattern < 0 || known.includes(undefined)) return "";
  const formula = filled(pattern, {
    own: () => figure(entry(of.value, index)),
    argument: (place) => figure(value(of.inputs[place])),
    gradient: () => figure(entry(upstream, index)),
  });
  for (const sign of formula.querySelectorAll("mo")) if (sign.textContent === "⊙") sign.textContent = "·";
  for (const row of formula.querySelectorAll("mrow")) { // a number that stands in the parentheses of a function has no more
    const [open, number, close] = row.children;
    const twice = row.previousElementSibling?.textContent === "(" && row.nextElementSibling?.textContent === ")";
    if (twice && open?.textContent === "(" && close?.textContent === ")" && row.children.length === 3) row.replaceWith(number);
  }
  multiplied(formula);
  const shown = equation(...formula.childNodes, "=", math("mn", written(entry(result, index))));
  return make("p", { class: "numbers" }, index.length ? make("small", {}, `entry [${index.join(", ")}]`) : "", shown);
}
