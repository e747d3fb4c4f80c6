// Octokit as an App: finds its installation, mints, reads and writes, revokes.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";

const { App } = await import(`${process.env.NODE_MODULES}/@octokit/app/dist-node/index.js`);
const { Octokit } = await import(`${process.env.NODE_MODULES}/@octokit/core/dist-src/index.js`);

const baseUrl = process.env.PROXY;
const app = new App({
  appId: process.env.GITHUB_APP_IDS,
  privateKey: process.env.APP_SECRET_CERTIFICATE_ENV_VAR.replaceAll("\\n", "\n"),
  Octokit: Octokit.defaults({ baseUrl, userAgent: "octokit" }),
});
const refused = (status, message) => (error) => {
  assert.equal(error.status, status);
  assert.match(error.response.data.message, message);
  return true;
};

const { data: self } = await app.octokit.request("GET /app");
assert.equal(self.slug, "octo-sts-dev");
const seen = [];
await app.eachInstallation(({ installation }) => seen.push(installation.account.login));
assert.deepEqual(seen, ["octo-org"]);
const repositories = [];
await app.eachRepository(({ repository }) => repositories.push(repository.full_name));
assert.ok(repositories.includes("octo-org/hello"), repositories);

const { data: installation } = await app.octokit.request("GET /orgs/{org}/installation", { org: "octo-org" });
await app.octokit.request("GET /users/{username}/installation", { username: "octo-org" });
await app.octokit.request("GET /app/installations/{installation_id}", { installation_id: installation.id });
const hello = { owner: "octo-org", repo: "hello" };
await app.octokit.request("GET /repos/{owner}/{repo}/installation", hello);
await assert.rejects(app.octokit.request("GET /orgs/{org}/installation", { org: "nobody" }), refused(404, /^Not Found$/));

const octokit = await app.getInstallationOctokit(installation.id);
await octokit.request("GET /repos/{owner}/{repo}", hello);
const file = { ...hello, path: "README.md" };
const read = await octokit.request("GET /repos/{owner}/{repo}/contents/{path}", file);
assert.equal(Buffer.from(read.data.content, "base64").toString(), "# hello\n");
const unchanged = { ...file, headers: { "if-none-match": read.headers.etag } };
await assert.rejects(octokit.request("GET /repos/{owner}/{repo}/contents/{path}", unchanged), { status: 304 });
const raw = { ...file, mediaType: { format: "raw" } };
assert.equal((await octokit.request("GET /repos/{owner}/{repo}/contents/{path}", raw)).data, "# hello\n");
const folder = await octokit.request("GET /repos/{owner}/{repo}/contents/{path}", { ...hello, path: "" });
assert.deepEqual(folder.data.map(({ name }) => name), [".github", "README.md"]);
await assert.rejects(
  octokit.request("GET /repos/{owner}/{repo}/contents/{path}", { ...hello, path: "absent" }),
  refused(404, /^Not Found$/),
);

const written = { ...hello, path: "notes/octokit.md", message: "Add a note", content: Buffer.from("one\n").toString("base64") };
const made = await octokit.request("PUT /repos/{owner}/{repo}/contents/{path}", written);
assert.equal(made.status, 201);
const { sha } = made.data.content;
const again = await octokit.request("PUT /repos/{owner}/{repo}/contents/{path}", { ...written, sha });
assert.equal(again.status, 200);
const stale = { ...written, sha: "0".repeat(40), content: Buffer.from("two\n").toString("base64") };
await assert.rejects(octokit.request("PUT /repos/{owner}/{repo}/contents/{path}", stale), refused(409, /does not match/));
await assert.rejects(octokit.request("PUT /repos/{owner}/{repo}/contents/{path}", written), refused(422, /sha/));

await octokit.request("POST /repos/{owner}/{repo}/issues", { ...hello, title: "From Octokit", body: "With a body" });
const { data: issues } = await octokit.request("GET /repos/{owner}/{repo}/issues", hello);
assert.equal(issues[0].title, "From Octokit");
await assert.rejects(octokit.request("POST /repos/{owner}/{repo}/issues", { ...hello, body: "No title" }), refused(422, /^Validation Failed$/));
assert.deepEqual((await octokit.request("GET /repos/{owner}/{repo}/pulls", hello)).data, []);

const { data: head } = await octokit.request("GET /repos/{owner}/{repo}/git/ref/{ref}", { ...hello, ref: "heads/main" });
await assert.rejects(
  octokit.request("GET /repos/{owner}/{repo}/git/ref/{ref}", { ...hello, ref: "heads/absent" }),
  refused(404, /^Not Found$/),
);
const check = { ...hello, name: "Policies", head_sha: head.object.sha, status: "in_progress" };
const { data: run } = await octokit.request("POST /repos/{owner}/{repo}/check-runs", check);
assert.equal(run.conclusion, null);
const { data: done } = await octokit.request("PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}", {
  ...hello,
  check_run_id: run.id,
  conclusion: "success",
  output: { title: "Valid", summary: "" },
});
assert.equal(done.status, "completed");

// A pull request that breaks a policy, for the server's check.
const main = await octokit.request("GET /repos/{owner}/{repo}/git/ref/{ref}", { ...hello, ref: "heads/main" });
const proposal = { ...hello, branch: "proposal", path: ".github/chainguard/new.sts.yaml", message: "Add a policy" };
await octokit.request("PUT /repos/{owner}/{repo}/contents/{path}", { ...proposal, content: Buffer.from("issuer: x\n").toString("base64") });
const opened = await octokit.request("POST /repos/{owner}/{repo}/pulls", { ...hello, title: "Add a policy", head: "proposal", base: "main" });
await assert.rejects(octokit.request("POST /repos/{owner}/{repo}/pulls", { ...hello, title: "x", head: "absent", base: "main" }), refused(422, /^Validation Failed$/));
const pull = await octokit.request("GET /repos/{owner}/{repo}/pulls/{pull_number}", { ...hello, pull_number: opened.data.number });
const compared = await octokit.request("GET /repos/{owner}/{repo}/compare/{basehead}", { ...hello, basehead: `main...${pull.data.head.sha}` });
assert.equal(compared.data.merge_base_commit.sha, main.data.object.sha);
assert.deepEqual(compared.data.files.map(({ filename }) => filename), [proposal.path]);
const tree = await octokit.request("GET /repos/{owner}/{repo}/git/trees/{tree_sha}", { ...hello, tree_sha: pull.data.head.sha, recursive: "1" });
assert.ok(tree.data.tree.some(({ path }) => path === proposal.path));
writeFileSync(`${process.env.WORK}/pull`, JSON.stringify({ pull: pull.data, installation: installation.id }));

await octokit.request("GET /rate_limit");
await octokit.request("GET /meta");

// A token that is narrowed, and what it may not.
const mint = (parameters) =>
  app.octokit.request("POST /app/installations/{installation_id}/access_tokens", {
    installation_id: installation.id,
    ...parameters,
  });
const { data: narrow } = await mint({ repositories: ["hello"], permissions: { contents: "read" } });
assert.deepEqual(narrow.repositories.map(({ name }) => name), ["hello"]);
const reader = new Octokit({ baseUrl, auth: narrow.token, userAgent: "octokit" });
await reader.request("GET /repos/{owner}/{repo}/contents/{path}", file);
await assert.rejects(
  reader.request("PUT /repos/{owner}/{repo}/contents/{path}", written),
  refused(403, /^Resource not accessible by integration$/),
);
await assert.rejects(reader.request("GET /repos/{owner}/{repo}", { owner: "octo-org", repo: "website" }), refused(404, /^Not Found$/));
await assert.rejects(mint({ permissions: { administration: "write" } }), refused(422, /permissions requested are not granted/));
await assert.rejects(mint({ repositories: ["absent"] }), refused(422, /at least one repository that does not exist/));
await reader.request("DELETE /installation/token");
await assert.rejects(reader.request("GET /installation/repositories"), refused(401, /^Bad credentials$/));
console.log("ok: Octokit");
