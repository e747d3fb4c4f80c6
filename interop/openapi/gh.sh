# GitHub's own command, with a token that the server gave it: TOKEN. To it, the proxy is an Enterprise Server.
set -euo pipefail
export GH_CONFIG_DIR="$WORK/gh" GH_ENTERPRISE_TOKEN="$TOKEN" GH_NO_UPDATE_NOTIFIER=1 NO_COLOR=1

[ "$(gh api repos/octo-org/hello --jq .full_name)" = octo-org/hello ]
[ "$(gh api repos/octo-org/hello/contents/README.md --jq .content | base64 -d)" = "# hello" ]
[ "$(gh api -H 'Accept: application/vnd.github.raw' repos/octo-org/hello/contents/README.md)" = "# hello" ]
gh api repos/octo-org/hello/issues -f title="From gh" -f body="With a body" --jq .number >/dev/null
[ "$(gh api 'repos/octo-org/hello/issues?state=open' --paginate --jq '.[0].title')" = "From gh" ]
[ "$(gh api installation/repositories --paginate --jq '.repositories[].name')" = hello ]
[ "$(gh api rate_limit --jq .resources.core.limit)" = 5000 ]
gh api -X DELETE installation/token
! gh api repos/octo-org/hello >/dev/null 2>"$WORK/gh.refused"
grep -q 'Bad credentials (HTTP 401)' "$WORK/gh.refused"
echo "ok: gh"
