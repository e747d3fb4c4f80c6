// The provider, on loopback: `provider.mjs KEYS PORT`. A client gets a token by its credentials; the
// resource that it asks for says how: https://sts.example/?alg=ALG[&typ=TYP][&sub=SUBJECT].
// Writes its port to stdout once it listens, and to stderr each path that is asked for.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [keys, port] = process.argv.slice(2);
const asked = (resource) => Object.fromEntries(new URL(resource).searchParams);

function configuration() {
  return {
    jwks: JSON.parse(readFileSync(keys)),
    clients: [{ client_id: 'machine', client_secret: 'secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: '',
          audience: 'octo-sts.localhost',
          accessTokenFormat: 'jwt',
          accessTokenTTL: 300,
          jwt: { sign: { alg: asked(resource).alg } },
        }),
      },
    },
    extraTokenClaims: () => ({ team: 'release' }),
    formats: {
      customizers: {
        jwt(ctx, token, parts) {
          const { typ, sub } = asked(ctx.oidc.params.resource);
          if (typ) parts.header = { typ };
          if (sub) parts.payload.sub = sub;
          return parts;
        },
      },
    },
  };
}

const server = createServer();
server.listen(Number(port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration());
  provider.use((ctx, next) => (console.error(`asked ${ctx.path}`), next()));
  server.on('request', provider.callback());
  console.log(server.address().port);
});
