// A GitHub and two OIDC issuers, none of them ours, on loopback. Writes what the server and the suite
// must know of them to stdout, as shell variables, and the App's key to the file that is named.
//
// TOKENS/?issuer=known|stranger&CLAIM=VALUE answers a token, TOKENS/asked how often each issuer was
// asked for its discovery document.
import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createEmulator } from 'emulate';
import { OAuth2Server } from 'oauth2-mock-server';

const asked = { known: 0, stranger: 0 };

async function issuer(name) {
  const service = new OAuth2Server();
  await service.issuer.keys.generate('RS256');
  await service.start(0, '127.0.0.1');
  service.issuer.url = `http://127.0.0.1:${service.address().port}`;
  service.service.on('beforeWellKnownOpenIdConfiguration', () => (asked[name] += 1));
  return { url: service.issuer.url, build: (options) => service.issuer.buildToken(options) };
}

const [known, stranger] = [await issuer('known'), await issuer('stranger')];
const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs1', format: 'pem' });
writeFileSync(process.argv[2], key);

const permissions = { contents: 'write', issues: 'write', metadata: 'read', pull_requests: 'read' };
const at = (account, installation_id, more = {}) => ({ account, installation_id, permissions, ...more });
const github = await createEmulator({
  service: 'github',
  port: 0,
  seed: {
    tokens: { 'octocat-token': { login: 'octocat', scopes: ['repo', 'admin:org'] } },
    github: {
      users: [{ login: 'octocat' }],
      orgs: ['octo-org', 'strict', 'bare', 'elsewhere'].map((login) => ({ login, members: [{ login: 'octocat', role: 'admin' }] })),
      repos: ['octo-org/.github', 'octo-org/hello', 'octo-org/website', 'strict/.github', 'strict/hello', 'bare/hello',
        'elsewhere/hello', 'octocat/notes', 'octocat/diary'].map((name) => {
        const [owner, repo] = name.split('/');
        return { owner, name: repo, private: repo !== '.github' };
      }),
      apps: [{
        app_id: 4711, slug: 'octo-sts', name: 'octo-sts', private_key: key, permissions,
        installations: [at('octo-org', 1), at('strict', 2), at('bare', 3),
          at('octocat', 4, { repository_selection: 'selected', repositories: ['octocat/notes'] })],
      }],
    },
  },
});

const tokens = createServer(async (request, response) => {
  const url = new URL(request.url, 'http://tokens');
  if (url.pathname === '/asked') return response.end(JSON.stringify(asked));
  const { issuer, ...claims } = Object.fromEntries(url.searchParams);
  response.end(await (issuer === 'stranger' ? stranger : known).build({
    scopesOrTransform: (header, payload) => Object.assign(payload, { sub: 'machine', aud: 'sts.example' }, claims),
  }));
});
tokens.listen(0, '127.0.0.1', () => {
  console.log(`GITHUB=${github.url.replace('localhost', '127.0.0.1')}`);
  console.log(`KNOWN=${known.url}`);
  console.log(`STRANGER=${stranger.url}`);
  console.log(`TOKENS=http://127.0.0.1:${tokens.address().port}`);
});
