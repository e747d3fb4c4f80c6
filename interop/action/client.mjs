// The requests of the GitHub action octo-sts/action, made as its runner makes them: `main` exchanges
// the token that Actions offers, `post` revokes what was got. They share nothing but the files and
// variables of a runner.
import { createHash } from 'node:crypto';
import { appendFileSync } from 'node:fs';

const { env } = process;

async function answered(request) {
  const response = await request;
  if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
  return response.json();
}

async function main() {
  const [scope, identity, domain] = [env.INPUT_SCOPE, env.INPUT_IDENTITY, env.INPUT_DOMAIN];
  const offered = await answered(
    fetch(`${env.ACTIONS_ID_TOKEN_REQUEST_URL}&audience=${domain}`, {
      headers: { Authorization: `Bearer ${env.ACTIONS_ID_TOKEN_REQUEST_TOKEN}` },
    }),
  );
  // The action writes values into the query as they are: slashes stay slashes.
  const query = [`scope=${scope}`, env.ONE_SCOPE ? [] : `scopes=${[scope].join(',')}`, `identity=${identity}`];
  const { token } = await answered(
    fetch(`${env.STS_ORIGIN}/sts/exchange?${query.flat().join('&')}`, {
      headers: { Authorization: `Bearer ${offered.value}` },
    }),
  );
  console.log(`Token hash: ${createHash('sha256').update(token).digest('hex')}`);
  for (const file of [env.GITHUB_OUTPUT, env.GITHUB_STATE]) appendFileSync(file, `token=${token}\n`);
}

async function post() {
  const response = await fetch(`${env.GITHUB_API_URL}/installation/token`, {
    method: 'DELETE',
    headers: { Authorization: `Bearer ${env.STATE_token}` },
  });
  console.log(response.status);
}

await { main, post }[process.argv[2]]();
