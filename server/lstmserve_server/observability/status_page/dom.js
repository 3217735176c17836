"use strict";

// The page is described as a whole with every answer, and what differs is changed: focus, selection and scrolling stay as they are.
// Text only ever becomes text, so whatever a name looks like, it is no markup.

const SVG = new Set(["svg", "path", "rect", "line"]);
const NOT_OURS = new Set(["open", "tabindex"]); // which the reader or `reachable` changes

function el(tag, attributes, ...children) {
  const there = children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false);
  return {tag, attributes: attributes ?? {}, children: there};
}

function patch(parent, children) {
  const nodes = [...parent.childNodes];
  children.forEach((wanted, index) => {
    const name = wanted.tag ?? "#text";
    let node = nodes[index];
    if (node?.nodeName.toLowerCase() !== name) {
      const made = wanted.tag ? create(wanted) : document.createTextNode(wanted);
      if (node) node.replaceWith(made);
      else parent.append(made);
      node = made;
    }
    if (!wanted.tag) {
      if (node.data !== String(wanted)) node.data = wanted;
      return;
    }
    for (const [key, value] of Object.entries(wanted.attributes))
      if (typeof value === "function") node[key] = value;
      else if (!NOT_OURS.has(key) && node.getAttribute(key) !== String(value)) node.setAttribute(key, value);
    for (const {name: key} of [...node.attributes])
      if (!(key in wanted.attributes) && !NOT_OURS.has(key)) node.removeAttribute(key);
    patch(node, wanted.children);
  });
  for (const node of nodes.slice(children.length)) node.remove();
}

function create({tag, attributes}) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const key of NOT_OURS) if (key in attributes) node.setAttribute(key, attributes[key]);
  return node;
}

// What scrolls can be reached by the keyboard, and what does not is no stop on its way.
function reachable() {
  for (const box of document.querySelectorAll(".scroll"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
}

// Heads are texts; those that begin with # are of numbers. The first cell of a row is its head.
function table(caption, heads, rows) {
  const numeric = heads.map(head => head.startsWith("#"));
  const kind = index => (numeric[index] ? {class: "number"} : {});
  return el("div", {class: "scroll", role: "region", "aria-label": caption},
    el("table", null,
      el("caption", {class: "unseen"}, caption),
      el("thead", null, el("tr", null,
        heads.map((head, index) => el("th", {scope: "col", ...kind(index)}, head.replace("#", ""))))),
      el("tbody", null, rows.map(row => el("tr", null,
        row.map((cell, index) => index ? el("td", kind(index), cell) : el("th", {scope: "row"}, cell)))))));
}

const name = text => el("bdi", {class: "name"}, text);
const code = text => el("code", null, text);
const word = (kind, text) => el("span", {class: `word ${kind}`}, text);
const facts = pairs => el("dl", {class: "facts"}, pairs.filter(Boolean).map(([term, value]) =>
  el("div", null, el("dt", null, term), el("dd", null, value))));

function section(title, ...children) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  return el("section", {"aria-labelledby": id}, el("h2", {id}, title), children);
}

function bar(share, kind = "") {
  return el("svg", {class: `bar ${kind}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true"},
    el("rect", {class: "rail", width: 100, height: 6}),
    el("rect", {width: Math.max(share > 0 ? 1 : 0, Math.min(100, share * 100)), height: 6}));
}

// A line of values, the newest at the right; null is a gap. It is drawn finer the more there are, after the first minute.
function sparkline(values) {
  const most = Math.max(30, values.length);
  const top = Math.max(...values.map(value => value ?? 0)) || 1;
  const across = index => 100 - (values.length - 1 - index) * 100 / (most - 1);
  let line = "", area = "", began = null;
  values.forEach((value, index) => {
    if (value === null) return;
    const x = across(index).toFixed(2), y = (27 - 25 * value / top).toFixed(2);
    if (began === null) {
      began = x;
      area += `M${x} 28`;
    }
    line += `${began === x ? "M" : "L"}${x} ${y}`;
    area += `L${x} ${y}`;
    if (values[index + 1] === null || index === values.length - 1) {
      area += `L${x} 28Z`;
      began = null;
    }
  });
  return el("svg", {class: "spark", viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true"},
    el("path", {class: "area", d: area}), el("path", {class: "line", d: line}));
}
