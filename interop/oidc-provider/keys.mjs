// A set of fresh private keys on stdout, one for each algorithm, their ids ending with the argument;
// the keys of the file that may be named besides follow.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';

const [generation, older] = process.argv.slice(2);
const kinds = {
  RS256: ['rsa', { modulusLength: 2048 }],
  ES256: ['ec', { namedCurve: 'P-256' }],
  EdDSA: ['ed25519'],
};
const keys = Object.entries(kinds).map(([alg, kind]) => ({
  ...generateKeyPairSync(...kind).privateKey.export({ format: 'jwk' }),
  kid: `${alg}-${generation}`,
  alg,
  use: 'sig',
}));
if (older) keys.push(...JSON.parse(readFileSync(older)).keys);
console.log(JSON.stringify({ keys }));
