"use strict";
function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(kind).join(", ")}]`;
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return schema.type ?? "any";
}

function fields(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, value]) =>
    element("tr", "", element("td", name), element("td", kind(value)), element("td", value.description ?? "")));
  return element("table", "", element("tbody", "", ...rows));
}

async function main() {
  const found = await (await fetch("openapi.json")).json();
  const routes = document.getElementById("routes");
  for (const [path, methods] of Object.entries(found.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const body = route.requestBody?.content["application/json"].schema;
      const answer = Object.values(route.responses)[0].content?.["application/json"].schema;
      routes.append(element("h2", `${method.toUpperCase()} ${path}`), element("p", route.description ?? route.summary));
      if (body) routes.append(element("p", `body: ${kind(body)}`));
      if (answer) routes.append(element("p", `answer: ${kind(answer)}`));
    }
  }
  routes.append(element("h2", "Bodies and answers"));
  for (const [name, schema] of Object.entries(found.components.schemas)) {
    routes.append(element("h3", name), element("p", schema.description ?? ""), fields(schema));
  }
}

main();
