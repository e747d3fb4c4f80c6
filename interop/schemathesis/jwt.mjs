// The App's JWT, good for nine minutes.
import { createSign } from "node:crypto";

const { GITHUB_APP_IDS: app, APP_SECRET_CERTIFICATE_ENV_VAR: key } = process.env;
const now = Math.floor(Date.now() / 1000);
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const signed = `${part({ alg: "RS256", typ: "JWT" })}.${part({ iss: app, iat: now - 30, exp: now + 540 })}`;
const signature = createSign("RSA-SHA256").update(signed).sign(key.replaceAll("\\n", "\n"), "base64url");
console.log(`${signed}.${signature}`);
