// The internet of a pod and of the server: a proxy that lets through to the names it knows and to nothing
// else, and TLS before the emulated GitHub under its real names. So scripts run with the addresses that
// stand in them.
//
//   node front.mjs GITHUB CERTIFICATE KEY DOMAIN PORT-FILE     prints the proxy's port; DOMAIN:443 leads to
//                                                               the port of this machine that the file holds
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";

const [github, certificate, key, domain, portFile] = process.argv.slice(2);
const front = https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (incoming, outgoing) => {
  const url = new URL(incoming.url, github);
  const asked = http.request(url, { method: incoming.method, headers: incoming.headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.pipe(outgoing);
  });
  asked.on("error", () => outgoing.destroy());
  incoming.pipe(asked);
});
front.listen(0, "127.0.0.1", () => {
  const proxy = http.createServer((_, outgoing) => outgoing.writeHead(405).end());
  proxy.on("connect", (request, socket) => {
    const ports = {
      "github.com:443": () => front.address().port,
      "api.github.com:443": () => front.address().port,
      [`${domain}:443`]: () => Number(readFileSync(portFile, "utf8")),
    };
    socket.on("error", () => {});
    const port = ports[request.url]?.();
    if (!port) return socket.end("HTTP/1.1 403 Forbidden\r\n\r\n");
    const tunnel = net.connect(port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      tunnel.pipe(socket).pipe(tunnel);
    });
    tunnel.on("error", () => socket.destroy());
  });
  proxy.listen(0, "127.0.0.1", () => console.log(proxy.address().port));
});
