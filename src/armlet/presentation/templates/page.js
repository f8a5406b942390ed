"use strict";
// The controls choose one of the states that were computed when the page was written; nothing is computed here.
// content: {figures: {name: figure}, states: {key: {plots, texts, shades}}, parts: {control, values: {part: values}}}.
// A key is the values of the visible controls, in their order on the page, joined by "|".

const form = document.querySelector("form");
const controls = [...form.elements].filter((control) => control.matches("input, select"));
let content;

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function currentKey() {
  const visible = controls.filter((control) => !control.closest("[hidden]"));
  return visible.filter((control) => control.type !== "radio" || control.checked).map((control) => control.value).join("|");
}

function labelKnobs() {
  for (const group of form.querySelectorAll("[data-for]")) {
    const [name, value] = group.dataset.for.split("=");
    group.hidden = form.elements[name].value !== value;
  }
  for (const knob of form.querySelectorAll("[data-labels]")) {
    const label = JSON.parse(knob.dataset.labels)[knob.value];
    knob.setAttribute("aria-valuetext", label);
    form.querySelector(`output[for="${knob.id}"]`).textContent = label;
  }
}

function draw(plot, [name, traces = {}, layout = {}]) {
  const figure = content.figures[name];
  const data = figure.data.map((trace, index) => ({ ...trace, ...traces[index] }));
  const options = { displayModeBar: false, responsive: true };
  Plotly.react(plot, data, { ...structuredClone(figure.layout), ...layout }, options);
}

function shade(cell, [text, share]) {
  cell.textContent = text;
  cell.style.setProperty("--shade", Math.abs(share));
  cell.style.setProperty("--towards", share < 0 ? "var(--fall)" : "var(--rise)");
}

function pressed(button) {
  return [...new URLSearchParams(button.dataset.set)].every(([name, value]) => form.elements[name].value === value);
}

function markButtons() {
  for (const cell of document.querySelectorAll("[data-set]")) {
    cell.setAttribute("aria-pressed", pressed(cell));
    cell.tabIndex = pressed(cell) ? 0 : -1;
  }
  for (const part of document.querySelectorAll(".part[role=button]")) {
    const { control, values } = content.parts;
    part.setAttribute("aria-pressed", values[part.dataset.part].includes(form.elements[control].value));
  }
}

function show() {
  labelKnobs();
  const state = content.states[currentKey()];
  for (const [id, drawing] of Object.entries(state.plots)) draw(document.getElementById(id), drawing);
  for (const [id, text] of Object.entries(state.texts)) {
    for (const element of document.querySelectorAll(`[data-text="${id}"]`)) element.textContent = text;
    for (const element of document.querySelectorAll(`[data-label="${id}"]`)) element.setAttribute("aria-label", text);
  }
  const cells = document.querySelectorAll("[data-set]");
  const shades = content.shades?.[state.shades] ?? [];
  shades.forEach((cell, index) => shade(cells[index], cell));
  markButtons();
}

function choose(set) {
  for (const [name, value] of new URLSearchParams(set)) form.elements[name].value = value;
  show();
}

function choosePart(part) {
  const { control, values } = content.parts;
  if (part.getAttribute("aria-pressed") === "false") choose(`${control}=${values[part.dataset.part][0]}`);
}

// In a table of cells, only the chosen one is in the order of the tab key; arrow keys choose its neighbours.
function moveInTable(event) {
  const cell = event.target.closest?.("td");
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!cell || !steps) return;
  const rows = cell.closest("tbody").rows;
  const next = rows[cell.parentElement.rowIndex - rows[0].rowIndex + steps[0]]?.cells[cell.cellIndex + steps[1]];
  const button = next?.querySelector("button");
  event.preventDefault();
  if (!button) return;
  choose(button.dataset.set);
  button.focus();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-set]");
  const part = event.target.closest(".part[role=button]");
  if (button) choose(button.dataset.set);
  if (part) choosePart(part);
});
document.addEventListener("keydown", (event) => {
  const part = event.target.closest?.(".part[role=button]");
  if (part && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    choosePart(part);
  }
  moveInTable(event);
});

function scrollToArm() {
  const arm = document.querySelector(".layer-map .arm").getBoundingClientRect();
  const scroll = document.querySelector(".layer-map").parentElement;
  scroll.scrollLeft = arm.left - scroll.getBoundingClientRect().left - scroll.clientWidth / 2;
}

async function start() {
  scrollToArm();
  content = JSON.parse(await unpack("packed-content"));
  const script = document.createElement("script");
  script.textContent = await unpack("packed-plotly");
  document.head.append(script);
  for (const [id, drawing] of Object.entries(content.fixed ?? {})) draw(document.getElementById(id), drawing);
  show();
  form.addEventListener("input", show);
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  const problem = document.getElementById("problem");
  problem.textContent = `The figures cannot be shown: ${error.message}. The page needs a browser of 2023 or later.`;
  problem.hidden = false;
});
