"use strict";
const pause = 600; // milliseconds without a key before the task is learned again
const byId = (id) => document.getElementById(id);
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
let timer = null;
let turn = 0; // answers to an earlier state of the page are dropped

async function call(method, path, body) {
  const headers = {};
  if (byId("token").value) headers["Authorization"] = `Bearer ${byId("token").value}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.status === 204) return null;
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.detail);
  return content;
}

function say(text, wrong = false) {
  byId("status").textContent = text;
  byId("status").className = wrong ? "wrong" : "";
}

function addClass(label = "", examples = []) {
  const made = byId("class").content.cloneNode(true);
  made.querySelector(".label").value = label;
  made.querySelector(".examples").value = examples.join("\n");
  made.querySelector(".drop").addEventListener("click", (event) => {
    event.target.closest("fieldset").remove();
    changed();
  });
  byId("classes").append(made);
}

function given() {
  return [...document.querySelectorAll("#classes fieldset")].flatMap((each) => {
    const label = each.querySelector(".label").value.trim();
    return label ? lines(each.querySelector(".examples").value).map((text) => ({ text, label })) : [];
  });
}

function show(texts, predictions) {
  byId("predictions").replaceChildren(...predictions.map((found, place) => {
    const row = document.createElement("tr");
    for (const value of [texts[place], found.label, found.labels[0].probability.toFixed(3)]) {
      const cell = document.createElement("td");
      cell.textContent = value; // never as HTML
      row.append(cell);
    }
    return row;
  }));
}

async function learn() {
  const mine = ++turn;
  const examples = given();
  const path = `tasks/${encodeURIComponent(byId("name").value)}`;
  if (new Set(examples.map((each) => each.label)).size < 2) return say("Type examples for at least two classes.");
  try {
    const task = await call("PUT", path, { examples });
    const texts = lines(byId("texts").value);
    const found = texts.length ? await call("POST", `${path}/predict`, { texts }) : { predictions: [] };
    if (mine !== turn) return;
    show(texts, found.predictions);
    say(`Learned ${task.labels.length} classes from ${task.examples} examples.`);
    await list();
  } catch (error) {
    if (mine === turn) say(String(error.message), true);
  }
}

function changed() {
  clearTimeout(timer);
  timer = setTimeout(learn, pause);
}

async function list() {
  const tasks = await call("GET", "tasks");
  byId("tasks").replaceChildren(...tasks.map((each) => new Option(each.name, each.name)));
}

async function open() {
  try {
    const task = await call("GET", `tasks/${encodeURIComponent(byId("name").value)}`);
    byId("classes").replaceChildren();
    for (const label of task.labels) {
      addClass(label, task.learned_from.filter((each) => each.label === label && typeof each.text === "string").map((each) => each.text));
    }
    changed();
  } catch (error) {
    say(String(error.message), true);
  }
}

async function remove() {
  try {
    await call("DELETE", `tasks/${encodeURIComponent(byId("name").value)}`);
    byId("predictions").replaceChildren();
    say("Removed.");
    await list();
  } catch (error) {
    say(String(error.message), true);
  }
}

addClass("delivery", ["where is my parcel?", "my order has not come", "it came a week late"]);
addClass("damage", ["it broke on the first day", "there is a crack in it", "the zip does not close"]);
byId("classes").addEventListener("input", changed);
byId("texts").addEventListener("input", changed);
byId("more").addEventListener("click", () => addClass());
byId("open").addEventListener("click", open);
byId("remove").addEventListener("click", remove);
