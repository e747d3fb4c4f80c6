// GitHub's description, cut down to the operations that the emulated GitHub knows: those of the App, or
// those of an installation token.
//
//   node cut.mjs app|token INSTALLATION
import { description } from "../openapi/description.mjs";

const [whose, installation] = process.argv.slice(2);
const OPERATIONS = {
  app: [
    ["get", "/app"],
    ["get", "/app/installations"],
    ["get", "/app/installations/{installation_id}"],
    ["post", "/app/installations/{installation_id}/access_tokens"],
    ["get", "/orgs/{org}/installation"],
    ["get", "/users/{username}/installation"],
    ["get", "/repos/{owner}/{repo}/installation"],
  ],
  // Without DELETE /installation/token, which would end the rest.
  token: [
    ["get", "/installation/repositories"],
    ["get", "/repos/{owner}/{repo}"],
    ["get", "/repos/{owner}/{repo}/contents/{path}"],
    ["put", "/repos/{owner}/{repo}/contents/{path}"],
    ["get", "/repos/{owner}/{repo}/issues"],
    ["post", "/repos/{owner}/{repo}/issues"],
    ["get", "/rate_limit"],
    ["get", "/meta"],
  ],
};
// What stands in paths: things that are there, and one that is not.
const NAMES = {
  owner: ["octo-org", "nobody"],
  org: ["octo-org", "nobody"],
  username: ["octo-org", "nobody"],
  repo: ["hello", "website", "absent"],
  path: ["README.md", ".github", "absent.md", "notes/new.md"],
  installation_id: [Number(installation), 1],
};
// Statuses that GitHub sends and does not describe: without credentials, without the permission, for what
// the caller may not see, and for a body that is no JSON object of the right types. And 501: the emulator
// does not know what GitHub would answer.
const MORE = ["400", "401", "403", "404", "422", "501"];

const at = (pointer) => pointer.slice(2).split("/").reduce((node, name) => node[name], description);
const resolved = (node) => (node.$ref ? at(node.$ref) : node);
const kept = {};

// Everything that a node leads to is kept; alternatives of a reply may include one another.
function keep(node) {
  if (Array.isArray(node)) return node.map(keep);
  if (node === null || typeof node !== "object") return node;
  if (typeof node.$ref === "string") {
    const [, , kind, name] = node.$ref.split("/");
    kept[kind] ??= {};
    if (!(name in kept[kind])) {
      kept[kind][name] = {};
      kept[kind][name] = keep(at(node.$ref));
    }
    return { $ref: node.$ref };
  }
  const { example, examples, ...rest } = node;
  return Object.fromEntries(Object.entries(rest).map(([name, value]) => [name === "oneOf" ? "anyOf" : name, keep(value)]));
}

const basic = { description: "An error", content: { "application/json": { schema: { $ref: "#/components/schemas/basic-error" } } } };

function operation(of, item) {
  const parameters = [...(item.parameters ?? []), ...(of.parameters ?? [])].map(resolved).map(({ name, schema, ...rest }) => {
    return { ...keep(rest), name, schema: NAMES[name] && rest.in === "path" ? { enum: NAMES[name] } : keep(schema) };
  });
  const responses = Object.fromEntries(Object.entries(of.responses).map(([status, reply]) => {
    const { headers, ...described } = resolved(reply);
    return [status, keep(described)];
  }));
  for (const status of MORE) responses[status] ??= keep(basic);
  const body = of.requestBody ? { requestBody: keep(resolved(of.requestBody)) } : {};
  return { operationId: of.operationId, parameters, ...body, responses };
}

const paths = {};
for (const [method, path] of OPERATIONS[whose]) {
  const item = description.paths[path];
  paths[path] ??= {};
  paths[path][method] = operation(item[method], item);
}
console.log(JSON.stringify({ openapi: "3.0.3", info: { title: "GitHub", version: "cut" }, paths, components: kept }));
