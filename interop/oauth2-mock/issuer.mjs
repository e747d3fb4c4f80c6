// The issuer on loopback: writes its address to stdout, waits for that of the server on stdin, then
// tries each token of the corpus and ends: 0 if every answer is the one that is wanted.
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { OAuth2Server } from 'oauth2-mock-server';
import { corpus } from './corpus.mjs';

const service = new OAuth2Server();
for (const alg of ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA']) await service.issuer.keys.generate(alg);
await service.start(0, '127.0.0.1');
service.issuer.url = `http://127.0.0.1:${service.address().port}`;
console.log(service.issuer.url);
const [sts] = await once(createInterface({ input: process.stdin }), 'line');

async function exchange(identity, token) {
  for (;;) {
    const response = await fetch(`${sts}/sts/exchange?scope=octo-org/hello&identity=${identity}`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    const body = await response.json();
    const outcome = response.ok && body.token ? 'granted' : (body.details?.[0].reason ?? response.status);
    // Tokens that do not verify are paid for by whoever sends them.
    if (outcome !== 'RATE_LIMITED') return outcome;
    await setTimeout(1000 * Number(response.headers.get('retry-after')));
  }
}

let wrong = 0;
for (const [name, identity, token, wanted] of await corpus(service.issuer)) {
  const got = await exchange(identity, token);
  if (got !== wanted) wrong += 1;
  console.log(got === wanted ? `ok: ${name}` : `not ok: ${name}: wanted ${wanted}, got ${got}`);
}
process.exit(wrong ? 1 : 0);
