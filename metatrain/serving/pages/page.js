"use strict";
const pause = 600; // milliseconds without a key before the task is learned again
const byId = (id) => document.getElementById(id);
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
let timer = null;
let working = Promise.resolve(); // one thing after the other, so that what is shown belongs to the last change
let opened = null; // the task that this page has made or opened, and may change
let edited = false; // its examples differ from those of the server

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

const path = (name) => `tasks/${encodeURIComponent(name)}`;

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
    changedExamples();
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

async function learn(task) {
  const examples = given();
  if (new Set(examples.map((each) => each.label)).size < 2) throw new Error("Type examples for at least two classes.");
  if (opened?.name !== task && (await list()).some((each) => each.name === task)) {
    throw new Error(`There is a task ${task} already. Open it to change it, or choose another name.`);
  }
  edited = false;
  try {
    opened = await call("PUT", path(task), { examples, none_of_these: opened?.name === task ? opened.none_of_these : null });
  } catch (error) {
    edited = true;
    throw error;
  }
}

async function update() {
  const name = byId("name").value;
  try {
    if (edited || opened?.name !== name) await learn(name);
    const texts = lines(byId("texts").value);
    const found = texts.length ? await call("POST", `${path(name)}/predict`, { texts }) : { predictions: [] };
    show(texts, found.predictions);
    say(`${name}: ${opened.labels.length} classes, learned from ${opened.examples} examples.`);
    await list();
  } catch (error) {
    say(String(error.message), true);
  }
}

function next(work) {
  clearTimeout(timer);
  working = working.then(work);
}

function changed() {
  clearTimeout(timer);
  timer = setTimeout(() => next(update), pause);
}

function changedExamples() {
  edited = true;
  changed();
}

async function list() {
  const tasks = await call("GET", "tasks");
  byId("tasks").replaceChildren(...tasks.map((each) => new Option(each.name, each.name)));
  return tasks;
}

async function open() {
  try {
    const task = await call("GET", path(byId("name").value));
    // A line is an example here: other ones would be other examples after the next change.
    if (!task.learned_from.every(({ text }) => typeof text === "string" && lines(text).length === 1)) {
      throw new Error(`${task.name} has text pairs, or texts of several lines, which this page cannot show.`);
    }
    byId("classes").replaceChildren();
    for (const label of task.labels) {
      addClass(label, task.learned_from.filter((each) => each.label === label).map((each) => each.text));
    }
    opened = task;
    edited = false;
    await update();
  } catch (error) {
    say(String(error.message), true);
  }
}

async function remove() {
  try {
    await call("DELETE", path(byId("name").value));
    opened = null;
    byId("predictions").replaceChildren();
    await list();
    say("Removed.");
  } catch (error) {
    say(String(error.message), true);
  }
}

addClass("delivery", ["where is my parcel?", "my order has not come", "it came a week late"]);
addClass("damage", ["it broke on the first day", "there is a crack in it", "the zip does not close"]);
byId("classes").addEventListener("input", changedExamples);
byId("texts").addEventListener("input", changed);
byId("more").addEventListener("click", () => addClass());
byId("open").addEventListener("click", () => next(open));
byId("remove").addEventListener("click", () => next(remove));
