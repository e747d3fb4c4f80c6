// TLS before the emulated GitHub: its API below /api/v3, as Enterprise Server has it, and git beside it.
//
//   node tls.mjs UPSTREAM CERTIFICATE KEY     prints the port
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const [upstream, certificate, key] = process.argv.slice(2);
const server = https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (incoming, outgoing) => {
  const url = new URL(incoming.url.replace(/^\/api\/v3/, ""), upstream);
  const asked = http.request(url, { method: incoming.method, headers: incoming.headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.pipe(outgoing);
  });
  asked.on("error", () => outgoing.destroy());
  incoming.pipe(asked);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
