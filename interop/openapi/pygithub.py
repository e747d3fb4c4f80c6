"""PyGithub as an App: finds its installation, mints, reads and writes, revokes."""

import os

import github
from github import Auth, Github, GithubException, GithubIntegration


def refused(status, act, *arguments, **named):
    try:
        act(*arguments, **named)
    except GithubException as error:
        assert error.status == status, error
    else:
        raise AssertionError(f"{status} was wanted")


proxy = os.environ["PROXY"]
key = os.environ["APP_SECRET_CERTIFICATE_ENV_VAR"].replace("\\n", "\n")
app = Auth.AppAuth(int(os.environ["GITHUB_APP_IDS"]), key)
integration = GithubIntegration(auth=app, base_url=proxy, user_agent="PyGithub")
assert integration.get_app().slug == "octo-sts-dev"
assert [found.target_type for found in integration.get_installations()] == ["Organization"]
installation = integration.get_org_installation("octo-org")
assert integration.get_user_installation("octo-org").id == installation.id
assert integration.get_repo_installation("octo-org", "hello").id == installation.id
assert integration.get_app_installation(installation.id).permissions["contents"] == "write"
refused(404, integration.get_repo_installation, "octo-org", "absent")

token = integration.get_access_token(installation.id, permissions={"contents": "write", "issues": "write"})
client = Github(auth=Auth.Token(token.token), base_url=proxy, user_agent="PyGithub", retry=None)
repository = client.get_repo("octo-org/hello")
assert repository.private and repository.owner.type == "Organization"
assert repository.get_contents("README.md").decoded_content == b"# hello\n"
names = [item.name for item in repository.get_contents("")]
assert "README.md" in names, names
made = repository.create_file("notes/pygithub.md", "Add a note", "one\n")
repository.update_file("notes/pygithub.md", "Change it", "two\n", made["content"].sha)
assert repository.get_contents("notes/pygithub.md").decoded_content == b"two\n"
refused(409, repository.update_file, "notes/pygithub.md", "Too late", "three\n", made["content"].sha)
refused(404, repository.get_contents, "absent")
issue = repository.create_issue("From PyGithub", body="With a body")
assert issue.user.type == "Bot"
assert repository.get_issues()[0].title == "From PyGithub"
assert client.get_rate_limit().rate.limit == 5000

mine = installation.get_repos()
assert "octo-org/website" in [found.full_name for found in mine]
refused(422, integration.get_access_token, installation.id, permissions={"administration": "write"})
client.requester.requestJsonAndCheck("DELETE", "/installation/token")
refused(401, client.get_repo, "octo-org/hello")
print("ok: PyGithub", github.__name__)
