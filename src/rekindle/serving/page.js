// Sends each dropped or chosen picture to /predict, one after the other, and shows the answer beside it; on demand also to /explain.
"use strict";

const drop = document.getElementById("drop");
const picker = document.getElementById("picker");
const sheet = document.getElementById("sheet");
const card = document.getElementById("card");
const LARGEST = Number(document.body.dataset.largest);
let queue = Promise.resolve();

function percent(share) {
  return share < 0.995 ? `${Math.round(100 * share)} %` : `${(100 * share).toFixed(1)} %`;
}

function add(file) {
  const figure = card.content.firstElementChild.cloneNode(true);
  const image = figure.querySelector("img");
  image.alt = file.name;
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => image.replaceWith(Object.assign(document.createElement("div"), { className: "gone", textContent: "no preview" }));
  figure.querySelector(".file").textContent = file.name;
  figure.querySelector(".look").addEventListener("click", () => look(file, figure));
  sheet.prepend(figure);
  queue = queue.then(() => classify(file, figure));
}

async function classify(file, figure) {
  const answers = figure.querySelector(".answers");
  try {
    const found = await ask("predict", file);
    figure.classList.remove("waiting");
    answers.replaceChildren();
    if (found.error) throw new Error(found.error);
    found.classes.forEach((name, place) => answers.append(bar(name, found.confidences[place])));
    figure.querySelector(".look").hidden = false;
    if (found.unsure) {
      figure.classList.add("unsure");
      answers.append(Object.assign(document.createElement("div"), { className: "mark", textContent: "unsure" }));
    }
  } catch (error) {
    figure.classList.remove("waiting");
    figure.classList.add("failed");
    answers.textContent = reason(error);
  }
}

// The first click asks for the heat map, further ones show and hide it.
function look(file, figure) {
  const heat = figure.querySelector(".heat");
  const button = figure.querySelector(".look");
  if (heat.src) {
    heat.hidden = !heat.hidden;
    button.setAttribute("aria-pressed", !heat.hidden);
    return;
  }
  button.disabled = true;
  queue = queue.then(() => explain(file, heat, button));
}

async function explain(file, heat, button) {
  try {
    const found = await ask("explain", file);
    if (found.error) throw new Error(found.error);
    heat.src = found.heat;
    heat.alt = `bright where the network looked for ${found.class}`;
    heat.hidden = false;
    button.setAttribute("aria-pressed", true);
    button.disabled = false;
  } catch (error) {
    button.replaceWith(Object.assign(document.createElement("div"), { className: "mark", textContent: reason(error) }));
  }
}

function reason(error) {
  const gone = error instanceof TypeError;  // What fetch throws where nobody answers.
  return gone ? "no answer: is rekindle serve still running?" : error.message;
}

async function ask(what, file) {
  if (file.size > LARGEST) return { error: `the file has more than ${LARGEST / 2 ** 20} MiB.` };
  const response = await fetch(what, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: file });
  return response.json();
}

function bar(name, share) {
  const answer = document.createElement("div");
  answer.className = "answer";
  answer.style.setProperty("--share", `${100 * share}%`);
  answer.append(Object.assign(document.createElement("span"), { textContent: name }));
  answer.append(Object.assign(document.createElement("span"), { textContent: percent(share) }));
  return answer;
}

for (const kind of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
  });
}
window.addEventListener("drop", (event) => [...event.dataTransfer.files].forEach(add));
window.addEventListener("paste", (event) => [...event.clipboardData.files].forEach(add));
picker.addEventListener("change", () => {
  [...picker.files].forEach(add);
  picker.value = "";
});
