// Stands between GitHub's clients and the emulated GitHub, over HTTP at the API's root as github.com has
// it and over TLS below /api/v3 as Enterprise Server does, and writes a line for each exchange: whether
// it is as GitHub's own description says.
//
//   node proxy.mjs UPSTREAM LINES CERTIFICATE KEY     prints both ports
import { appendFileSync, readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { operation, reply, request } from "./description.mjs";

const [upstream, lines, certificate, key] = process.argv.slice(2);

// Statuses that GitHub sends and whose description it leaves out, each with the reason.
const UNDESCRIBED = [
  [/./, 401, "whatever needs credentials answers 401 without them"],
  [/./, 403, "whatever needs a permission answers 403 without it"],
  [/./, 404, "what the caller may not see does not exist"],
  [/access_tokens$/, 400, "a body that is no JSON object"],
  [/\/contents\//, 301, "a renamed repository"],
  [/^GET/, 304, "what was read before and has not changed"],
];

const collected = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
};

// Every answer, whatever the operation, has these.
function headers(reply, method, url) {
  const errors = [];
  const needed = ["x-github-request-id", "x-github-media-type", "x-github-api-version-selected"];
  const own = url.pathname.startsWith("/app") || url.pathname.endsWith("/installation");
  if (!own && reply.status !== 401) {
    for (const name of ["limit", "remaining", "reset", "used", "resource"]) needed.push(`x-ratelimit-${name}`);
  }
  if (method === "GET" && reply.status === 200) needed.push("etag", "cache-control", "vary");
  for (const name of needed) if (!reply.headers.get(name)) errors.push(`reply: no header ${name}`);
  return errors;
}

function judge(method, url, sent, body, answer, answered) {
  const of = operation(method, url.pathname.replace(/^\/api\/v3/, ""));
  if (!of) return [`${method} ${url.pathname}`, ["no such operation"]];
  const get = (name) => answer.headers.get(name);
  const undescribed = UNDESCRIBED.some(([where, status]) => status === answer.status && where.test(of.name));
  const errors = [
    ...(sent["x-github-api-version"] || !/^octo-sts/.test(sent["user-agent"]) ? [] : ["request: no version"]),
    // What clients get wrong on purpose is answered by an error; that must be right, not they.
    ...(answer.status < 400 ? request(of, { query: url.searchParams, type: sent["content-type"], body }) : []),
    ...reply(of, {
      status: answer.status,
      type: get("content-type"),
      link: get("link"),
      location: get("location"),
      body: answered,
    }, undescribed),
    ...headers(answer, method, url),
  ];
  return [of.name, errors];
}

async function handle(incoming, outgoing, own) {
  const body = await collected(incoming);
  const url = new URL(incoming.url.replace(/^\/api\/v3/, ""), upstream);
  const { host, connection, "transfer-encoding": chunked, "accept-encoding": encodings, ...sent } = incoming.headers;
  delete sent["content-length"];
  const answer = await fetch(url, {
    method: incoming.method,
    headers: sent,
    body: body.length > 0 ? body : undefined,
    redirect: "manual",
  });
  const answered = Buffer.from(await answer.arrayBuffer());
  const client = (sent["user-agent"] ?? "-").split(/[ /]/)[0];
  const [name, errors] = judge(incoming.method, url, sent, body, answer, answered);
  const verdict = errors.length === 0 ? "ok" : "WRONG";
  appendFileSync(lines, `${verdict} ${client} ${name} ${answer.status}${errors.map((error) => `\n    ${error}`).join("")}\n`);
  // Clients that follow a link must come by here again.
  const ours = (text) => text.replaceAll(upstream, own);
  const text = /json/.test(answer.headers.get("content-type") ?? "") ? ours(answered.toString()) : answered;
  const out = Object.fromEntries([...answer.headers].map(([header, value]) => [header, ours(value)]));
  delete out["content-length"];
  delete out.connection;
  outgoing.writeHead(answer.status, out).end(text);
}

const started = (server, scheme, prefix) =>
  new Promise((resolve) => {
    server.on("request", (incoming, outgoing) => {
      handle(incoming, outgoing, `${scheme}://${incoming.headers.host}${prefix}`).catch((error) => {
        appendFileSync(lines, `WRONG - ${incoming.method} ${incoming.url}\n    the proxy: ${error.stack}\n`);
        outgoing.writeHead(502).end();
      });
    });
    server.listen(0, "127.0.0.1", () => resolve(server.address().port));
  });

const plain = await started(http.createServer(), "http", "");
const tls = { cert: readFileSync(certificate), key: readFileSync(key) };
const encrypted = await started(https.createServer(tls), "https", "/api/v3");
console.log(`${plain} ${encrypted}`);
