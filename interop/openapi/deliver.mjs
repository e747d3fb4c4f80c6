// Delivers the opened pull request to the server's webhook, signed as GitHub signs.
//
//   node deliver.mjs SERVER < PULL_REQUEST_AND_INSTALLATION
import assert from "node:assert/strict";
import { createHmac, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

const { pull, installation } = JSON.parse(readFileSync(0, "utf8"));
const body = JSON.stringify({
  action: "opened",
  number: pull.number,
  pull_request: pull,
  repository: pull.base.repo,
  installation: { id: installation },
});
const signature = createHmac("sha256", process.env.GITHUB_WEBHOOK_SECRET).update(body).digest("hex");
const reply = await fetch(`${process.argv[2]}/webhook`, {
  method: "POST",
  headers: {
    "content-type": "application/json",
    "x-github-event": "pull_request",
    "x-github-delivery": randomUUID(),
    "x-hub-signature-256": `sha256=${signature}`,
  },
  body,
});
assert.deepEqual([reply.status, await reply.json()], [200, { msg: "accepted" }]);
