// Sends every example delivery that GitHub publishes, signed by Octokit, and checks what the server
// makes of each.
//
//   node send.mjs SERVER
import assert from "node:assert/strict";
import { createHmac, randomUUID } from "node:crypto";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_MODULES}/`);
const { Webhooks } = await import(`${process.env.NODE_MODULES}/@octokit/webhooks/dist-bundle/index.js`);
const server = process.argv[2];
const secret = process.env.GITHUB_WEBHOOK_SECRET;
const webhooks = new Webhooks({ secret });

async function send(event, body, { signature, type = "application/json", ...headers } = {}) {
  const reply = await fetch(`${server}/webhook`, {
    method: "POST",
    headers: {
      "content-type": type,
      "user-agent": "GitHub-Hookshot/1234567",
      "x-github-event": event,
      "x-github-delivery": randomUUID(),
      ...(signature === null ? {} : { "x-hub-signature-256": signature ?? (await webhooks.sign(body)) }),
      ...headers,
    },
    body,
  });
  return [reply.status, (await reply.json()).msg];
}

// Events that remove copies or are checked, if their action says so.
const REMOVES = {
  installation: () => true,
  installation_repositories: () => true,
  public: () => true,
  repository: ({ action, changes }) => action !== "edited" || changes?.default_branch !== undefined,
  organization: ({ action }) => ["renamed", "deleted"].includes(action),
  push: ({ ref, repository }) => ref === `refs/heads/${repository.default_branch}`,
};
const CHECKED = {
  pull_request: ({ action, changes }) =>
    ["opened", "synchronize", "reopened"].includes(action) || (action === "edited" && changes?.base !== undefined),
  check_suite: ({ action }) => action === "rerequested",
  check_run: ({ action }) => action === "rerequested",
  merge_group: ({ action }) => action === "checks_requested",
};

const counts = {};
const seen = new Set();
for (const source of ["api.github.com", "ghes-35"]) {
  for (const { name, examples } of require(`@octokit/webhooks-examples/${source}/index.json`)) {
    for (const example of examples) {
      const body = JSON.stringify(example);
      const answer = await send(name, body);
      const accepted = REMOVES[name]?.(example) || (CHECKED[name]?.(example) && example.installation !== undefined);
      const expected = seen.has(body) ? (accepted ? [200, "replayed"] : [202, "ignored"]) : accepted ? [200, "accepted"] : [202, "ignored"];
      // Work that failed, here since the App is not installed for the example's owner, is done again.
      if (name in CHECKED && seen.has(body) && accepted) expected[1] = answer[1];
      seen.add(body);
      assert.deepEqual(answer, expected, `${source} ${name} ${example.action ?? ""} ${JSON.stringify(example.changes ?? {})}`);
      counts[answer[1]] = (counts[answer[1]] ?? 0) + 1;
    }
  }
}
assert.ok(counts.accepted > 40 && counts.ignored > 250, JSON.stringify(counts));
console.log(`ok: ${JSON.stringify(counts)}`);

// A form, as GitHub offers it too: signed as it is sent.
const form = new URLSearchParams({ payload: JSON.stringify({ zen: "x", repository: { name: "hello", owner: { login: "octo-org" } } }) });
assert.deepEqual(await send("public", form.toString(), { type: "application/x-www-form-urlencoded" }), [200, "accepted"]);

// What is not a delivery.
const body = '{"zen":"y"}';
const sha1 = `sha1=${createHmac("sha1", secret).update(body).digest("hex")}`;
for (const [headers, message] of [
  [{ signature: await new Webhooks({ secret: "other" }).sign(body) }, /^no matching secrets$/],
  [{ signature: await webhooks.sign(`${body} `) }, /^no matching secrets$/],
  [{ signature: null, "x-hub-signature": sha1 }, /X-Hub-Signature-256/],
  [{ type: "text/plain" }, /Content-Type/],
  [{ "x-github-delivery": "" }, /X-GitHub-Delivery/],
]) {
  const [status, text] = await send("ping", body, headers);
  assert.equal(status, 400);
  assert.match(text, message);
}
console.log("ok: what is not a delivery");
