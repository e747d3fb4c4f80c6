// GitHub's OpenAPI description of its REST API, and whether an exchange is as it says.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const Ajv = require("ajv").default;
const addFormats = require("ajv-formats").default;

export const description = JSON.parse(
  readFileSync(require.resolve("@octokit/openapi/generated/api.github.com.json"), "utf8"),
);

// In the list of installations, the account is described as a user and an enterprise at once.
description.paths["/app/installations"].get.responses["200"].content["application/json"].schema = {
  type: "array",
  items: { $ref: "#/components/schemas/installation" },
};

// OpenAPI 3.0 says `nullable` where JSON Schema has the type null. `oneOf` becomes `anyOf`: among the
// errors, one alternative often includes another, so that what GitHub sends itself would match both.
function schema(node) {
  if (Array.isArray(node)) return node.map(schema);
  if (node === null || typeof node !== "object") return node;
  const { nullable, example, examples, $ref, ...rest } = node;
  const plain = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name === "oneOf" ? "anyOf" : name, schema(value)]));
  if ($ref) plain.$ref = $ref.replace(/^#/, "github#");
  return nullable === true ? { anyOf: [{ type: "null" }, plain] } : plain;
}

const ajv = new Ajv({ strict: false, allErrors: true });
addFormats(ajv);
ajv.addSchema({ $id: "github", components: { schemas: schema(description.components.schemas) } });
const compiled = new Map();

function wrong(place, body, bodySchema) {
  const key = JSON.stringify(bodySchema);
  if (!compiled.has(key)) compiled.set(key, ajv.compile(schema(bodySchema)));
  const validate = compiled.get(key);
  if (validate(body)) return [];
  return validate.errors.slice(0, 12).map((error) => `${place}${error.instancePath} ${error.message}`);
}

const resolved = (node) =>
  node?.$ref ? resolved(node.$ref.slice(2).split("/").reduce((at, name) => at[name], description)) : node;

// Paths as expressions, those with fewer parameters first; a file's path has slashes in it.
const paths = Object.keys(description.paths)
  .map((path) => ({
    path,
    expression: new RegExp(`^${path.replace(/[.+]/g, "\\$&").replace("/{path}", "(/.*)?").replace(/{[^}]+}/g, "([^/]+)")}$`),
    parameters: path.split("{").length,
  }))
  .sort((a, b) => a.parameters - b.parameters);

// The operation that a request asks for: its name and what the description says of it.
export function operation(method, path) {
  const found = paths.find(({ path: known, expression }) => {
    return expression.test(path) && description.paths[known][method.toLowerCase()];
  });
  if (!found) return undefined;
  const item = description.paths[found.path];
  const its = item[method.toLowerCase()];
  return { name: `${method} ${found.path}`, ...its, parameters: [...(item.parameters ?? []), ...(its.parameters ?? [])] };
}

// What is wrong with a request of an operation.
export function request(of, { query, type, body }) {
  const errors = [];
  const known = of.parameters.map(resolved).filter((parameter) => parameter.in === "query");
  for (const name of query.keys()) {
    if (!known.some((parameter) => parameter.name === name)) errors.push(`request: no query parameter ${name}`);
  }
  if (body.length === 0) {
    if (resolved(of.requestBody)?.required) errors.push("request: no body");
    return errors;
  }
  const described = resolved(of.requestBody)?.content?.["application/json"]?.schema;
  if (!described) return [...errors, "request: a body"];
  if (!/^application\/json\b/.test(type ?? "")) errors.push(`request: body of type ${type}`);
  const sent = JSON.parse(body);
  const members = Object.keys(described.properties ?? {});
  const beyond = members.length > 0 ? Object.keys(sent).filter((name) => !members.includes(name)) : [];
  return [...errors, ...beyond.map((name) => `request: no member ${name}`), ...wrong("request", sent, described)];
}

// What is wrong with the reply to it. `undocumented` are statuses that GitHub sends and does not describe.
export function reply(of, { status, type, link, location, body }, undocumented) {
  const described = resolved(of.responses[status]);
  if (!described && !undocumented) return [`reply: status ${status} is not described`];
  if (status === 204 || status === 304) return body.length === 0 ? [] : [`reply: a body with ${status}`];
  const errors = [];
  if ([301, 302, 307].includes(status) && !location) errors.push("reply: no Location");
  if (status === 302) return errors;
  if (/^application\/vnd\.github\.[a-z.]*raw/.test(type ?? "")) return errors;
  if (!/^application\/json; charset=utf-8$/.test(type ?? "")) errors.push(`reply: body of type ${type}`);
  const value = JSON.parse(body);
  // The one header that matters and is described: where the next page is.
  if (link && !/^<[^>]+>; rel="(next|prev|first|last)"(, <[^>]+>; rel="(next|prev|first|last)")*$/.test(link)) {
    errors.push(`reply: Link is ${link}`);
  }
  const content = described?.content ?? {};
  const media = content["application/json"] ?? Object.values(content)[0];
  const basic = { $ref: "#/components/schemas/basic-error" };
  const bodySchema = media?.schema ?? basic;
  errors.push(...wrong("reply", value, bodySchema));
  if (status >= 400 && value.status !== String(status)) errors.push(`reply: its member status is ${value.status}`);
  return errors;
}
