// Good and bad tokens: `[name, identity, token, what is wanted]`, the last being `granted` or the
// reason of the refusal. Until a signature has verified, a caller whose issuer is not known to the
// operator is told ISSUER_NOT_TRUSTED whatever the matter is.
import { constants, createHmac, createPublicKey, generateKeyPairSync, sign } from 'node:crypto';

const now = Math.floor(Date.now() / 1000);
const encoded = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

export async function corpus(issuer) {
  const [rsa] = issuer.keys.toJSON(true).filter((key) => key.alg === 'RS256');
  const claims = { iss: issuer.url, sub: 'machine', aud: 'octo-sts.localhost', iat: now, exp: now + 300 };
  const header = { alg: 'RS256', typ: 'JWT', kid: rsa.kid };

  // As the issuer makes them: what is undefined is left out.
  const made = (change = {}, headers = {}, kid = rsa.kid) =>
    issuer.buildToken({ kid, scopesOrTransform: (head, body) => Object.assign(body, claims, change) && Object.assign(head, headers) });
  // As no library makes them, with the issuer's key or another.
  const crafted = (head, body, key = rsa) => {
    const signed = `${encoded(head)}.${encoded(body)}`;
    const options = key.kty ? { key, format: 'jwk' } : { key };
    return `${signed}.${sign('sha256', Buffer.from(signed), { ...options, padding: constants.RSA_PKCS1_PADDING }).toString('base64url')}`;
  };
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const otherJwk = other.publicKey.export({ format: 'jwk' });
  const good = await made();
  const [head, body, signature] = good.split('.');
  const publicPem = createPublicKey({ key: rsa, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
  const hmac = (secret) => {
    const signed = `${encoded({ ...header, alg: 'HS256' })}.${body}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  };

  const cases = [
    ['a token', made(), 'granted'],
    ['without typ', made({}, { typ: undefined }), 'granted'],
    ['typ at+jwt', made({}, { typ: 'at+jwt' }), 'granted'],
    ['typ jwt in small letters', made({}, { typ: 'jwt' }), 'granted'],
    ['several audiences', made({ aud: ['https://other.example', 'octo-sts.localhost'] }), 'granted'],
    ['an odd audience beside ours', made({ aud: ['', 7, 'octo-sts.localhost'] }), 'granted'],
    ['expired 20 s ago', made({ exp: now - 20 }), 'granted'],
    ['valid from in 30 s', made({ nbf: now + 30 }), 'granted'],
    ['issued in 30 s', made({ iat: now + 30 }), 'granted'],
    ['a fraction in exp', made({ exp: now + 300.5 }), 'granted'],
    ['without nbf and iat', made({ nbf: undefined, iat: undefined }), 'granted'],
    ['a year to go', made({ exp: now + 31_536_000 }), 'granted'],
    ['a claim of 60 KB', made({ more: 'x'.repeat(60_000) }), 'TOKEN_TOO_LARGE'],

    ['expired', made({ exp: now - 120 }), 'TOKEN_EXPIRED'],
    ['without exp', made({ exp: undefined }), 'TOKEN_CLAIMS_INVALID'],
    ['exp as text', made({ exp: `${now + 300}` }), 'TOKEN_CLAIMS_INVALID'],
    ['exp null', crafted(header, { ...claims, exp: null }), 'TOKEN_CLAIMS_INVALID'],
    ['exp in the year 20000', made({ exp: 568_971_820_800 }), 'TOKEN_CLAIMS_INVALID'],
    ['not yet valid', made({ nbf: now + 300 }), 'TOKEN_NOT_YET_VALID'],
    ['issued in five minutes', made({ iat: now + 300 }), 'TOKEN_NOT_YET_VALID'],
    ['another audience', made({ aud: 'https://github.com/octo-org' }), 'POLICY_MISMATCH'],
    ['the audience in capitals', made({ aud: 'OCTO-STS.LOCALHOST' }), 'POLICY_MISMATCH'],
    ['no audience', made({ aud: undefined }), 'POLICY_MISMATCH'],
    ['a number as the audience', made({ aud: 7 }), 'TOKEN_CLAIMS_INVALID'],
    ['another subject', made({ sub: 'machine2' }), 'POLICY_MISMATCH'],
    ['the subject in capitals', made({ sub: 'MACHINE' }), 'POLICY_MISMATCH'],
    ['without sub', made({ sub: undefined }), 'TOKEN_CLAIMS_INVALID'],
    ['an empty sub', made({ sub: '' }), 'TOKEN_CLAIMS_INVALID'],
    ['a number as sub', made({ sub: 7 }), 'TOKEN_CLAIMS_INVALID'],
    ['a list as sub', made({ sub: ['machine'] }), 'TOKEN_CLAIMS_INVALID'],
    ['a line end in sub', made({ sub: 'machine\n' }), 'TOKEN_CLAIMS_INVALID'],
    ['a sub of 1025 bytes', made({ sub: 's'.repeat(1025) }), 'TOKEN_CLAIMS_INVALID'],
    ['sub twice', crafted(header, JSON.stringify(claims).replace('{', '{"sub":"someone",')), 'TOKEN_CLAIMS_INVALID'],

    ['without iss', made({ iss: undefined }), 'TOKEN_CLAIMS_INVALID'],
    ['iss with a slash at its end', made({ iss: `${issuer.url}/` }), 'ISSUER_NOT_TRUSTED'],
    ['iss with a path', made({ iss: `${issuer.url}/realm` }), 'ISSUER_NOT_TRUSTED'],
    ['iss with userinfo', made({ iss: issuer.url.replace('://', '://octo-sts@') }), 'TOKEN_CLAIMS_INVALID'],
    ['iss in capitals', made({ iss: issuer.url.toUpperCase() }), 'TOKEN_CLAIMS_INVALID'],

    ['alg none', `${encoded({ ...header, alg: 'none' })}.${body}.`, 'SIGNATURE_INVALID'],
    ['HMAC with the public key', hmac(publicPem), 'SIGNATURE_INVALID'],
    ['HMAC with nothing', hmac(''), 'SIGNATURE_INVALID'],
    ['no signature', `${head}.${body}.`, 'SIGNATURE_INVALID'],
    ['two parts', `${head}.${body}`, 'TOKEN_MALFORMED'],
    ['four parts', `${good}.${signature}`, 'TOKEN_MALFORMED'],
    ['no JSON', `${head}.${encoded('machine')}.${signature}`, 'TOKEN_MALFORMED'],
    ['a list for claims', crafted(header, [claims]), 'TOKEN_MALFORMED'],
    ['other claims under a good signature', `${head}.${encoded({ ...claims, exp: now + 301 })}.${signature}`, 'ISSUER_NOT_TRUSTED'],
    ["another's key under the issuer's key id", crafted(header, claims, other.privateKey), 'ISSUER_NOT_TRUSTED'],
    ["another's key in the header", crafted({ ...header, jwk: otherJwk }, claims, other.privateKey), 'ISSUER_NOT_TRUSTED'],
    ['another key id', crafted({ ...header, kid: 'other' }, claims), 'ISSUER_NOT_TRUSTED'],
    ['no key id', crafted({ ...header, kid: undefined }, claims), 'granted'],
    ['an empty key id', crafted({ ...header, kid: '' }, claims), 'ISSUER_NOT_TRUSTED'],
    ['a security event', made({}, { typ: 'secevent+jwt' }), 'SIGNATURE_INVALID'],
    ['a logout token', made({}, { typ: 'logout+jwt' }), 'SIGNATURE_INVALID'],
    ['a nested token', crafted({ ...header, cty: 'JWT' }, claims), 'SIGNATURE_INVALID'],
    ['a critical extension', crafted({ ...header, crit: ['exp'], exp: 1 }, claims), 'SIGNATURE_INVALID'],
    ['an unencoded payload', crafted({ ...header, b64: false }, claims), 'SIGNATURE_INVALID'],
    ['compressed', crafted({ ...header, zip: 'DEF' }, claims), 'SIGNATURE_INVALID'],
  ].map(([name, token, wanted]) => [name, 'machine', token, wanted]);

  // Its discovery lists RS256 alone, whatever keys it has.
  for (const { alg, kid } of issuer.keys.toJSON()) {
    if (alg !== 'RS256') cases.push([`${alg}, which is not listed`, 'machine', made({}, {}, kid), 'ISSUER_NOT_TRUSTED']);
  }

  const typed = { verified: true, run: 42, groups: ['ops', 'dev'], 'kubernetes.io': { namespace: 'production' } };
  const asked = [
    ['claims of each kind', {}, 'granted'],
    ['a boolean as text', { verified: 'true' }, 'granted'],
    ['another boolean', { verified: false }, 'POLICY_MISMATCH'],
    ['a number as text', { run: '42' }, 'granted'],
    ['a fraction', { run: 4.2 }, 'POLICY_MISMATCH'],
    ['a group in its name alone', { groups: ['devops'] }, 'POLICY_MISMATCH'],
    ['no group', { groups: [] }, 'POLICY_MISMATCH'],
    ['one group, not in a list', { groups: 'dev' }, 'granted'],
    ['null', { verified: null }, 'POLICY_MISMATCH'],
    ['an object', { groups: { dev: true } }, 'POLICY_MISMATCH'],
    ['another namespace', { 'kubernetes.io': { namespace: 'production-2' } }, 'POLICY_MISMATCH'],
    ['a claim with that whole name, too', { 'kubernetes.io/namespace': 'staging' }, 'POLICY_MISMATCH'],
  ];
  for (const [name, change, wanted] of asked) cases.push([name, 'claims', made({ ...typed, ...change }), wanted]);
  return Promise.all(cases.map(async ([name, identity, token, wanted]) => [name, identity, await token, wanted]));
}
