// What a runner offers at ACTIONS_ID_TOKEN_REQUEST_URL: a token with the audience that is asked for.
// The tokens come from the emulated issuer; TOKENS is where it hands them out.
import { createServer } from 'node:http';

const server = createServer(async (request, response) => {
  const audience = new URL(request.url, 'http://runner').searchParams.get('audience');
  if (request.headers.authorization !== 'Bearer runner') return response.writeHead(401).end();
  const token = await fetch(`${process.env.TOKENS}/token/ci?aud=${encodeURIComponent(audience)}`);
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ count: 1, value: await token.text() }));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
