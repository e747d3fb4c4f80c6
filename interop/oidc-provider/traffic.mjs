// Exchanges without pause until the file STOP is there, and then tells how each key id fared: how many
// of its tokens were answered with which status. The tokens are the lines of the file POOL, which may
// change at any time.
import { existsSync, readFileSync } from 'node:fs';

const { STS, POOL, STOP } = process.env;
const tally = {};
let next = 0;

async function work() {
  while (!existsSync(STOP)) {
    const tokens = readFileSync(POOL, 'utf8').split('\n').filter(Boolean);
    const token = tokens[next++ % tokens.length];
    const { kid } = JSON.parse(Buffer.from(token.split('.')[0], 'base64url'));
    const response = await fetch(`${STS}/sts/exchange?scope=octo-org/hello&identity=machine`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    const body = await response.json();
    const outcome = `${kid} ${response.status}${response.ok ? '' : ` ${body.message}`}`;
    tally[outcome] = (tally[outcome] ?? 0) + 1;
  }
}

await Promise.all(Array.from({ length: 4 }, work));
for (const [outcome, count] of Object.entries(tally).sort()) console.log(`${outcome} ${count}`);
